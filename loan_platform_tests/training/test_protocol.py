"""Books planted so that a way of cheating would pay, and a training that gets nothing from it.

Each test shows both: what the cheat would be worth, and that the figures are honest all the same.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_platform.contract.settings import Bands, PolicySettings
from loan_platform.training import TrainingError
from loan_platform.training.blending import cross_fitted, fit_recipe
from loan_platform.training.calibrate import fit_calibrator
from loan_platform.training.evaluate import auc
from loan_platform.training.families import task_of
from loan_platform.training.recipe import Ingredient, Recipe
from loan_platform.training.rows import Rows, known_rows
from loan_platform.training.split import first_copies, own_part, part, plan
from loan_platform.training.threshold import youden
from loan_platform.training.train import train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import FEW_TREES, with_column, write_months
from loan_platform_tests.training.conftest import AS_OF

CONTRACT = home_loans.contract()
APPROVING = home_loans.contract(
    policy=PolicySettings(bands=Bands(approve=(0, 0.9), refer=(0.9, 0.95), decline=(0.95, 1)))
)


@pytest.fixture(scope="module")
def book(months: dict[str, Path]) -> pa.Table:
    """The cleaned months in one table, in the order of their ids, which is that of `known_rows`."""
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    return table.sort_by("application_id")


def auc_of(rows: Rows, learn: np.ndarray, judge: np.ndarray, recipe: Recipe = FEW_TREES) -> float:
    """AUC on the rows `judge` of a model that learnt from the rows `learn`."""
    learnt = rows.where(learn)
    scorer, _ = fit_recipe(task_of(CONTRACT), recipe, learnt.matrix, learnt.outcome)
    judged = rows.where(judge)
    return auc(judged.outcome, scorer.margin(judged.matrix))


def test_a_feature_that_is_the_outcome_in_the_judging_rows_alone_helps_nothing(
    book: pa.Table, months: dict[str, Path], tmp_path: Path
) -> None:
    honest = train(CONTRACT, months, AS_OF, recipe=FEW_TREES).bundle
    judged = part(known_rows(CONTRACT, months, AS_OF)) == "judge"
    noise = np.random.default_rng(0).integers(0, 2, len(book))
    given_away = np.where(judged, book["outcome"].to_numpy(), noise)
    planted = write_months(with_column(book, "order", 1 + 3 * given_away), tmp_path / "judge")
    rows = known_rows(CONTRACT, planted, AS_OF)
    np.testing.assert_array_equal(part(rows) == "judge", judged)

    bundle = train(CONTRACT, planted, AS_OF, recipe=FEW_TREES).bundle
    assert abs(bundle.record.metrics["auc"] - honest.record.metrics["auc"]) < 0.02
    everything = np.ones(len(rows), dtype=bool)
    cheated = auc_of(rows, everything, judged)
    assert cheated > honest.record.metrics["auc"] + 0.1

    # In all rows it would help, and is stopped before anything is fitted.
    everywhere = with_column(book, "order", 1 + 3 * book["outcome"].to_numpy())
    with pytest.raises(TrainingError, match="order: "):
        train(CONTRACT, write_months(everywhere, tmp_path / "all"), AS_OF, recipe=FEW_TREES)


def test_copies_of_a_row_in_other_parts_help_nothing(book: pa.Table, tmp_path: Path) -> None:
    """Four applications each of people whose loans go wrong by the throw of a coin."""
    random = np.random.default_rng(1)
    coin = np.repeat(random.integers(0, 2, 1500), 4)
    table = book.take(np.repeat(np.arange(1500), 4))
    table = with_column(table, "outcome", coin)
    table = with_column(table, "application_id", [f"C-{n:05d}" for n in random.permutation(6000)])
    files = write_months(table, tmp_path)
    rows = known_rows(CONTRACT, files, AS_OF)
    memory = Recipe(
        ingredients=[
            Ingredient(
                family="lightgbm", size=50, parameters={"num_leaves": 63, "learning_rate": 0.2}
            )
        ]
    )

    naive = own_part(rows.application_id) == "judge"
    assert auc_of(rows, ~naive, naive, memory) > 0.9
    record = train(APPROVING, files, AS_OF, recipe=memory).bundle.record
    assert 0.4 < record.metrics["auc"] < 0.6  # some 300 people judge: chance reaches 0.1
    assert "4,500 rows look like an earlier one" in record.notes[0]


def test_an_outcome_known_after_as_of_helps_nothing(book: pa.Table, tmp_path: Path) -> None:
    """All that is known in time is the throw of a coin; what comes later follows from a column."""
    as_of = dt.datetime(2024, 10, 1, tzinfo=dt.UTC)
    ratio, random = book["debt-ratio"].to_numpy(), np.random.default_rng(2)
    late, coin = random.random(len(book)) < 0.5, random.integers(0, 2, len(book))
    told = np.where(late, ratio > np.median(ratio), coin).astype(np.int64)
    known_at = [
        dt.datetime(2024, 11, 1, tzinfo=dt.UTC) if later else moment
        for later, moment in zip(late, book["outcome_known_at"].to_pylist(), strict=True)
    ]
    delayed = with_column(with_column(book, "outcome", coin), "outcome_known_at", known_at)
    without = write_months(delayed, tmp_path / "without")
    planted = write_months(with_column(delayed, "outcome", told), tmp_path / "planted")

    honest = train(APPROVING, without, as_of, recipe=FEW_TREES).bundle
    asked = train(APPROVING, planted, as_of, recipe=FEW_TREES).bundle
    assert asked.scorer.dump() == honest.scorer.dump()
    assert (asked.calibrator, asked.policy) == (honest.calibrator, honest.policy)
    assert asked.record.metrics == honest.record.metrics
    assert asked.record.data_hash == honest.record.data_hash
    later = known_rows(CONTRACT, planted, AS_OF)
    judged = part(later) == "judge"
    assert honest.record.metrics["auc"] < 0.6
    assert auc_of(later, ~judged, judged) > 0.7


def test_the_threshold_is_the_one_chosen_off_the_judging_rows(
    book: pa.Table, months: dict[str, Path], tmp_path: Path
) -> None:
    """In the judging rows loans go wrong at a higher debt ratio than in the others."""
    rank = np.argsort(np.argsort(book["debt-ratio"].to_numpy())) / len(book)
    known = known_rows(CONTRACT, months, AS_OF)
    judged = part(known) == "judge"
    risk = 1 / (1 + np.exp(-12 * (rank - np.where(judged, 0.8, 0.4))))
    outcome = (np.random.default_rng(3).random(len(book)) < risk).astype(np.int64)
    files = write_months(with_column(book, "outcome", outcome), tmp_path / "planted")
    trained = train(CONTRACT, files, AS_OF, recipe=FEW_TREES)
    threshold = trained.bundle.policy.threshold

    rows = known_rows(CONTRACT, files, AS_OF)
    used = plan(CONTRACT, rows)
    fit, both, choose = (
        rows.where(mask) for mask in (used.fit, used.fit | used.calibrate, used.threshold)
    )
    task = task_of(CONTRACT)
    trial, _ = fit_recipe(task, FEW_TREES, fit.matrix, fit.outcome)
    margin = cross_fitted(task, FEW_TREES, both.matrix, both.outcome, first_copies(both))
    calibrator = fit_calibrator(margin, both.outcome, seed=CONTRACT.training.seed)
    assert threshold == youden(choose.outcome, calibrator.probability(trial.margin(choose.matrix)))

    def index(at: float) -> float:
        """Youden's, of a threshold on the judging rows."""
        flagged, bad = trained.evaluation.probability >= at, trained.evaluation.outcome == 1
        return float(flagged[bad].mean() - flagged[~bad].mean())

    cheated = youden(trained.evaluation.outcome, trained.evaluation.probability)
    assert index(cheated) > index(threshold) + 0.1
    metrics = trained.evaluation.metrics
    assert metrics["recall"] + metrics["specificity"] - 1 == pytest.approx(index(threshold))

    # Whatever becomes of the loans that judge, the policy stays as it is.
    drawn = np.random.default_rng(4).integers(0, 2, len(book))
    other = with_column(book, "outcome", np.where(judged, drawn, outcome))
    again = train(CONTRACT, write_months(other, tmp_path / "drawn"), AS_OF, recipe=FEW_TREES)
    assert again.bundle.policy == trained.bundle.policy
