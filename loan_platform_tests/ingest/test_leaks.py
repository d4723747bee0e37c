"""The leak guard: what it stops on the real books, what it leaves alone, and planted leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from loan_platform.contract.portfolio import Source
from loan_platform.engine import duck
from loan_platform.ingest.leaks import Suspicion, blocked, evidence
from loan_platform.ingest.profile import profile_relation, profile_source

CHARGED_OFF = ("Charged Off", "Does not meet the credit policy. Status:Charged Off")
AFTER_ORIGINATION = {
    *("pymnt_plan", "out_prncp", "out_prncp_inv", "total_pymnt", "total_pymnt_inv"),
    *("total_rec_prncp", "total_rec_int", "total_rec_late_fee", "recoveries"),
    *("collection_recovery_fee", "last_pymnt_d", "last_pymnt_amnt", "last_credit_pull_d"),
    *("last_fico_range_high", "last_fico_range_low", "hardship_flag", "debt_settlement_flag"),
    *("debt_settlement_flag_date", "settlement_status", "settlement_date"),
    *("settlement_amount", "settlement_percentage", "settlement_term"),
}


def found_in(
    file: str,
    outcome: str,
    bad: tuple[str, ...] = ("1",),
    time: str | None = None,
) -> dict[str, Suspicion]:
    profile = profile_source(Source(path=file), outcome=outcome, bad=bad, time=time)
    return {one.column: one for one in evidence(profile)}


@pytest.mark.parametrize("file", ["credit_risk", "loan_approval", "playground_s4e10_train"])
def test_honest_books_raise_no_alarm(file: str, real_data: Path) -> None:
    """In loan_approval nobody who defaulted before is bad: a lender's rule, and no leak."""
    assert found_in(f"{file}.csv.gz", "loan_status") == {}


def test_missing_values_that_tell_the_outcome_are_stopped(real_data: Path) -> None:
    found = found_in("loan_default.csv.gz", "Status")
    stopped = {one.column for one in blocked(found.values())}
    assert stopped == {"Interest_rate_spread", "rate_of_interest", "Upfront_charges"}
    assert {found[name].kind for name in stopped} == {"missing"}
    reviewed = set(found) - stopped
    assert reviewed == {
        *("credit_type", "property_value", "LTV", "income", "age", "submission_of_application")
    }
    assert "EQUI, 99.99" in found["credit_type"].sentence
    assert found["credit_type"].figures["rows_of_group"] == 15298


@pytest.mark.slow
def test_every_column_filled_after_origination_is_stopped(real_data: Path) -> None:
    found = found_in("lending_club_2007_2011.csv.gz", "loan_status", CHARGED_OFF, time="issue_d")
    assert {one.column for one in blocked(found.values())} == set(found) == AFTER_ORIGINATION
    # The strongest evidence is told first; a name speaks where figures cannot.
    assert found["recoveries"].kind == "value"
    assert found["collection_recovery_fee"].kind == "group"
    assert found["last_pymnt_d"].kind == "date"
    assert found["out_prncp"].kind == "name"


def planted(count: int = 3000, **columns: list[str | None]) -> dict[str, Suspicion]:
    """Evidence on made-up loans, every fifth of them bad, with an honest score."""
    bad = [number % 5 == 0 for number in range(count)]
    random = np.random.default_rng(1)
    score = random.normal(size=count) + np.array(bad)
    table = {
        "score": [f"{value:.3f}" for value in score],
        "y": ["1" if each else "0" for each in bad],
        "day": [f"2024-01-{1 + number % 28:02d}" for number in range(count)],
        **columns,
    }
    with duck.connect() as connection:
        connection.register("given", pa.table(table))
        profile = profile_relation(
            connection, "given", list(table), outcome="y", bad=["1"], time="day"
        )
    return {one.column: one for one in evidence(profile)}


def test_planted_leaks_are_told_by_kind() -> None:
    count = 3000
    found = planted(
        same=["lost" if number % 5 == 0 else "kept" for number in range(count)],
        codes=["357"[number % 3] if number % 5 else "4" for number in range(count)],
        fee=[None if number % 5 == 0 else str(number % 40) for number in range(count)],
        seized=["yes" if number % 10 == 0 else "no" for number in range(count)],
        flag=["x" if number % 25 == 0 else "y" for number in range(count)],
        closed=[f"2025-01-{1 + number % 28:02d}" for number in range(count)],
        born=[f"19{70 + number % 23}-01-01" for number in range(count)],
        rule=["never" if number % 5 and number % 2 else "maybe" for number in range(count)],
        total_payment=[str(number % 7) for number in range(count)],
    )
    assert {name: (one.verdict, one.kind) for name, one in found.items()} == {
        "same": ("blocked", "outcome"),
        "codes": ("blocked", "outcome"),
        "fee": ("blocked", "missing"),
        "seized": ("blocked", "group"),
        "flag": ("review", "group"),
        "closed": ("blocked", "date"),
        "total_payment": ("blocked", "name"),
    }


def test_a_few_loans_prove_nothing() -> None:
    """25 of 25 bad loans are no proof that a value means bad."""
    few: list[str | None] = ["rare" if number % 120 == 0 else "usual" for number in range(3000)]
    assert planted(few=few) == {}
    assert planted(count=40, same=["1" if n % 5 == 0 else "0" for n in range(40)]) == {}
