"""Rows in are rows accepted and rows quarantined, each with its reason; the service's rows too."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_platform.components.months import monthly
from loan_platform.contract import Contract
from loan_platform.contract.calendar import partition_key
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.decisions.log import SCHEMA as DECISIONS
from loan_platform.decisions.outcomes import SCHEMA as WORDS
from loan_platform.decisions.outcomes import history_path
from loan_platform.engine.files import write_parquet
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import admit
from loan_platform.ingest.cleaning import clean, write_book_features
from loan_platform.ingest.source import Location, SourceError, locate
from loan_platform.ingest.staging import open_book
from loan_platform.training.split import own_part
from loan_platform_tests import home_loans
from loan_platform_tests.ingest.taking_in import (
    DEALT,
    REPLAYED,
    Row,
    good_lines,
    home_loans_in,
    read,
    small_book,
    take_in,
)

# a line, and the reason it is refused for
REFUSED = {
    "12a,1,car,0": "amount: not a finite number",
    "inf,1,car,0": "amount: not a finite number",
    "1e400,1,car,0": "amount: not a finite number",
    ",1,car,0": "amount: missing",
    "   ,1,car,0": "amount: missing",
    "-1,1,car,0": "amount: below 0",
    "1000001,1,home,0": "amount: above 1e+06",
    "5,1.5,car,0": "years: not a whole number",
    "5,1,boat,0": "purpose: not a listed category",
    "5,1,Car,0": "purpose: not a listed category",
    "5,1,,0": "purpose: missing",
    "5,1,car,2": "status: neither a good nor a bad outcome",
    "90001,1,car,0": "dear_car: no car costs that much",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_bad_row_is_quarantined_with_its_reason_and_as_it_came(
    line: str, small: Path, home: Home
):
    small.write_text(small_book(*good_lines(10), line, *good_lines(20)[10:]))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (21, 20)
    (refused,) = taken.quarantined
    assert refused["_reason"] == REFUSED[line]
    assert refused["_row"] == 11
    received = [refused[name] or "" for name in ("amount", "years", "purpose", "status")]
    assert received == [
        value if value.strip() else received[i] for i, value in enumerate(line.split(","))
    ]


def test_a_row_with_two_faults_has_both_reasons(small: Path, home: Home):
    small.write_text(small_book("x,y,car,0"))
    taken = take_in(REPLAYED, home)
    assert taken.reasons == {"amount: not a finite number": 1, "years: not a whole number": 1}
    assert len(taken.quarantined) == 1


def test_good_rows_keep_their_types_and_their_outcome(small: Path, home: Home):
    small.write_text(small_book("5,,car,1", "6.5,3.0,home,0", "7,1,car,"))
    taken = take_in(REPLAYED, home)
    rows = {row["amount"]: row for row in taken.accepted}
    assert [rows[a]["years"] for a in (5.0, 6.5, 7.0)] == [None, 3, 1]
    assert [rows[a]["outcome"] for a in (5.0, 6.5, 7.0)] == [1, 0, None]
    assert [rows[a]["outcome_source"] for a in (5.0, 6.5, 7.0)] == ["book", "book", None]
    known = rows[5.0]
    assert known["outcome_known_at"] - known["applied_at"] == dt.timedelta(days=30)
    assert rows[7.0]["outcome_known_at"] is None
    assert "status" not in known


def test_duplicates_are_quarantined_and_name_the_first(small: Path, home: Home):
    first, second = "5,1,car,0", "6,1,home,1"
    small.write_text(small_book(first, *good_lines(5), second, first, f" {second}", first))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (10, 7)
    assert taken.reasons == {"duplicate": 3}
    told = sorted((row["_row"], row["_reason"]) for row in taken.quarantined)
    assert told == [
        (8, "duplicate of row 1"),
        (9, "duplicate of row 7"),
        (10, "duplicate of row 1"),
    ]


def test_duplicates_may_be_kept_with_ids_of_their_own(small: Path, home: Home):
    keeping = REPLAYED.model_copy(update={"duplicates": "keep"})
    small.write_text(small_book("5,1,car,0", "6,1,home,1", "5,1,car,0", "5,1,car,0"))
    taken = take_in(keeping, home)
    assert (taken.rows, len(taken.accepted), taken.quarantined) == (4, 4, [])
    same = sorted(row["application_id"] for row in taken.accepted if row["amount"] == 5)
    assert same == [same[0], f"{same[0]}#copy-2", f"{same[0]}#copy-3"]
    assert len(set(own_part(same))) == 1


def test_a_second_run_writes_the_same_bytes(small: Path, home: Home):
    lines = [*good_lines(200), "x,1,car,0", "1,1", good_lines(1)[0]]
    small.write_text(small_book(*lines))

    def digests() -> dict[str, str]:
        taken = take_in(DEALT, home)
        for month in taken.admissions:
            clean(DEALT, home, month)
        files = sorted(home.portfolio("small").rglob("*.parquet"))
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    first = digests()
    assert len(first) == 9  # three months of raw_loans, quarantine, cleaned_features
    assert digests() == first


def test_rows_are_placed_by_date_and_those_outside_say_so(tmp_path: Path, home: Home):
    rows = home_loans.rows(200)
    for row, date in zip(rows, ["2023-12-31", "", "31/01/2024", "infinity"], strict=False):
        row["applied_at"] = date
    taken = take_in(home_loans_in(tmp_path, rows), home)
    assert (taken.rows, len(taken.accepted)) == (200, 196)
    reasons = {row["_application_id"]: row["_reason"] for row in taken.quarantined}
    assert reasons == {
        "H-00000": "dated before 2024-01",
        "H-00001": "applied_at: missing",
        "H-00002": "applied_at: not a date",
        "H-00003": "applied_at: not a date",
    }
    assert all(f"{row['applied_at']:%H:%M}" == "00:00" for row in taken.accepted)


def test_every_row_of_a_file_lies_in_a_partition(tmp_path: Path, home: Home):
    """One with a date not reached yet, with none, or that cannot be read: in a month that is."""
    rows = home_loans.rows(60)
    for row, day in zip(rows, range(60), strict=True):
        row["applied_at"] = f"{dt.date(2024, 1, 5) + dt.timedelta(days=day)}"
    for at, date in ((10, "9999-12-31"), (45, "1999-01-01"), (59, "never")):
        rows[at]["applied_at"] = date
    contract = home_loans_in(tmp_path, rows)
    with (tmp_path / "home_loans.csv").open("a", encoding="utf-8") as file:
        file.write("a line of another file\n")
    now = dt.datetime.now(dt.UTC)
    months = monthly(contract).get_partition_keys(current_time=now)
    assert months[-1] == partition_key(now)
    taken = take_in(contract, home, list(months))
    assert (taken.rows, len(taken.accepted), len(taken.quarantined)) == (61, 57, 4)
    found = {
        month: list(admission.reasons)
        for month, admission in taken.admissions.items()
        if admission.quarantined
    }
    assert found == {
        "2024-02": ["dated before 2024-01"],
        "2024-03": ["applied_at: not a date", "malformed line: missing columns"],
        months[-1]: [f"dated after {months[-1]}"],
    }
    with open_book(contract, locate(contract, home)) as book:
        assert write_book_features(contract, book, tmp_path / "features.parquet") == 57


def test_what_a_delivery_breaks_lies_in_the_month_of_the_delivery(small: Path, home: Home):
    """Blank lines, line breaks in values and broken lines before it do not move it."""
    lines = [
        *("2024-01-05,car,1,0,x", "", '2024-01-06,car,1,0,"two', 'lines"', "broken", ""),
        *("2024-02-01,car,1,0,x", "broken", "2024-02-02,car,1,0,x", "2024-03-01,car,1,0,x", ""),
        *("broken", "2024-04-01,car,1,0,x"),
    ]
    contract = Contract.model_validate(
        REPLAYED.model_dump(exclude={"rules", "columns", "time"})
        | {
            "time": {"start": "2024-01-01"},
            "columns": [
                {"name": "day", "type": "date", "role": "time"},
                {"name": "purpose", "type": "category", "categories": ["car", "home"]},
                {"name": "amount", "type": "number"},
                {"name": "status", "type": "category", "categories": ["0", "1"], "role": "outcome"},
                {"name": "note", "type": "text", "role": "key"},
            ],
            "duplicates": "keep",
        }
    )
    for end in ("\n", "\r\n"):
        small.write_text(
            end.join(["day,purpose,amount,status,note", *lines, ""]), encoding="utf-8", newline=""
        )
        with open_book(contract, locate(contract, home)) as book:
            found = {
                month: pq.read_table(book.malformed(month))["_line_number"].to_pylist()
                for month in book.months()
            }
        assert found == {"2024-01": [6], "2024-02": [9], "2024-03": [13], "2024-04": []}


def test_rows_that_differ_in_the_outcome_alone_are_duplicates_that_say_so(small: Path, home: Home):
    small.write_text(small_book("5,1,car,0", "6,1,car,0", "5,1,car,1", "6,1,car,0"))
    taken = take_in(DEALT, home)
    assert taken.reasons == {"duplicate": 1, "duplicate with another outcome": 1}
    assert {row["_row"]: row["_reason"] for row in taken.quarantined} == {
        3: "duplicate of row 1 with another outcome",
        4: "duplicate of row 2",
    }


def test_the_rows_of_a_stand_in_say_so(small: Path, home: Home):
    small.write_text(small_book(*good_lines(5), "x,1,car,0", "broken"))
    with open_book(REPLAYED, Location.of_file(small, simulated=True)) as book:
        admit(REPLAYED, home, "2024-11", book)
    rows = read(home, REPLAYED, "raw_loans", ["2024-11"])
    assert {(row["origin"], row["outcome_source"]) for row in rows} == {("simulated", "simulated")}
    refused = read(home, REPLAYED, "quarantine", ["2024-11"])
    assert {row["_origin"] for row in refused} == {"simulated"}


def test_an_application_of_another_month_of_the_book_is_not_taken_from_the_service(
    dated: Contract, home: Home
):
    """The lender dates it by another day than the service decided on it."""
    decide(dated, home, {"application_id": "H-00002", "inputs": INPUTS})
    admission = take_in(dated, home, [MONTH]).admissions[MONTH]
    assert (admission.rows, admission.from_service, admission.also_in_book) == (2, 0, 1)


def test_the_same_key_in_another_month_is_a_duplicate(tmp_path: Path, home: Home):
    rows = home_loans.rows(4)
    for row, day in zip(
        rows, ["2024-01-05", "2024-02-05", "2024-03-05", "2024-04-05"], strict=True
    ):
        row["applied_at"] = day
    rows[2]["application_id"] = rows[0]["application_id"]
    taken = take_in(home_loans_in(tmp_path, rows), home)
    assert len(taken.accepted) == 3
    (again,) = taken.quarantined
    assert again["_reason"].startswith("duplicate of row 1")


def test_a_corrected_outcome_moves_a_row_nowhere(small: Path, home: Home):
    small.write_text(small_book(*good_lines(30), "5,1,car,0"))
    before = {row["application_id"]: row["applied_at"] for row in take_in(DEALT, home).accepted}
    small.write_text(small_book(*good_lines(30), "5,1,car,1"))
    after = {row["application_id"]: row["applied_at"] for row in take_in(DEALT, home).accepted}
    assert before == after


def test_the_file_of_a_month_that_is_not_over_may_be_missing(tmp_path: Path, home: Home):
    contract = home_loans.contract(source={"path": str(tmp_path / "{partition}.csv")})
    now = partition_key(dt.datetime.now(dt.UTC))
    with open_book(contract, locate(contract, home), now) as book:
        assert book.missing == str(tmp_path / f"{now}.csv")
        assert admit(contract, home, now, book).rows == 0
    with pytest.raises(SourceError, match="file of 2024-03 is missing"):
        take_in(contract, home, ["2024-03"])


def test_a_row_in_another_months_file_says_so(tmp_path: Path, home: Home):
    rows = home_loans.rows(2)
    rows[0]["applied_at"], rows[1]["applied_at"] = "2024-03-10", "2024-04-01"
    home_loans.write_csv(tmp_path / "2024-03.csv", rows)
    contract = home_loans.contract(source={"path": str(tmp_path / "{partition}.csv")})
    taken = take_in(contract, home, ["2024-03"])
    assert [row["application_id"] for row in taken.accepted] == ["H-00000"]
    assert [row["_reason"] for row in taken.quarantined] == ["dated outside 2024-03"]


def test_the_lenders_key_is_the_id_and_each_is_there_once(tmp_path: Path, home: Home):
    rows = home_loans.rows(5)
    for row in rows:
        row["applied_at"] = "2024-02-01"
    rows[1]["application_id"] = f" {rows[0]['application_id']} "
    rows[2]["application_id"] = rows[3]["application_id"] = ""
    taken = take_in(home_loans_in(tmp_path, rows), home)
    assert [row["application_id"] for row in taken.accepted] == ["H-00000", "H-00004"]
    assert [row["_reason"] for row in taken.quarantined] == [
        "duplicate of row 1",
        "application_id: missing",
        "application_id: missing",
    ]


def test_a_loan_that_is_still_open_is_kept_without_an_outcome(tmp_path: Path, home: Home):
    rows = home_loans.rows(4)
    for row, outcome in zip(rows, ["open", "written off", "", "lost"], strict=True):
        row["outcome"] = outcome
    taken = take_in(home_loans_in(tmp_path, rows), home)
    found = {row["application_id"]: row["outcome"] for row in taken.accepted}
    assert found == {"H-00000": None, "H-00001": 1, "H-00002": None}
    assert taken.reasons == {"outcome: neither a good nor a bad outcome": 1}


def test_protected_columns_are_kept_and_ignored_ones_are_not(tmp_path: Path, home: Home):
    contract = home_loans_in(tmp_path, home_loans.rows(20))
    taken = take_in(contract, home)
    assert {row["sex"] for row in taken.accepted} == {"f", "m"}
    assert not any("note" in row for row in taken.accepted)
    month = next(iter(taken.admissions))
    clean(contract, home, month)
    cleaned = pq.read_schema(home.partition(contract.name, "cleaned_features", month))
    assert cleaned.names == [
        *("application_id", "applied_at", "origin"),
        *("outcome", "outcome_known_at", "outcome_source"),
        *contract.model_inputs,
    ]


def test_features_of_the_whole_book_are_those_of_its_months(tmp_path: Path, home: Home):
    rows = home_loans.rows(300)
    rows[0]["debt-ratio"] = "much"
    contract = home_loans_in(tmp_path, rows)
    taken = take_in(contract, home)
    monthly: list[Row] = []
    for month in taken.admissions:
        assert clean(contract, home, month) == taken.admissions[month].accepted
        monthly += read(home, contract, "cleaned_features", [month])
    for row in monthly:
        for name in PLATFORM_COLUMNS:
            del row[name]
    path = tmp_path / "features.parquet"
    with open_book(contract, locate(contract, home)) as book:
        assert write_book_features(contract, book, path) == 299
    whole = pq.read_table(path).to_pylist()
    assert sorted(map(str, whole)) == sorted(map(str, monthly))


MONTH = "2024-03"


def decide(contract: Contract, home: Home, *decisions: dict[str, Any]) -> None:
    """Write the month's snapshot of the decision log."""
    usual = {
        "applied_at": dt.datetime(2024, 3, 15, 12, 30, tzinfo=dt.UTC),
        "decided_at": dt.datetime(2024, 3, 15, 12, 31, tzinfo=dt.UTC),
        "model_version": "1", "contract_hash": "c", "policy_hash": "p",
        "probability_default": 0.2, "label": 0, "decision": "approve",
    }  # fmt: skip
    rows = [
        usual | {"decision_id": f"d{n}"} | one | {"inputs": json.dumps(one["inputs"])}
        for n, one in enumerate(decisions)
    ]
    path = home.partition(contract.name, "decisions", MONTH)
    write_parquet(pa.Table.from_pylist(rows, schema=DECISIONS), path)


def learn(contract: Contract, home: Home, **outcomes: int) -> None:
    """Write every word on every loan, as the asset outcomes keeps them."""
    known = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    rows = [
        {
            "application_id": name.replace("_", "-"),
            "outcome": bad,
            "known_at": known,
            "source": "lender",
            "recorded_at": known,
        }
        for name, bad in outcomes.items()
    ]
    words = pa.Table.from_pylist(rows, schema=WORDS)
    write_parquet(words, history_path(home, contract.name))


INPUTS = {
    "loan amount": 0.1 + 0.2,
    "debt-ratio": 1 / 3,
    "order": 3,
    "years_in_job": None,
    "reason": 'a "second" home',
}
INPUTS["loan amount"] = 123456.78901234567


@pytest.fixture
def dated(tmp_path: Path) -> Contract:
    """Home loans, two of them in March: H-00000 and H-00001."""
    rows = home_loans.rows(3)
    for row, day in zip(rows, ["2024-03-02", "2024-03-03", "2024-04-01"], strict=True):
        row["applied_at"] = day
    return home_loans_in(tmp_path, rows)


def test_a_decided_application_becomes_a_row_with_the_inputs_it_had(dated: Contract, home: Home):
    decide(dated, home, {"application_id": "S-1", "inputs": INPUTS})
    taken = take_in(dated, home, [MONTH])
    admission = taken.admissions[MONTH]
    assert (admission.rows, admission.accepted, admission.from_service) == (3, 3, 1)
    (served,) = [row for row in taken.accepted if row["origin"] == "service"]
    assert {name: served[name] for name in INPUTS} == INPUTS  # to the last bit
    assert served["application_id"] == "S-1"
    assert served["applied_at"] == dt.datetime(2024, 3, 15, 12, 30, tzinfo=dt.UTC)
    assert (served["outcome"], served["outcome_known_at"], served["sex"]) == (None, None, None)


def test_its_outcome_and_when_it_was_known_come_with_it(dated: Contract, home: Home):
    decide(
        dated,
        home,
        {"application_id": "S-1", "inputs": INPUTS},
        {"application_id": "S-2", "inputs": INPUTS},
    )
    learn(dated, home, S_1=1)
    taken = take_in(dated, home, [MONTH])
    found = {row["application_id"]: row for row in taken.accepted}
    assert found["S-1"]["outcome"] == 1
    assert found["S-1"]["outcome_known_at"] == dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    assert found["S-1"]["outcome_source"] == "lender"
    assert found["S-2"]["outcome"] is None
    assert taken.admissions[MONTH].with_outcome == 3


def test_a_reported_outcome_stands_in_place_of_the_book_s_own(tmp_path: Path, home: Home):
    rows = home_loans.rows(4)
    for row, word in zip(rows, ["paid", "open", "paid", "defaulted"], strict=True):
        row |= {"applied_at": "2024-03-02", "outcome": word}
    contract = home_loans_in(tmp_path, rows)
    learn(contract, home, H_00000=1, H_00001=1, nobody_s=1)
    taken = take_in(contract, home, [MONTH])
    told = [
        (row["application_id"], row["outcome"], row["outcome_source"]) for row in taken.accepted
    ]
    assert told == [
        ("H-00000", 1, "lender"), ("H-00001", 1, "lender"),
        ("H-00002", 0, "book"), ("H-00003", 1, "book"),
    ]  # fmt: skip
    reported, _, own, _ = (row["outcome_known_at"] for row in taken.accepted)
    assert reported == dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    assert own == dt.datetime(2024, 4, 16, tzinfo=dt.UTC), "45 days after the application"
    assert taken.admissions[MONTH].with_outcome == 4
    written = home.partition(contract.name, "raw_loans", MONTH).read_bytes()
    take_in(contract, home, [MONTH])
    assert home.partition(contract.name, "raw_loans", MONTH).read_bytes() == written


def test_an_application_in_both_roads_is_counted_once_from_the_book(dated: Contract, home: Home):
    decide(
        dated,
        home,
        {"application_id": "H-00001", "inputs": INPUTS},
        {"application_id": "S-1", "inputs": INPUTS},
    )
    taken = take_in(dated, home, [MONTH])
    admission = taken.admissions[MONTH]
    assert (admission.rows, admission.from_service, admission.also_in_book) == (3, 1, 1)
    origins = {row["application_id"]: row["origin"] for row in taken.accepted}
    assert origins == {"H-00000": "book", "H-00001": "book", "S-1": "service"}


def test_of_two_decisions_on_an_application_the_newest_counts(dated: Contract, home: Home):
    later = dt.datetime(2024, 3, 20, tzinfo=dt.UTC)
    decide(
        dated,
        home,
        {"application_id": "S-1", "inputs": INPUTS | {"order": 2}, "decided_at": later},
        {"application_id": "S-1", "inputs": INPUTS},
    )
    served = [row for row in take_in(dated, home, [MONTH]).accepted if row["origin"] == "service"]
    assert [row["order"] for row in served] == [2]


def test_a_served_row_the_contract_refuses_is_quarantined_too(dated: Contract, home: Home):
    """The contract may have become stricter since the service answered."""
    decide(dated, home, {"application_id": "S-1", "inputs": INPUTS | {"reason": "boat"}})
    taken = take_in(dated, home, [MONTH])
    admission = taken.admissions[MONTH]
    assert (admission.rows, admission.quarantined, admission.from_service) == (3, 1, 0)
    assert admission.also_in_book == 0
    (refused,) = taken.quarantined
    assert (refused["_origin"], refused["_reason"]) == ("service", "reason: not a listed category")


def test_a_book_without_keys_takes_the_service_s_rows_too(small: Path, home: Home):
    small.write_text(small_book(*good_lines(30)))
    with open_book(REPLAYED, locate(REPLAYED, home)) as book:
        month = next(iter(book.months()))
    rows = [
        dict.fromkeys(DECISIONS.names)
        | {
            "application_id": "S-1",
            "applied_at": dt.datetime.strptime(month, "%Y-%m").replace(tzinfo=dt.UTC),
            "inputs": json.dumps({"amount": 7.25, "years": 2, "purpose": "home"}),
        }
    ]
    path = home.partition("small", "decisions", month)
    write_parquet(pa.Table.from_pylist(rows, schema=DECISIONS), path)
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (31, 31)
    assert read(home, REPLAYED, "raw_loans", [month])[-1]["amount"] == 7.25
