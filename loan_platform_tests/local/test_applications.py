"""What the demo takes of a book: its applications, and its months as a book of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.ingest.source import Location
from loan_platform.ingest.staging import open_book
from loan_platform.local.applications import applications, write_months
from loan_platform_tests.ingest.taking_in import DEALT, good_lines, small_book, take_in

LINES = [*good_lines(300), "broken", "x,1,car,0", *good_lines(2), "5,1,car", '7,1,"car,0']


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "whole.csv"
    path.write_text(small_book(*LINES))
    return path


def at(path: Path) -> Contract:
    source = DEALT.source.model_copy(update={"path": str(path)})
    return DEALT.model_copy(update={"source": source})


def test_months_of_a_book_are_a_book_with_all_their_lines(book: Path, tmp_path: Path, home: Home):
    """Also what is refused, as it is: the history is taken in as the whole book would be."""
    parts = []
    with open_book(at(book), Location.of_file(book)) as staged:
        rows = staged.months()
        for month in rows:
            path = tmp_path / f"{month}.csv.gz"
            assert write_months(at(book), staged, [month], path) == rows[month]
            parts.append(take_in(at(path), home))
    assert sum(rows.values()) == len(LINES)
    whole = take_in(at(book), home)
    for month, part in zip(rows, parts, strict=True):
        assert list(part.admissions) == [month]
        assert part.reasons == whole.admissions[month].reasons
        assert part.admissions[month].accepted == whole.admissions[month].accepted


def test_a_repeated_row_is_one_application(book: Path):
    with open_book(at(book), Location.of_file(book)) as staged:
        found = [one for month in staged.months() for one in applications(DEALT, staged, month)]
    assert len(found) == len({one.application_id for one in found}) == 301
