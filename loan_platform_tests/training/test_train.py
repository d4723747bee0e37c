from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from loan_platform.contract.settings import Bands, PolicySettings
from loan_platform.model.scorers.blend import Blend
from loan_platform.training import TrainingError
from loan_platform.training.blending import fit_recipe
from loan_platform.training.calibrate import fit_calibrator
from loan_platform.training.families import task_of
from loan_platform.training.pictures import draw
from loan_platform.training.recipe import Ingredient, Recipe
from loan_platform.training.rows import Rows, known_rows
from loan_platform.training.split import part, plan
from loan_platform.training.train import train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import (
    FEW_TREES,
    cleaned_of,
    cleaned_table,
    raw_table,
    write_months,
)
from loan_platform_tests.training.conftest import AS_OF


def test_a_training_says_what_it_used_and_its_measures_are_of_the_judge_part(
    months: dict[str, Path],
) -> None:
    contract = home_loans.contract()
    said: list[str] = []
    trained = train(contract, months, AS_OF, progress=said.append)
    record, found = trained.bundle.record, trained.evaluation.metrics
    rows = known_rows(contract, months, AS_OF)
    judge = rows.where(part(rows) == "judge")

    assert record.partitions == home_loans.MONTHS
    assert record.trained_through == "2024-08"
    assert sum(record.rows.values()) == len(rows) == 3000
    assert record.contract_hash == contract.contract_hash
    assert record.simulated
    assert record.metrics == found
    assert record.rows["judge"] == len(judge) == found["rows"]
    np.testing.assert_array_equal(trained.evaluation.outcome, judge.outcome)
    np.testing.assert_allclose(
        trained.evaluation.probability, trained.bundle.probability(judge.matrix), atol=1e-12
    )
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    assert found["auc"] > 0.65
    assert len(said) == 4


def test_a_large_calibrate_part_calibrates_by_itself(
    months: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibrator is that of the trial model's margins on it, and of no other row."""
    contract = home_loans.contract()
    rows = known_rows(contract, months, AS_OF)
    used = plan(contract, rows)
    fit, alone = rows.where(used.fit), rows.where(used.calibrate)
    trial, _ = fit_recipe(task_of(contract), FEW_TREES, fit.matrix, fit.outcome)
    margin = trial.margin(alone.matrix)
    expected = fit_calibrator(margin, alone.outcome, seed=contract.training.seed)
    some = np.linspace(-4, 4, 50)

    def found() -> np.ndarray:
        trained = train(contract, months, AS_OF, recipe=FEW_TREES)
        return trained.bundle.calibrator.probability(some)

    assert not np.allclose(found(), expected.probability(some))
    monkeypatch.setattr("loan_platform.training.train.ENOUGH_TO_CALIBRATE", len(alone))
    np.testing.assert_array_equal(found(), expected.probability(some))


def test_the_same_rows_give_the_same_model_in_whatever_order_they_lie(
    months: dict[str, Path], tmp_path: Path
) -> None:
    contract = home_loans.contract()
    first = train(contract, months, AS_OF).bundle
    table = pa.concat_tables([pq.read_table(file) for file in reversed(months.values())])
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    again = train(contract, write_months(shuffled, tmp_path), AS_OF).bundle
    assert again.scorer.dump() == first.scorer.dump()
    assert again.calibrator == first.calibrator
    assert again.policy == first.policy
    assert again.record.data_hash == first.record.data_hash


def judging(rows: Rows) -> np.ndarray:
    return part(rows) == "judge"


def test_judge_rows_change_nothing_about_the_model(months: dict[str, Path], tmp_path: Path) -> None:
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    rows = known_rows(home_loans.contract(), months, AS_OF)
    judged = np.isin(table["application_id"].to_pylist(), rows.application_id[judging(rows)])
    turned = np.where(judged, 1 - table["outcome"].to_numpy(), table["outcome"].to_numpy())
    at = table.column_names.index("outcome")
    lied = table.set_column(at, "outcome", pa.array(turned, pa.int64()))
    contract = home_loans.contract()
    honest = train(contract, months, AS_OF, recipe=FEW_TREES).bundle
    other = train(contract, write_months(lied, tmp_path), AS_OF, recipe=FEW_TREES).bundle
    assert other.scorer.dump() == honest.scorer.dump()
    assert (other.calibrator, other.policy) == (honest.calibrator, honest.policy)
    assert other.record.metrics["auc"] == pytest.approx(1 - honest.record.metrics["auc"])


def test_only_outcomes_known_by_then_are_used(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    as_of = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    rows = known_rows(contract, months, as_of)
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    known = pc.less_equal(
        table["outcome_known_at"], pa.scalar(as_of, table["outcome_known_at"].type)
    )
    assert len(rows) == pc.sum(known).as_py()
    assert 0 < len(rows) < 3000
    # Outcomes take 45 days: of the loans of April, only those of the first half are known by June.
    assert (
        train(contract, months, as_of, recipe=FEW_TREES).bundle.record.trained_through == "2024-04"
    )


def test_monotone_directions_of_the_contract_hold(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    bundle = train(contract, months, AS_OF, recipe=FEW_TREES).bundle
    rows = known_rows(contract, months, AS_OF).matrix[:50]
    at = contract.model_inputs.index("debt-ratio")
    answers = []
    for ratio in np.linspace(0, 5, 40):
        changed = rows.copy()
        changed[:, at] = ratio
        answers.append(bundle.probability(changed))
    assert (np.diff(np.array(answers), axis=0) >= -1e-12).all()


def test_too_few_rows_one_class_and_no_months_are_refused_with_the_mend(
    months: dict[str, Path], tmp_path: Path
) -> None:
    contract = home_loans.contract()
    with pytest.raises(TrainingError, match="training needs 500; ingest more months"):
        train(contract, {"2024-01": months["2024-01"]}, AS_OF)
    with pytest.raises(TrainingError, match="materialize at least one month"):
        train(contract, {}, AS_OF)
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    at = table.column_names.index("outcome")
    good = table.set_column(at, "outcome", pa.array(np.zeros(len(table), np.int64)))
    with pytest.raises(TrainingError, match="the same outcome"):
        train(contract, write_months(good, tmp_path), AS_OF)
    with pytest.raises(ValueError, match="no time zone"):
        train(contract, months, dt.datetime(2024, 6, 1))  # noqa: DTZ001


def test_an_outcome_made_by_a_model_is_refused(months: dict[str, Path], tmp_path: Path) -> None:
    table = pq.read_table(months["2024-01"])
    sources = pa.array(["model_v2", "service", "model"] + ["book"] * (len(table) - 3))
    at = table.column_names.index("outcome_source")
    files = write_months(table.set_column(at, "outcome_source", sources), tmp_path)
    with pytest.raises(TrainingError, match="3 rows of home_loans have an outcome made by a model"):
        train(home_loans.contract(), files, AS_OF)


def with_origins(files: dict[str, Path], folder: Path, origins: dict[str, str]) -> dict[str, Path]:
    """The months with another origin written into the rows of some of them."""
    changed: dict[str, Path] = {}
    for month, origin in origins.items():
        table = pq.read_table(files[month])
        at = table.column_names.index("origin")
        column = pa.array([origin] * len(table))
        changed |= write_months(table.set_column(at, "origin", column), folder)
    return {**files, **changed}


def test_the_rows_say_whether_the_book_is_simulated(
    months: dict[str, Path], tmp_path: Path
) -> None:
    contract = home_loans.contract()
    drawn = with_origins(months, tmp_path / "a", dict.fromkeys(months, "simulated"))
    real = with_origins(months, tmp_path / "b", dict.fromkeys(months, "book"))
    served = {"2024-03": "service"}
    for files, simulated in ((drawn, True), (real, False)):
        both = with_origins(files, tmp_path / f"c{simulated}", served)
        assert known_rows(contract, files, AS_OF).simulated is simulated
        assert known_rows(contract, both, AS_OF).simulated is simulated
    mixed = with_origins(real, tmp_path / "d", dict.fromkeys(home_loans.MONTHS[2:4], "simulated"))
    with pytest.raises(
        TrainingError,
        match=r"of a simulated book \(2024-03 to 2024-04\) and [\d,]+ of a real one "
        r"\(2024-01 to 2024-08\); set LOAN_DATA_DIR .* of 2024-03 to 2024-04 again",
    ):
        train(contract, mixed, AS_OF)


def test_a_policy_that_approves_nobody_is_refused(months: dict[str, Path]) -> None:
    strict = PolicySettings(bands=Bands(approve=(0, 1e-9), refer=(1e-9, 0.5), decline=(0.5, 1)))
    with pytest.raises(TrainingError, match=r"approve none of the \d+ rows .*lower policy"):
        train(home_loans.contract(policy=strict.model_dump()), months, AS_OF)


def test_a_month_cleaned_under_another_contract_is_named(
    months: dict[str, Path], tmp_path: Path
) -> None:
    table = pq.read_table(months["2024-02"]).drop_columns(["debt-ratio"])
    files = {**months, **write_months(table, tmp_path)}
    with pytest.raises(TrainingError, match=r"2024-02.parquet lacks debt-ratio.*of 2024-02 again"):
        train(home_loans.contract(), files, AS_OF)


def test_golden_rows_are_no_applicants_rows(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    bundle = train(contract, months, AS_OF, recipe=FEW_TREES).bundle
    people = {row.tobytes() for row in known_rows(contract, months, AS_OF).matrix}
    assert not people & {row.tobytes() for row in bundle.golden}


def test_pictures_are_pngs_and_touch_no_global_state(months: dict[str, Path]) -> None:
    import sys

    trained = train(home_loans.contract(), months, AS_OF, recipe=FEW_TREES)
    before = "matplotlib.pyplot" in sys.modules
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = draw(trained.bundle, trained.evaluation)
    assert set(pictures) >= {
        "roc.png",
        "calibration.png",
        "score_distribution.png",
        "feature_importance.png",
    }
    assert all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in pictures.values())
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_a_recipe_is_followed_and_told(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    recipe = Recipe(
        ingredients=[
            Ingredient(family="lightgbm", parameters={"num_leaves": 4}, size=15, weight=0.7),
            Ingredient(family="lightgbm", parameters={"learning_rate": 0.2}, weight=0.3),
        ]
    )
    bundle = train(contract, months, AS_OF, recipe=recipe).bundle
    first, second = bundle.record.ingredients
    assert (first["size"], first["weight"], first["parameters"]) == (15, 0.7, {"num_leaves": 4})
    assert 1 <= second["size"] < 2000  # found on the rows that calibrate
    told = bundle.record.parameters
    assert (told["1.family"], told["1.size"], told["1.num_leaves"]) == ("lightgbm", 15, 4)
    assert (told["2.size"], told["2.learning_rate"]) == (second["size"], 0.2)
    matrix = known_rows(contract, months, AS_OF).matrix[:100]
    assert isinstance(bundle.scorer, Blend)
    parts = [scorer.margin(matrix) for scorer in bundle.scorer.scorers]
    np.testing.assert_allclose(bundle.margin(matrix), 0.7 * parts[0] + 0.3 * parts[1])
    usual = train(contract, months, AS_OF, recipe=FEW_TREES).bundle.record
    assert (usual.parameters["size"], usual.parameters["weight"]) == (20, 1.0)


def test_a_long_dated_book_is_asked_about_months_the_trial_never_saw(tmp_path: Path) -> None:
    contract = home_loans.contract(policy={"threshold": "approval_rate"})
    file = home_loans.write_csv(tmp_path / "long.csv", home_loans.rows(9000))
    months = write_months(cleaned_table(contract, file, simulated=True), tmp_path / "cleaned")
    record = train(contract, months, AS_OF, recipe=FEW_TREES).bundle.record
    later = record.out_of_time
    assert later["auc_low"] < later["auc"] < later["auc_high"]
    assert {"log_loss", "calibration_error"} < set(later)
    assert 300 <= later["rows"] < record.metrics["rows"] / 3
    assert "split by time" in record.notes[0]
    assert sum(record.rows.values()) == 9000
    assert record.rows["calibrate"] == pytest.approx(9000 * 0.16, rel=0.5)

    # What later months hold reaches neither the trial nor its calibration.
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    newest = pc.greater_equal(
        table["applied_at"], pa.scalar(dt.datetime(2024, 7, 1, tzinfo=dt.UTC))
    )
    assert "calibrated on those before 2024-07" in record.notes[0]
    turned = pc.if_else(newest, pc.subtract(1, table["outcome"]), table["outcome"])
    at = table.column_names.index("outcome")
    lied = write_months(table.set_column(at, "outcome", turned), tmp_path / "lied")
    other = train(contract, lied, AS_OF, recipe=FEW_TREES).bundle.record.out_of_time
    assert other["auc"] == pytest.approx(1 - later["auc"])


def test_raw_months_bring_money_segments_and_groups(tmp_path: Path) -> None:
    contract = home_loans.contract(
        policy={"profit": {"amount": "loan amount", "rate": 0.05, "years": 3}},
        training={"segments": ["reason", "order", "sex"]},
    )
    file = home_loans.write_csv(tmp_path / "home_loans.csv", home_loans.rows(3000))
    raw = raw_table(contract, file, simulated=True)
    layers = [write_months(raw, tmp_path / "raw")]
    layers.append(write_months(cleaned_of(contract, raw), tmp_path / "cleaned"))
    rows = known_rows(contract, layers[1], AS_OF, raw=layers[0])
    assert list(rows.beside) == ["loan amount", "order", "reason", "sex"]
    source = {row["application_id"]: row for row in home_loans.rows(3000)}
    for position in range(0, 3000, 97):
        row = source[rows.application_id[position]]
        assert rows.beside["sex"][position] == row["sex"]
        assert rows.beside["reason"][position] == row["reason"]
        assert rows.beside["loan amount"][position] == float(row["loan amount"])

    trained = train(contract, layers[1], AS_OF, raw=layers[0], recipe=FEW_TREES)
    assert list(trained.evaluation.by_segment) == ["reason", "order", "sex"]
    assert [one.name for one in trained.evaluation.by_segment["sex"]] == ["f", "m"]
    assert (
        sum(one.rows for one in trained.evaluation.by_month) == trained.evaluation.metrics["rows"]
    )
    found = trained.evaluation.metrics
    assert found["profit_per_loan_low"] < found["profit_per_loan"] < found["profit_per_loan_high"]
    judge = rows.where(judging(rows))
    amount = judge.beside["loan amount"]
    money = np.where(judge.outcome == 1, -0.6 * amount, 0.15 * amount)
    approved = trained.bundle.policy.decide(trained.evaluation.probability) == "approve"
    assert found["profit_per_loan"] == pytest.approx((money * approved).mean())

    bare = known_rows(contract, layers[1], AS_OF)
    assert set(bare.beside["sex"]) == {None}
    np.testing.assert_array_equal(bare.matrix, rows.matrix)
    lacking = pq.read_table(layers[0]["2024-02"]).drop_columns(["sex"])
    layers[0] |= write_months(lacking, tmp_path / "lacking")
    with pytest.raises(TrainingError, match=r"2024-02.parquet lacks sex.*raw_loans and cleaned"):
        known_rows(contract, layers[1], AS_OF, raw=layers[0])
