"""Whatever stands in a book: every row is accepted or quarantined once, and counts add up."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import math
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loan_platform.contract.calendar import partition_key
from loan_platform.contract.sql import reasons
from loan_platform.drift.counts import by_feature, count, fit_bins
from loan_platform.engine.home import Home
from loan_platform.ingest.cleaning import clean
from loan_platform_tests import home_loans
from loan_platform_tests.ingest.taking_in import (
    HEADER,
    REPLAYED,
    good_lines,
    home_loans_in,
    read,
    small_book,
    take_in,
)

MONTH = "2024-11"


# Line breaks inside values are the reader's business (test_reading).
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
NUMBERS = ["0", "1", "-1", "5", " 7 ", "5.0", "1e3", "1e400", "nan", "inf", "-0.0", "1,5", "1.5"]
WORDS = ["", " ", "1_000", "0x10", "car", "home", "CAR", "true", "NULL", "\u0665", "9" * 400]
LIKELY = st.sampled_from([*NUMBERS, *WORDS])
ROWS = st.lists(st.tuples(*[LIKELY | ANY_TEXT] * 4), min_size=1, max_size=80)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
@example(rows=[("5", "1", "car", "0"), ("5", "1", "car", "1"), ("inf", "nan", "'", '"')])
def test_every_row_of_any_text_is_accepted_or_quarantined_once(
    rows: list[tuple[str, ...]], small: Path, home: Home
):
    with small.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    taken = take_in(REPLAYED, home)
    assert taken.rows == len(rows) == len(taken.accepted) + len(taken.quarantined)
    rules = {*reasons(REPLAYED), "duplicates"}
    numbers = [row["_row"] for row in taken.quarantined]
    assert len(set(numbers)) == len(numbers)
    for row in taken.quarantined:
        assert row["_rule"]
        assert set(row["_rule"].split(" ")) <= rules
        assert len(row["_reason"].split("; ")) == len(row["_rule"].split(" "))
        assert (
            tuple(row[name] or "" for name in ("amount", "years", "purpose", "status"))
            == (rows[row["_row"] - 1])
        )
    for row in taken.accepted:
        assert 0 <= row["amount"] <= 1e6
        assert row["purpose"] in ("car", "home")
        assert row["outcome"] in (0, 1, None)
        assert not (row["purpose"] == "car" and row["amount"] > 90_000)
    assert len({row["application_id"] for row in taken.accepted}) == len(taken.accepted)

    assert clean(REPLAYED, home, MONTH) == len(taken.accepted)
    cleaned = home.partition("small", "cleaned_features", MONTH)
    bins = fit_bins(REPLAYED, [cleaned])
    for vector in by_feature(bins, count(REPLAYED, bins, [cleaned])).values():
        assert vector.sum() == len(taken.accepted)

    def digests() -> list[str]:
        layers = ("raw_loans", "quarantine", "cleaned_features")
        files = [home.partition("small", layer, MONTH) for layer in layers]
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    first = digests()
    take_in(REPLAYED, home)
    clean(REPLAYED, home, MONTH)
    assert digests() == first


def test_values_that_are_no_numbers_are_quarantined_and_told_apart(small: Path, home: Home):
    """Decimal commas among points, infinity, NaN, and a row shifted by one column."""
    lines = ['"1000,5",1,car,0', '"1.000,5",1,car,0', "inf,1,car,0", "-Infinity,1,car,0"]
    lines += ["NaN,1,car,0", "5,nan,car,0", "1,car,0,5"]
    small.write_text(small_book(*good_lines(20), *lines))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (27, 20)
    assert taken.admissions[MONTH].rules == {
        "columns.amount.type": 5,
        "columns.years.type": 2,
        "columns.purpose.categories": 1,
        "outcome": 1,
    }
    assert taken.reasons["amount: not a finite number"] == 5
    shifted = taken.quarantined[-1]
    assert shifted["_rule"] == "columns.years.type columns.purpose.categories outcome"
    assert [shifted[name] for name in ("amount", "years", "purpose", "status")] == [
        *("1", "car", "0", "5")
    ]


def test_a_date_in_the_future_is_quarantined_in_the_month_that_is(tmp_path: Path, home: Home):
    now = partition_key(dt.datetime.now(dt.UTC))
    rows = home_loans.rows(3)
    rows[1]["applied_at"] = f"{dt.datetime.now(dt.UTC).year + 1}-01-01"
    taken = take_in(home_loans_in(tmp_path, rows), home)
    assert (taken.rows, len(taken.accepted)) == (3, 2)
    (refused,) = taken.quarantined
    assert (refused["_rule"], refused["_reason"]) == ("time", f"dated after {now}")
    assert taken.admissions[now].rules == {"time": 1}


def test_a_month_of_which_nothing_is_accepted_is_an_empty_month(small: Path, home: Home):
    small.write_text(small_book(*["x,1,car,0", "-5,1,car,0"]))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, taken.accepted, len(taken.quarantined)) == (2, [], 2)
    assert clean(REPLAYED, home, MONTH) == 0
    assert read(home, REPLAYED, "cleaned_features", [MONTH]) == []
    cleaned = home.partition("small", "cleaned_features", MONTH)
    bins = fit_bins(REPLAYED, [cleaned])
    vectors = by_feature(bins, count(REPLAYED, bins, [cleaned])).values()
    assert math.fsum(vector.sum() for vector in vectors) == 0
