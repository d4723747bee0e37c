"""What is told of a month's rows: what was refused, by kind; odd row counts; a missing month."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loan_platform.components.contract_checks import KINDS, absent, jump, last_month
from loan_platform.contract import Contract
from loan_platform.contract.sql import reasons
from loan_platform.engine.home import Home
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, run

NAME = "home_loans"
RAW = dg.AssetKey([NAME, "raw_loans"])
SPAN = (home_loans.MONTHS[0], home_loans.MONTHS[-1])
NOW = dt.datetime(2024, 9, 15, tzinfo=dt.UTC)


@pytest.fixture
def held() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        yield instance


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_each_kind_of_refusal_has_its_check_with_counts_and_places(
    tmp_path: Path, home: Home, held: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    """Who reads the check must find the rows, and must not read an applicant's data in it."""
    ended = home_loans.contract(time={"start": "2024-01-01", "end": "2024-08-01"})
    rows = home_loans.rows(800)
    spoilt: dict[str, tuple[str, str]] = {
        "types": ("loan amount", "987654x"),
        "ranges": ("debt-ratio", "77.7654"),
        "categories": ("reason", "a boat for 987654"),
        "nulls": ("debt-ratio", ""),
        "dates": ("applied_at", "2031-12-24"),
    }
    at = 0
    for column, value in spoilt.values():
        for _ in range(3):
            rows[at][column] = value
            at += 1
    for number in range(at, at + 3):
        rows[number] |= {"order": "1", "loan amount": "1500.00"}  # the rule first_lien_large
    rows += [dict(row) for row in rows[100:103]]
    file = home_loans.write_csv(tmp_path / "home_loans.csv", rows)
    with file.open("a") as end:
        end.write("one,two\nthree,four\nfive,six\n")
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))

    result = run(definitions(ended, home), held, NAME, "raw_loans", months=SPAN)
    found = verdicts(result)
    assert {kind.name for kind in KINDS} <= set(found)
    for name in (*spoilt, "duplicates", "rules"):
        lines = 3 if name == "types" else 0  # the malformed ones
        assert found[name].metadata["refusals"].value == 3 + lines, name
        assert found[name].passed, "three of some hundred rows are within what the contract allows"
        assert found[name].severity is dg.AssetCheckSeverity.WARN
        said = json.dumps({key: str(one.value) for key, one in found[name].metadata.items()})
        for private in ("987654", "77.7654", "1500", "H-00"):
            assert private not in said
    assert "row 4" in str(found["ranges"].metadata["offending"].value)
    assert "debt-ratio" in str(found["nulls"].metadata["offending"].value)

    strict = ended.model_copy(update={"maximum_quarantine_share": 0.0})
    found = verdicts(run(definitions(strict, home), held, NAME, "raw_loans", months=SPAN))
    for name in (*spoilt, "duplicates", "rules"):
        assert not found[name].passed
        assert str(found[name].metadata["mend"].value).startswith("read the rows")
        assert found[name].metadata["partitions"].value
    assert reasons(strict)["columns.debt-ratio.above"] in str(found["ranges"].description)


@pytest.mark.parametrize(
    ("rows", "before", "odd"),
    [
        (1000, [1000, 990, 1010], False),
        (300, [1000, 990, 1010], True),
        (3100, [1000, 990, 1010], True),
        (0, [1000, 990, 1010], True),
        (12, [3, 3, 3], False),  # four times as many, and yet by chance
        (100, [1000, 1000], False),  # too few months to know what is usual
        (1000, [10, 1000, 1000, 1000], False),  # one odd month before does not make it odd
    ],
)
def test_a_jump_is_told_from_chance(rows: int, before: list[int], odd: bool):
    assert (jump(rows, before, 3.0) is not None) == odd


def test_a_delivery_that_is_cut_short_is_reported(
    tmp_path: Path, home: Home, held: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    rows = [
        row
        for number, row in enumerate(home_loans.rows(1600))
        if row["applied_at"] < "2024-08" or number % 10 == 0
    ]
    home_loans.write_csv(tmp_path / "home_loans.csv", rows)
    result = run(definitions(home_loans.contract(), home), held, NAME, "raw_loans", months=SPAN)
    verdict = verdicts(result)["row_count"]
    assert not verdict.passed
    assert verdict.metadata["partitions"].value == ["2024-08"]
    assert "in a usual month" in str(verdict.description)


def test_the_last_month_is_missed_once_those_before_it_are_there():
    """A book that is being taken in month by month must not alarm for what is still to come."""
    contract = home_loans.contract()
    there = dict.fromkeys(home_loans.MONTHS, 100)
    assert last_month(contract, NOW) == "2024-08"
    assert absent(contract, there, NOW) is None
    assert absent(contract, there | {"2024-08": 0}, NOW) == "2024-08"
    assert absent(contract, dict.fromkeys(home_loans.MONTHS[:-1], 100), NOW) == "2024-08"
    assert absent(contract, dict.fromkeys(home_loans.MONTHS[:3], 100), NOW) is None
    assert last_month(contract, dt.datetime(2024, 1, 20, tzinfo=dt.UTC)) is None


def test_a_run_over_earlier_months_says_nothing_about_the_last(
    tmp_path: Path, home: Home, held: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    """A backfill on its way there would alarm, and a later look at old months would call it off."""
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    rows = [row for row in home_loans.rows(400) if row["applied_at"] < "2024-08"]
    home_loans.write_csv(tmp_path / "home_loans.csv", rows)
    ended = home_loans.contract(time={"start": "2024-01-01", "end": "2024-08-01"})
    defs = definitions(ended, home)
    earlier = verdicts(run(defs, held, NAME, "raw_loans", months=("2024-01", "2024-07")))
    assert "last_month" not in earlier
    missed = verdicts(run(defs, held, NAME, "raw_loans", months=("2024-08", "2024-08")))
    assert not missed["last_month"].passed
    assert missed["last_month"].metadata["partitions"].value == ["2024-08"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ({"start": "2024-01-01", "end": "2024-05-01"}, "2024-05"),
        ({"replay": {"start": "2024-01-01", "periods": 3}}, "2024-03"),
    ],
)
def test_nothing_is_expected_after_the_end_of_a_book(time: dict[str, object], expected: str):
    contract: Contract = home_loans.contract(time={"start": "2024-01-01"}).model_copy(
        update={"time": type(home_loans.contract().time).model_validate(time)}
    )
    assert last_month(contract, NOW) == expected
