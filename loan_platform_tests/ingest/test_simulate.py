"""The stand-in book has the figures it is drawn from, is the same every time, and can be learnt."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from loan_platform.contract import Contract
from loan_platform.contract.sql import features_sql, matrix_sql, outcome_sql, typed_sql
from loan_platform.engine import duck
from loan_platform.ingest.simulate import SimulationError, simulate, write_simulated
from loan_platform_tests import club_loans


@pytest.fixture(scope="module")
def book(credit_risk: Contract) -> pd.DataFrame:
    return simulate(credit_risk, seed=7)


def changed(contract: Contract, **columns: dict[str, Any]) -> Contract:
    """The contract with other figures for some simulated columns."""
    document = contract.model_dump(mode="json", exclude_none=True)
    document["simulation"]["columns"] |= columns
    return Contract.model_validate(document)


def typed(contract: Contract, book: pd.DataFrame) -> pa.Table:
    raw = pa.Table.from_pandas(book, preserve_index=False)
    raw = raw.append_column("_row", pa.array(range(len(book))))
    raw = raw.append_column("_origin", pa.array(["simulated"] * len(book)))
    return duck.query(typed_sql(contract, "raw"), raw=raw)


def test_the_same_seed_gives_the_same_bytes(credit_risk: Contract, tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first.gz", "again.gz", "other.gz"))
    write_simulated(credit_risk, first, seed=3, rows=2_000)
    write_simulated(credit_risk, again, seed=3, rows=2_000)
    write_simulated(credit_risk, other, seed=4, rows=2_000)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    lines = gzip.decompress(first.read_bytes()).decode().splitlines()
    assert lines[0] == ",".join(column.name for column in credit_risk.columns)
    assert len(lines) == 1 + 2_000


def test_every_column_is_there_as_text(credit_risk: Contract, book: pd.DataFrame) -> None:
    assert list(book.columns) == [column.name for column in credit_risk.columns]
    assert credit_risk.simulation is not None
    assert len(book) == credit_risk.simulation.rows
    assert {type(v) for column in book for v in book[column].unique()} == {str, type(None)}
    for column in credit_risk.with_role("ignored"):
        assert book[column.name].isna().all()
    assert book["person_age"].str.fullmatch(r"\d+").all()
    assert book["person_income"].str.fullmatch(r"\d+(\.\d\d?)?").all()


def test_the_figures_are_met(credit_risk: Contract, book: pd.DataFrame) -> None:
    figures = credit_risk.simulation
    assert figures is not None
    bad = book["loan_status"] == "1"
    assert bad.mean() == pytest.approx(figures.bad_rate, abs=0.01)
    for name, column in figures.columns.items():
        assert book[name].isna().mean() == pytest.approx(column.missing, abs=0.004)
        for side, rows in ((column.good, ~bad), (column.bad, bad)):
            values = book.loc[rows, name].dropna()
            if isinstance(side, dict):
                shares = values.value_counts(normalize=True)
                total = sum(side.values())
                for category, share in side.items():
                    assert shares.get(category, 0) == pytest.approx(share / total, abs=0.02)
                continue
            assert side is not None
            # Rounded to whole values a discrete column differs by up to half a step; so does
            # what it is compared with.
            wanted = np.round(np.interp(np.linspace(0, 1, 20_001), figures.probabilities, side))
            assert stats.ks_2samp(values.astype(float), wanted).statistic < 0.025


def test_tied_columns_rise_together(book: pd.DataFrame) -> None:
    def rank_correlation(one: str, other: str) -> float:
        return float(stats.spearmanr(book[one].astype(float), book[other].astype(float)).statistic)

    assert rank_correlation("person_age", "cb_person_cred_hist_length") > 0.7
    assert 0.25 < rank_correlation("person_income", "loan_amnt") < 0.45


def test_duplicates_are_exact_and_as_many_as_said(
    credit_risk: Contract, book: pd.DataFrame
) -> None:
    assert credit_risk.simulation is not None
    said = credit_risk.simulation.rows * credit_risk.simulation.duplicate_rate
    assert book.duplicated().sum() == pytest.approx(said, abs=5)


def test_quarantine_has_something_to_do(credit_risk: Contract, book: pd.DataFrame) -> None:
    refused = typed(credit_risk, book)["_rules"].to_pandas()
    too_old = refused.str.contains("columns.person_age.above")
    assert 0 < too_old.sum() < 0.002 * len(book)
    assert refused.str.contains("employed_longer_than_alive").any()
    assert 0 < (refused != "").sum() < 0.01 * len(book)


def test_a_model_can_learn_from_it(credit_risk: Contract, book: pd.DataFrame) -> None:
    from lightgbm import LGBMClassifier
    from sklearn.metrics import roc_auc_score

    accepted = f"(SELECT *, {outcome_sql(credit_risk)} AS outcome FROM rows WHERE _rules = '')"
    features = features_sql(credit_risk, accepted, also=("outcome", "_row"))
    rows = duck.query(
        f"WITH f AS ({features}) {matrix_sql(credit_risk, 'f', also=('outcome', '_row'))} "
        "ORDER BY _row",
        rows=typed(credit_risk, book.drop_duplicates().reset_index(drop=True)),
    ).to_pandas()
    held_out = np.random.default_rng(1).random(len(rows)) < 0.2
    inputs, outcome = rows[credit_risk.model_inputs], rows["outcome"]
    model = LGBMClassifier(n_estimators=100, n_jobs=1, random_state=1, verbose=-1)
    model.fit(inputs[~held_out], outcome[~held_out])
    probability = np.asarray(model.predict_proba(inputs[held_out]))[:, 1]
    found = roc_auc_score(outcome[held_out], probability)
    assert 0.78 < found < 0.92


def test_a_column_may_be_computed_from_the_others(credit_risk: Contract) -> None:
    contract = changed(
        credit_risk,
        loan_percent_income={"sql": "round(loan_amnt / person_income, 2)", "missing": 0.1},
    )
    book = simulate(contract, rows=1_000)
    share = book["loan_percent_income"].dropna().astype(float)
    expected = book["loan_amnt"].astype(float) / book["person_income"].astype(float)
    assert (share - expected[share.index]).abs().max() <= 0.00501
    assert 0.06 < book["loan_percent_income"].isna().mean() < 0.14


def test_a_book_with_dates_and_keys(credit_risk: Contract) -> None:
    document = credit_risk.model_dump(mode="json", exclude_none=True)
    document["columns"] += [
        {"name": "asked_on", "type": "date", "role": "time"},
        {"name": "loan_number", "type": "integer", "role": "key"},
    ]
    document["time"] = {"start": "2024-01-01"}
    with pytest.raises(SimulationError, match="asked_on says when"):
        simulate(Contract.model_validate(document), rows=200)
    days = "DATE '2024-01-01' + CAST(_row % 60 AS INTEGER)"
    document["simulation"]["columns"]["asked_on"] = {"sql": days}
    contract = Contract.model_validate(document)
    book = simulate(contract, rows=500)
    assert set(book["asked_on"].str[:7]) == {"2024-01", "2024-02"}
    assert book["loan_number"].nunique() == len(book.drop_duplicates())
    assert (typed(contract, book)["_rules"].to_pandas() == "").mean() > 0.98


def test_a_stand_in_is_written_as_the_lenders_file_is() -> None:
    """A stand-in with typed values, or without the columns nobody uses, that admission refuses."""
    contract = club_loans.contract(
        simulation={
            "rows": 300,
            "bad_rate": 0.3,
            "probabilities": [0, 1],
            "columns": {
                "issue_d": {"sql": "DATE '2009-11-01' + CAST(_row % 60 AS INTEGER)"},
                "earliest line": {"sql": "issue_d - CAST(_row * 7 AS INTEGER)", "missing": 0.1},
                "rate": {"good": [5, 20.25], "bad": [6, 25.25]},
                "amount": {"good": [1000, 35000.5], "bad": [1000, 35000.5]},
                "years": {"good": [0, 10], "bad": [0, 10], "missing": 0.1},
                "home": {"good": {"own": 1, "rent": 1}, "bad": {"own": 1, "rent": 1}},
                "purpose": {"good": {"a car": 1}, "bad": {"our wedding": 1}},
            },
        }
    )
    book = simulate(contract)
    assert list(book.columns) == [
        *(column.name for column in contract.columns),
        *contract.ignored_columns,
    ]
    assert book[["last_payment", "recoveries"]].isna().all(axis=None)
    assert book["issue_d"].str.fullmatch(r"(Nov|Dec)-2009").all()
    assert book["earliest line"].dropna().str.fullmatch(r"\d\d/\d\d/\d\d").all()
    assert {"< 1 year", "10+ years", "5"} <= set(book["years"].dropna())
    assert set(book["home"]) == {"O", "R"}
    assert set(book["status"]) == {"Fully Paid", "Charged Off"}
    assert book["amount"].str.fullmatch(r"\d+,\d").all()
    assert (typed(contract, book)["_rules"].to_pandas() == "").all()


def test_figures_that_make_no_book_are_named(credit_risk: Contract) -> None:
    assert credit_risk.simulation is not None
    columns = credit_risk.simulation.columns
    income = columns["person_income"].model_dump(exclude_none=True)
    none = credit_risk.model_copy(update={"simulation": None})
    circle = changed(credit_risk, person_income=income | {"rank_with": {"loan_amnt": 0.4}})
    amount = columns["loan_amnt"].model_dump(exclude_none=True)
    apart = {"person_age": -0.99, "cb_person_cred_hist_length": 0.99}
    impossible = changed(credit_risk, loan_amnt=amount | {"rank_with": apart})
    typo = changed(credit_risk, loan_percent_income={"sql": "loan_amount / 2"})
    for contract, said in (
        (none, "no simulation: section"),
        (circle, "goes in a circle"),
        (impossible, r"loan_amnt\.rank_with: no such correlations"),
        (typo, r"loan_percent_income\.sql: .*loan_amount"),
    ):
        with pytest.raises(SimulationError, match=said):
            simulate(contract, rows=200)
