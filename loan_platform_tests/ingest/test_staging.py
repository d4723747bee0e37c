"""Which month a row lies in and what it repeats, and that a long book changes none of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import admit
from loan_platform.ingest.cleaning import clean
from loan_platform.ingest.source import locate
from loan_platform.ingest.staging import open_book
from loan_platform_tests import home_loans
from loan_platform_tests.ingest.taking_in import (
    DEALT,
    good_lines,
    home_loans_in,
    small_book,
    take_in,
)


def with_key(contract: Contract) -> Contract:
    """The same contract over a book in which the column `number` is the key."""
    changed = contract.model_dump()
    changed["columns"].append({"name": "number", "type": "text", "role": "key"})
    return Contract.model_validate(changed)


def test_a_keyed_book_is_dealt_by_its_key_alone(small: Path, home: Home):
    """A lender that mends an income must not see the application move to another month."""
    header = "amount,years,purpose,status,number\n"
    lines = [f"{line},L-{n}" for n, line in enumerate(good_lines(60))]
    small.write_text(header + "\n".join(lines))
    contract = with_key(DEALT)
    before = {row["application_id"]: row["applied_at"] for row in take_in(contract, home).accepted}
    assert set(before) == {f"L-{n}" for n in range(60)}
    mended = [f"7{line}" for line in reversed(lines)]
    small.write_text(header + "\n".join(mended))
    after = {row["application_id"]: row["applied_at"] for row in take_in(contract, home).accepted}
    assert before == after


def test_columns_ignored_together_lie_in_quarantine_and_are_no_part_of_identity(
    small: Path, home: Home
):
    changed = DEALT.model_dump()
    changed["ignored"] = [
        {"reason": "the branch's own notes", "columns": ["branch", "note: free", "gone"]}
    ]
    contract = Contract.model_validate(changed)
    small.write_text(
        'amount,years,purpose,status,branch,"note: free",more\n'
        "5,1,car,0,north,a,1\n6,1,car,0,north,b,2\n5,1,car,0,south,c,3\n"
    )
    taken = take_in(contract, home)
    (refused,) = taken.quarantined
    assert (refused["_reason"], refused["_rule"]) == ("duplicate of row 1", "duplicates")
    assert (refused["branch"], refused["note: free"], refused["gone"]) == ("south", "c", None)
    assert "more" not in refused
    assert not any("branch" in row for row in taken.accepted)
    with open_book(contract, locate(contract, home)) as book:
        assert book.columns_unlisted == ["more"]


def test_with_a_file_a_month_a_row_of_an_earlier_month_s_file_is_a_duplicate(
    tmp_path: Path, home: Home
):
    """A lender delivers what is still open again with every month."""
    rows = home_loans.rows(4)
    for row, day in zip(
        rows, ["2024-01-05", "2024-01-06", "2024-02-05", "2024-02-06"], strict=True
    ):
        row["applied_at"] = day
    rows[3]["application_id"] = rows[0]["application_id"]
    home_loans.write_csv(tmp_path / "2024-01.csv", rows[:2])
    home_loans.write_csv(tmp_path / "2024-02.csv", rows[2:])
    contract = home_loans.contract(source={"path": str(tmp_path / "{partition}.csv")})
    for _ in range(2):  # a second run finds the same, not its own rows
        taken = take_in(contract, home, ["2024-01", "2024-02"])
        assert [row["application_id"] for row in taken.accepted] == [
            *("H-00000", "H-00001", "H-00002")
        ]
        (again,) = taken.quarantined
        assert again["_reason"] == "duplicate of an application of 2024-01"
        assert taken.reasons == {"duplicate": 1}
        assert taken.admissions["2024-02"].rules == {"duplicates": 1}


@pytest.mark.slow
def test_a_long_book_gives_the_same_bytes_and_its_rows_in_order(small: Path, home: Home):
    """Several threads write several row groups: neither may change what lies where."""
    duckdb.execute(
        "COPY (SELECT n % 350000 + 0.5 AS amount, n % 40 AS years, 'home' AS purpose, 0 AS status "
        f"FROM range(400000) AS numbers(n)) TO '{small}' (FORMAT csv, HEADER)"
    )

    def digests() -> dict[str, str]:
        with open_book(DEALT, locate(DEALT, home)) as book:
            taken = {month: admit(DEALT, home, month, book) for month in book.months()}
        assert sum(admission.rows for admission in taken.values()) == 400_000
        assert sum(admission.quarantined for admission in taken.values()) == 50_000
        for month in taken:
            clean(DEALT, home, month)
            raw_loans = pq.read_table(home.partition("small", "raw_loans", month))
            assert (np.diff(raw_loans["amount"].to_numpy()) > 0).all()
        files = sorted(home.portfolio("small").rglob("*.parquet"))
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    assert digests() == digests()


def test_the_first_of_many_copies_is_the_one_that_is_kept(tmp_path: Path, home: Home):
    rows = [row | {"applied_at": "2024-02-01"} for row in home_loans.rows(3)]
    taken = take_in(home_loans_in(tmp_path, [*rows, *rows, *rows]), home)
    assert [row["application_id"] for row in taken.accepted] == ["H-00000", "H-00001", "H-00002"]
    told = {row["_row"]: row["_reason"] for row in taken.quarantined}
    assert told == {row: f"duplicate of row {(row - 1) % 3 + 1}" for row in range(4, 10)}


def test_a_book_all_of_the_same_row_has_one_application(small: Path, home: Home):
    small.write_text(small_book(*["5,1,car,0"] * 50))
    taken = take_in(DEALT, home)
    assert (taken.rows, len(taken.accepted), taken.reasons) == (50, 1, {"duplicate": 49})
