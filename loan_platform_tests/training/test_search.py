from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from loan_platform.contract.settings import Search
from loan_platform.engine.files import write_parquet
from loan_platform.training import TrainingError, split
from loan_platform.training import search as searching
from loan_platform.training.families import Fit, Task, Watched, module
from loan_platform.training.recipe import Ingredient, Recipe, Tried, to_follow, usual
from loan_platform.training.rows import known_rows
from loan_platform.training.search import search, search_rows
from loan_platform.training.split import folds
from loan_platform.training.study import StudyError, opened
from loan_platform.training.trial import GROWTH
from loan_platform_tests import home_loans
from loan_platform_tests.training.conftest import AS_OF

TASK = Task(("a", "b", "c", "d"), {"d": 3}, (1, 0, 0, 0), balanced=False, seed=7)
SHALLOW: list[tuple[str, dict[str, Any]]] = [
    ("lightgbm", {"learning_rate": 0.3, "num_leaves": leaves}) for leaves in (3, 4, 5)
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that take a moment, instead of those known to be good."""
    monkeypatch.setattr(searching, "FIRST", tuple(SHALLOW))


def loans(count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    matrix = random.normal(size=(count, 4))
    matrix[:, 3] = random.integers(0, 3, count)
    log_odds = -1 + 1.2 * matrix[:, 0] + matrix[:, 1] * (matrix[:, 3] == 1)
    return matrix, (random.random(count) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)


def asked(trials: int, **more: Any) -> Search:
    return Search.model_validate({"families": ["lightgbm"], "trials": trials} | more)


def settings_of(tried: list[Tried]) -> list[str]:
    return [json.dumps([one.family, one.parameters], sort_keys=True) for one in tried]


class Told:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.tried: list[Tried] = []

    def begin(self, question: str) -> set[int]:
        self.questions.append(question)
        return {one.place for one in self.tried}

    def record(self, tried: Tried) -> None:
        self.tried.append(tried)


def test_the_same_rows_and_seed_give_the_same_recipe_and_it_measures_out_of_fold() -> None:
    matrix, outcome = loans()
    first, second = (search_rows(TASK, matrix, outcome, asked(6)) for _ in range(2))
    assert first.ingredients == second.ingredients
    assert settings_of(first.tried) == settings_of(second.tried)
    assert len(set(settings_of(first.tried))) == 6
    other = search_rows(
        Task(TASK.names, TASK.categories, TASK.monotone, balanced=False, seed=8),
        matrix,
        outcome,
        asked(6),
    )
    assert settings_of(other.tried)[5:] != settings_of(first.tried)[5:]

    # On noise nothing can be better than the bad rate; measured on rows it learnt it would be.
    noise = np.random.default_rng(0).permutation(outcome)
    found = search_rows(TASK, matrix, noise, asked(3))
    rate = noise.mean()
    least = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert found.figures["log_loss"] > least - 0.003


def test_a_search_goes_on_where_it_was_with_a_larger_budget(tmp_path: Path) -> None:
    matrix, outcome = loans()
    told, said = Told(), list[str]()
    part = search_rows(TASK, matrix, outcome, asked(3), folder=tmp_path, tracker=told)
    whole = search_rows(
        TASK, matrix, outcome, asked(6), folder=tmp_path, tracker=told, progress=said.append
    )
    assert whole.tried[:3] == part.tried, "not one of them again"
    assert [one.place for one in told.tried] == [1, 2, 3, 4, 5, 6]
    assert len(set(told.questions)) == 1
    assert said[0] == "3 trials of an earlier search of the same question count"
    assert said[1].startswith("trial 4 of 6: lightgbm, log loss 0.")
    at_once = search_rows(TASK, matrix, outcome, asked(6))
    assert settings_of(at_once.tried) == settings_of(whole.tried)
    assert at_once.ingredients == whole.ingredients

    # Other rows are another question: nothing of it counts.
    outcome = outcome.copy()
    outcome[0] = 1 - outcome[0]
    anew = search_rows(TASK, matrix, outcome, asked(2), folder=tmp_path, tracker=told)
    assert len(anew.tried) == 2
    assert len(set(told.questions)) == 2


def test_the_two_best_settings_given_are_fitted_again_from_other_draws() -> None:
    matrix, outcome = loans()
    bagged = [(family, {**of, "bagging_fraction": 0.7}) for family, of in SHALLOW]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(searching, "FIRST", (*bagged, ("logistic", {})))
        found = search_rows(TASK, matrix, outcome, asked(6, families=["lightgbm", "logistic"]))
    given = sorted(found.tried[:3], key=lambda one: one.figures["log_loss"])
    again = found.tried[4:]
    assert [one.state for one in again] == ["complete"] * 2
    assert [one.parameters for one in again] == [
        {**one.parameters, "seed": TASK.seed + 1} for one in given[:2]
    ]
    for one, other in zip(given, again, strict=False):
        assert 0 < abs(one.figures["log_loss"] - other.figures["log_loss"]) < 0.02


def test_a_hopeless_proposal_stops_after_one_fold_and_is_not_chosen(tmp_path: Path) -> None:
    matrix, outcome = loans()
    found = search_rows(TASK, matrix, outcome, asked(12), folder=tmp_path)
    states = [one.state for one in found.tried]
    assert states[:5] == ["complete"] * 5, "what is given, and again, is measured whole"
    assert "pruned" in states[5:]
    stored = {int(file.stem.partition("-")[2]) for file in tmp_path.glob("trial-*.npy")}
    assert stored == {one.place for one in found.tried if one.state == "complete"}
    best = min(one.figures["log_loss"] for one in found.tried if one.state == "complete")
    assert found.figures["log_loss_best_single"] == best
    assert found.figures["log_loss"] < best + 0.002


def test_minutes_end_it_and_a_trial_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, outcome = loans()
    monkeypatch.setattr(searching, "FIRST", (("lightgbm", {"boosting": "none such"}), *SHALLOW))
    said: list[str] = []
    found = search_rows(TASK, matrix, outcome, asked(9, minutes=0.0003), progress=said.append)
    assert [one.state for one in found.tried] == ["failed", "complete"]
    assert "LightGBMError" in str(found.tried[0].error)
    assert "trial 1 of 9: lightgbm failed" in said[0]
    assert said[2] == "no further trial: the 0.0003 minutes are over"

    monkeypatch.setattr(searching, "FIRST", (("lightgbm", {"boosting": "none such"}),))
    with pytest.raises(TrainingError, match=r"none of the 1 trials came to an end \(lightgbm: L"):
        search_rows(TASK, matrix, outcome, asked(1))


def test_the_metric_and_balanced_classes_are_heeded() -> None:
    matrix, outcome = loans()
    balanced = Task(TASK.names, TASK.categories, TASK.monotone, balanced=True, seed=7)
    found = search_rows(balanced, matrix, outcome, asked(3, metric="auc", members=1))
    (chosen,) = found.ingredients
    best = max(found.tried, key=lambda one: one.figures["auc"])
    assert chosen.parameters == best.parameters
    plain = search_rows(TASK, matrix, outcome, asked(3))
    # Uncalibrated, balanced margins would promise twice the bad rate.
    for one, other in zip(found.tried, plain.tried, strict=True):
        assert abs(one.figures["log_loss"] - other.figures["log_loss"]) < 0.03


def test_copies_lie_in_one_fold_and_folds_are_alike() -> None:
    outcome = np.array([1] * 60 + [0] * 240)
    copies_of = np.arange(300)
    copies_of[100:150] = np.arange(200, 250)
    fold = folds(outcome, copies_of, 3, seed=1)
    assert (fold[100:150] == fold[200:250]).all()
    assert np.bincount(fold[outcome == 1]).tolist() == [20, 20, 20]
    assert (folds(outcome, copies_of, 3, seed=1) == fold).all()
    assert (folds(outcome, copies_of, 3, seed=2) != fold).any()


def test_the_size_is_that_of_the_folds_and_a_little_more() -> None:
    matrix, outcome = loans()
    same = search_rows(TASK, matrix, outcome, asked(1), refit_rows=400)
    more = search_rows(TASK, matrix, outcome, asked(1), refit_rows=800)
    one, two = same.ingredients[0].size, more.ingredients[0].size
    assert one is not None
    assert two == pytest.approx(one * 2**GROWTH, abs=1)


def test_of_many_rows_some_are_tried_on_and_all_of_them_size_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, outcome = loans(1200)
    said: list[str] = []
    monkeypatch.setattr(searching, "MOST_ROWS", 300)
    found = search_rows(TASK, matrix, outcome, asked(1), progress=said.append)
    assert said[0] == "tried on 300 of 1,200 rows, drawn at random"
    (one,) = found.ingredients
    held = folds(outcome, np.arange(1200), 5, seed=7) == 0
    watched = Watched(matrix[held], outcome[held])
    rest = Fit(TASK, matrix[~held], outcome[~held], until=watched)
    fitted = module("lightgbm").fit(rest, one.parameters)
    assert one.size == round(fitted.size * 1.25**GROWTH)
    assert one.size != found.tried[0].figures["size"]


def test_only_rows_that_fit_are_seen(months: dict[str, Path], tmp_path: Path) -> None:
    """The other rows' outcomes turned round: it finds the same."""
    contract = home_loans.contract(training={"search": {"families": ["lightgbm"], "trials": 2}})
    rows = known_rows(contract, months, AS_OF)
    learnt = set(rows.application_id[split.plan(contract, rows).fit].tolist())
    turned = {}
    for month, file in months.items():
        table = pq.read_table(file)
        fits = pa.array([one in learnt for one in table["application_id"].to_pylist()])
        outcome = pc.if_else(fits, table["outcome"], pc.subtract(1, table["outcome"]))
        place = table.column_names.index("outcome")
        turned[month] = tmp_path / f"{month}.parquet"
        write_parquet(table.set_column(place, "outcome", outcome), turned[month])
    honest = search(contract, months, AS_OF, folder=tmp_path / "honest")
    other = search(contract, turned, AS_OF, folder=tmp_path / "turned")
    assert other.ingredients == honest.ingredients
    assert other.figures["log_loss"] == honest.figures["log_loss"]
    assert honest.contract_hash == contract.contract_hash


def test_a_recipe_is_followed_where_it_fits(tmp_path: Path) -> None:
    contract = home_loans.contract()
    file = tmp_path / "recipe.json"
    assert to_follow(contract, file)[0] == usual()
    made = Recipe(
        ingredients=[
            Ingredient(family="lightgbm", size=300, weight=0.7),
            Ingredient(family="logistic", weight=0.3),
        ],
        contract_hash=contract.contract_hash,
        searched_at=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    )
    made.write(file)
    found, why = to_follow(contract, file)
    assert found == made
    assert why.endswith("of the search of 2024-05-01: lightgbm of 300 (70%) and logistic (30%)")
    changed = home_loans.contract(features={})
    found, why = to_follow(changed, file)
    assert found == usual()
    assert contract.contract_hash in why
    assert changed.contract_hash in why
    narrow = home_loans.contract(training={"search": {"families": ["lightgbm"]}})
    found, why = to_follow(narrow, file)
    assert found == usual()
    assert "uses logistic, which training.search.families no longer lists" in why


SEARCHING = """
import json, sys
from pathlib import Path
from loan_platform_tests.training import test_search as at
at.searching.FIRST = tuple(at.SHALLOW)
recipe = at.search_rows(
    at.TASK, *at.loans(), at.asked(8), folder=Path(sys.argv[1]),
    progress=lambda text: print(text, flush=True),
)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_finished_trial_and_repeats_none(tmp_path: Path) -> None:
    """Killed after the first trial and again after the fourth, each time while others run."""
    command = [sys.executable, "-c", SEARCHING, str(tmp_path)]
    for line in ("trial 1 of 8", "trial 4 of 8"):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
        ) as process:
            assert process.stdout is not None
            seen = []
            for text in iter(process.stdout.readline, ""):
                seen.append(text)
                if text.startswith(line):
                    break
            time.sleep(0.02)  # into the trials that run now
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, seen
    matrix, outcome = loans()
    told = Told()
    found = search_rows(TASK, matrix, outcome, asked(8), folder=tmp_path, tracker=told)
    assert [one.place for one in found.tried] == list(range(1, 9))
    assert [one.place for one in told.tried] == list(range(1, 9)), "the killed ones told nobody"
    assert len(set(settings_of(found.tried))) == 8, "nothing twice"
    whole = search_rows(TASK, matrix, outcome, asked(8))
    assert settings_of(found.tried) == settings_of(whole.tried)
    assert found.ingredients == whole.ingredients


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        opened(tmp_path, "one", seed=1),
        pytest.raises(StudyError, match="another search works in"),
        opened(tmp_path, "one", seed=1),
    ):
        pass
