from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from loan_platform.registry.models import Registry
from loan_platform.registry.trials import STATE_TAG, TrialRuns
from loan_platform.training.recipe import Ingredient, Recipe, Tried

BEGAN = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def tried(place: int, state: str = "complete", **more: object) -> Tried:
    return Tried.model_validate(
        {
            "place": place,
            "family": "lightgbm",
            "parameters": {"num_leaves": 15},
            "state": state,
            "began": BEGAN,
            "seconds": 2.5,
            "figures": {} if state == "failed" else {"log_loss": 0.3 + place / 100, "size": 40.0},
            **more,
        }
    )


def test_every_trial_is_a_nested_run_and_a_resumed_search_goes_on_in_its_own(
    registry: Registry, tmp_path: Path
) -> None:
    client = registry.client
    parent = client.create_run(client.create_experiment("dagster")).info.run_id
    runs = TrialRuns(registry.home, "home_loans", parent)

    def interrupted() -> None:
        with runs:
            assert runs.begin("abc") == set()
            runs.record(tried(1))
            runs.record(tried(2, "failed", error="ValueError: no"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    first = runs.run_id
    assert client.get_run(first).info.status == "FAILED"

    with TrialRuns(registry.home, "home_loans") as runs:
        assert runs.begin("abc") == {1, 2}
        assert runs.run_id == first
        runs.record(tried(3, "pruned"))
        recipe = Recipe(
            ingredients=[Ingredient(family="lightgbm", size=40)],
            figures={"log_loss": 0.31},
            tried=[tried(1), tried(2, "failed"), tried(3, "pruned")],
        )
        runs.conclude(recipe)

    search = client.get_run(first)
    assert search.info.status == "FINISHED"
    assert search.data.tags["mlflow.parentRunId"] == parent
    assert search.data.tags["recipe"] == "lightgbm of 40"
    assert search.data.metrics == {"log_loss": 0.31, "trials": 3}
    client.download_artifacts(first, "recipe.json", str(tmp_path))
    assert Recipe.read(tmp_path / "recipe.json") == recipe

    nested = f"tags.`mlflow.parentRunId` = '{first}'"
    experiment = client.get_experiment(search.info.experiment_id)
    assert experiment.name == "home_loans"
    trials = client.search_runs(
        [experiment.experiment_id], nested, order_by=["attributes.run_name"]
    )
    assert [run.info.run_name for run in trials] == [f"trial {n}: lightgbm" for n in (1, 2, 3)]
    assert [run.info.status for run in trials] == ["FINISHED", "FAILED", "FINISHED"]
    assert [run.data.tags[STATE_TAG] for run in trials] == ["complete", "failed", "pruned"]
    one, failed, _ = trials
    assert one.data.params == {"family": "lightgbm", "num_leaves": "15"}
    assert one.data.metrics == {"log_loss": 0.31, "size": 40, "seconds": 2.5}
    assert one.info.start_time == BEGAN.timestamp() * 1000
    assert one.info.end_time - one.info.start_time == 2500
    assert failed.data.tags["error"] == "ValueError: no"


def test_another_question_is_another_run(registry: Registry) -> None:
    found = []
    for question in ("abc", "def"):
        with TrialRuns(registry.home, "home_loans") as runs:
            assert runs.begin(question) == set()
            found.append(runs.run_id)
    assert len(set(found)) == 2
