"""The search through Dagster: on request, tracked, and followed by every later training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from loan_platform.components.training import recipe_file
from loan_platform.engine.home import Home
from loan_platform.registry.models import Registry
from loan_platform.training.recipe import Recipe
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, latest, run
from loan_platform_tests.registry.conftest import registry as registry
from loan_platform_tests.training.books import cleaned_table, write_months

NAME = "home_loans"
SEARCH = {"families": ["lightgbm", "logistic"], "trials": 2, "members": 1}


def searched_by(
    defs: dg.Definitions, instance: dg.DagsterInstance, **budget: Any
) -> dict[str, Any]:
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey([NAME, "model_search"])],
        run_config={"ops": {f"{NAME}_model_search": {"config": budget}}},
    )
    return latest(instance, NAME, "model_search")


@pytest.mark.slow
def test_a_search_is_tracked_and_the_next_training_follows_it(
    registry: Registry, home: Home, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """One road, in order: a search, a larger one, a training."""
    contract = home_loans.contract(training={"search": SEARCH})
    file = home_loans.write_csv(tmp_path / "home_loans.csv", home_loans.rows(1500))
    cleaned = home.partition(NAME, "cleaned_features", "2024-01").parent
    write_months(cleaned_table(contract, file), cleaned)
    defs = definitions(contract, home)

    assert searched_by(defs, instance)["trials"] == 2
    found = searched_by(defs, instance, trials=3)
    recipe = Recipe.read(recipe_file(home, contract))
    assert found["trials"] == len(recipe.tried) == 3
    assert found["recipe"] == recipe.words
    assert found["log_loss"] == pytest.approx(recipe.figures["log_loss"], abs=1e-6)
    assert found["tried"].startswith("![trials](data:image/png;base64,")
    assert recipe.contract_hash == contract.contract_hash
    client = registry.client
    experiment = registry.experiment_id()
    (search,) = client.search_runs([experiment], "tags.`loan_platform.search` != ''")
    nested = f"tags.`mlflow.parentRunId` = '{search.info.run_id}'"
    assert len(client.search_runs([experiment], nested)) == 3
    linked = client.get_run(search.data.tags["mlflow.parentRunId"])
    assert linked.data.tags["dagster_run_id"]

    run(defs, instance, NAME, "trained_model")
    followed = latest(instance, NAME, "trained_model")
    assert recipe.words in followed["recipe"]
    (made,) = registry.load(followed["model_version"]).record.ingredients
    (wanted,) = recipe.ingredients
    assert (made["family"], made["size"]) == (wanted.family, wanted.size)
