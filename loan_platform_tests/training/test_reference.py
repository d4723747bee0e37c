"""What is typical of approved loans, against the same values computed with Python's statistics."""

from __future__ import annotations

import datetime as dt
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loan_platform.contract import Contract
from loan_platform.engine import duck
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.training.reference import approved_reference
from loan_platform_tests import club_loans, home_loans
from loan_platform_tests.training.books import cleaned_table, write_months


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("club_loans")
    written = [row for row, _ in club_loans.rows(200)]
    file = home_loans.write_csv(folder / "club_loans.csv", written)
    return write_months(cleaned_table(club_loans.contract(), file), folder)


def approved(contract: Contract, months: dict[str, Path], every: int) -> list[dict[str, Any]]:
    """Every so manieth loan of the cleaned layer."""
    table = duck.query(f"FROM {duck.parquet(*months.values())} ORDER BY application_id")
    rows: list[dict[str, Any]] = table.to_pylist()[::every]
    return rows


def ids(loans: list[dict[str, Any]]) -> list[str]:
    return [str(loan["application_id"]) for loan in loans]


def test_the_median_of_numbers_and_the_most_frequent_category(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    loans = approved(contract, months, every=3)
    found = approved_reference(contract, months, ids(loans))
    assert list(found) == [column.name for column in contract.request_columns]
    for name in ("loan amount", "debt-ratio", "order", "years_in_job"):
        given = [loan[name] for loan in loans if loan[name] is not None]
        assert found[name] == statistics.median_low(given), name
    assert isinstance(found["order"], int), "a whole number stays one"
    counted = Counter(loan["reason"] for loan in loans)
    assert counted[found["reason"]] == max(counted.values())


def test_it_is_of_these_loans_and_no_others(months: dict[str, Path]) -> None:
    contract = home_loans.contract()
    loans = approved(contract, months, every=1)
    small = sorted(loans, key=lambda loan: float(str(loan["loan amount"])))[:11]
    found = approved_reference(contract, months, ids(small))
    assert found["loan amount"] == small[5]["loan amount"]
    with pytest.raises(ValueError, match="none of the 1 approved loans"):
        approved_reference(contract, months, ["nobody"])


def test_a_date_is_as_old_as_a_typical_loans_was(club: dict[str, Path]) -> None:
    contract = club_loans.contract()
    loans = approved(contract, club, every=2)
    found = approved_reference(contract, club, ids(loans))
    days = [loan["issue_d"] for loan in loans]
    assert found["issue_d"] == statistics.median_low(days).isoformat()
    ages = [
        (loan["issue_d"] - loan["earliest line"]).days
        for loan in loans
        if loan["earliest line"] is not None
    ]
    age = dt.date.fromisoformat(str(found["issue_d"])) - dt.date.fromisoformat(
        str(found["earliest line"])
    )
    assert age.days == statistics.median_low(ages)


def test_where_most_give_none_it_is_typical_to_give_none(club: dict[str, Path]) -> None:
    contract = club_loans.contract()
    loans = approved(contract, club, every=1)
    without = [loan for loan in loans if loan["years"] is None]
    with_one = [loan for loan in loans if loan["years"] is not None]
    mostly = approved_reference(contract, club, ids(without + with_one[: len(without) - 1]))
    assert mostly["years"] is None
    half = approved_reference(contract, club, ids(without + with_one[: len(without)]))
    assert half["years"] is not None
    unsaid = [loan for loan in loans if loan["purpose"] is None]
    found = approved_reference(contract, club, ids(unsaid))
    assert found["purpose"] is None


def test_words_that_could_be_one_persons_are_not_kept(club: dict[str, Path]) -> None:
    contract = club_loans.contract()
    weddings = [loan for loan in approved(contract, club, every=1) if loan["purpose"] == "a car"]
    assert "purpose" not in approved_reference(contract, club, ids(weddings[:9]))
    assert approved_reference(contract, club, ids(weddings[:10]))["purpose"] == "a car"


def test_it_is_an_application_the_service_takes(
    club: dict[str, Path], months: dict[str, Path]
) -> None:
    for contract, of in ((club_loans.contract(), club), (home_loans.contract(), months)):
        found = approved_reference(contract, of, ids(approved(contract, of, every=1)))
        [row], _ = PreparedFeatures(contract).evaluate([found])
        assert len(row) == len(contract.model_inputs)
        assert (row == row).all(), "each feature of it has a value"
