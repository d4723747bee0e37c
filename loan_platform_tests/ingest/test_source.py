"""Finding and staging a book: what is told where it cannot be read, and what is never lost."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.ingest.migrate import migrate
from loan_platform.ingest.source import Location, SourceError, book_of, locate, stand_in_path
from loan_platform.ingest.staging import open_book
from loan_platform_tests import home_loans
from loan_platform_tests.ingest.taking_in import (
    DEALT,
    HEADER,
    REPLAYED,
    Row,
    Taken,
    good_lines,
    home_loans_in,
    small_book,
    take_in,
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LOAN_DATA_DIR", str(folder))
    return folder


def error_of(contract: Contract, home: Home) -> str:
    with pytest.raises(SourceError) as raised:
        take_in(contract, home)
    return str(raised.value)


# what is done to a good book of 40 lines; lines it then has; reasons and how many rows have each
MALFORMED: dict[str, tuple[list[str], dict[str, int]]] = {
    "too few columns": (["5,1,car"], {"malformed line: missing columns": 1}),
    "too many columns": (["5,1,car,0,9"], {"malformed line: too many columns": 1}),
    "text after a quote": (['5,1,"car"s,0'], {"malformed line: stray quote": 1}),
    "a comment is a line like any other": (
        ["# made by hand"],
        {"malformed line: missing columns": 1},
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("at", ["first", "last"])
def test_a_malformed_line_is_quarantined_alone(case: str, at: str, data: Path, home: Home):
    lines, reasons = MALFORMED[case]
    good = good_lines(40)
    place = {"first": 0, "last": 40}[at]
    (data / "small.csv").write_text(small_book(*good[:place], *lines, *good[place:]))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (41, 40)
    assert taken.reasons == reasons
    (refused,) = taken.quarantined
    assert refused["_line_number"] == place + 2  # the header is line 1
    assert refused["_line"] == lines[0]


def test_a_quote_that_is_never_closed_costs_its_own_line_alone(data: Path, home: Home):
    good = good_lines(40)
    (data / "small.csv").write_text(small_book(*good[:10], '5,1,"car,0', *good[10:]))
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (41, 40)
    assert taken.reasons == {"malformed line: stray quote": 1}
    assert (taken.quarantined[0]["_line_number"], taken.quarantined[0]["_line"]) == (
        12,
        '5,1,"car,0',
    )


def test_a_malformed_line_of_windows_is_one_line(data: Path, home: Home):
    lines = [*good_lines(5), "", "broken", *good_lines(9)[5:], "broken too"]
    (data / "small.csv").write_bytes(small_book(*lines).replace("\n", "\r\n").encode())
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (11, 9)
    found = {row["_line_number"]: row["_line"] for row in taken.quarantined}
    assert found == {8: "broken", 13: "broken too"}


def test_another_contract_has_another_stand_in(credit_risk: Contract, home: Home):
    outcome = credit_risk.outcome.model_copy(update={"bad": ["0"], "good": ["1"]})
    others = [
        credit_risk,
        credit_risk.model_copy(update={"outcome": outcome}),
        credit_risk.model_copy(update={"columns": credit_risk.columns[::-1]}),
    ]
    assert len({stand_in_path(contract, home) for contract in others}) == 3


def test_a_line_that_is_not_utf8_is_quarantined(data: Path, home: Home):
    book = small_book(*good_lines(10)).encode() + b"5,1,caf\xe9,0\n"
    (data / "small.csv").write_bytes(book)
    taken = take_in(REPLAYED, home)
    assert (len(taken.accepted), taken.reasons) == (10, {"malformed line: invalid encoding": 1})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(small_book(*good_lines(20)).replace("\n", "\r\n"), id="Windows line ends"),
        pytest.param("\ufeff" + small_book(*good_lines(20)), id="byte order mark"),
        pytest.param(small_book(*good_lines(20)).rstrip("\n"), id="no last line end"),
        pytest.param(small_book(*good_lines(10), "", "", *good_lines(20)[10:]), id="blank lines"),
        pytest.param(
            small_book(*good_lines(20)).replace("purpose,status", '"purpose", status'),
            id="quotes and blanks in the header",
        ),
    ],
)
def test_what_programs_write_in_csv_files_is_read(text: str, data: Path, home: Home):
    (data / "small.csv").write_bytes(text.encode())
    taken = take_in(REPLAYED, home)
    assert (taken.rows, len(taken.accepted)) == (20, 20)


def test_a_column_the_contract_does_not_list_is_named_and_left_out(data: Path, home: Home):
    lines = [f"{line},x" for line in good_lines(5)]
    (data / "small.csv").write_text(HEADER.replace("status", "status,branch") + "\n".join(lines))
    with open_book(REPLAYED, locate(REPLAYED, home)) as book:
        assert book.columns_unlisted == ["branch"]
        assert sum(book.months().values()) == 5


def test_a_missing_column_is_named_with_the_one_it_may_have_become(data: Path, home: Home):
    path = data / "small.csv"
    path.write_text(small_book(*good_lines(5)).replace("purpose", "purposes"))
    told = error_of(REPLAYED, home)
    assert f"{path} lacks the column purpose (did it become purposes?)" in told
    path.write_text("a;b\n1;2\n")
    told = error_of(REPLAYED, home)
    assert "lacks the columns amount, years, purpose, status" in told
    assert "It seems to be parted by ';': set source.delimiter." in told


def test_a_column_that_stands_there_twice_is_told(data: Path, home: Home):
    (data / "small.csv").write_text("amount,amount,years,purpose,status\n1,2,3,car,0\n")
    assert "more than one column amount" in error_of(REPLAYED, home)


def test_a_missing_file_says_which_and_where_it_was_looked_for(data: Path, home: Home):
    told = error_of(REPLAYED, home)
    assert f"small: data file small.csv is missing; looked at {data / 'small.csv'}" in told
    assert "LOAN_DATA_DIR" in told


def test_without_a_data_folder_and_figures_to_draw_from_it_says_so(home: Home):
    told = error_of(REPLAYED, home)
    assert "LOAN_DATA_DIR is not set" in told
    assert "no simulation: section" in told


def test_an_empty_file_is_told_and_a_header_alone_is_an_empty_book(data: Path, home: Home):
    (data / "small.csv").write_text("")
    assert "small.csv is empty. Its first line must name the columns" in error_of(REPLAYED, home)
    (data / "small.csv").write_text(HEADER)
    assert take_in(REPLAYED, home).rows == 0


def with_path(path: Path) -> Contract:
    return REPLAYED.model_copy(
        update={"source": REPLAYED.source.model_copy(update={"path": str(path)})}
    )


def test_a_gzipped_book_gives_what_the_plain_one_gives(tmp_path: Path, home: Home):
    text = small_book(*good_lines(50))
    (tmp_path / "small.csv").write_text(text)
    (tmp_path / "small.csv.gz").write_bytes(gzip.compress(text.encode()))
    plain = take_in(with_path(tmp_path / "small.csv"), home)
    assert take_in(with_path(tmp_path / "small.csv.gz"), home) == plain


@pytest.mark.parametrize("damage", ["half", "checksum", "not gzip"])
def test_a_damaged_gzip_is_told_not_taken_in_part(damage: str, tmp_path: Path, home: Home):
    noise = random.Random(1)  # noqa: S311
    lines = [f"{noise.random() * 1e5},1,car,0" for _ in range(5000)]
    packed = gzip.compress(small_book(*lines).encode())
    broken = {"half": packed[: len(packed) // 2], "checksum": packed[:-4], "not gzip": b"amount,\n"}
    path = tmp_path / "small.csv.gz"
    path.write_bytes(broken[damage])
    told = error_of(with_path(path), home)
    assert f"{path} cannot be read: " in told
    assert "Check that the file is complete" in told
    assert not home.partitions("small", "raw_loans")


def test_a_parquet_book_gives_what_the_csv_gives(tmp_path: Path, home: Home):
    (tmp_path / "small.csv").write_text(small_book(*good_lines(50)))
    columns = list(zip(*(line.split(",") for line in good_lines(50)), strict=True))
    pq.write_table(
        pa.table(
            {
                "status": pa.array([int(v) for v in columns[3]]),
                "purpose": columns[2],
                "years": pa.array([int(v) for v in columns[1]]),
                "amount": pa.array([int(v) for v in columns[0]]),
            }
        ),
        tmp_path / "small.parquet",
    )
    parquet = take_in(with_path(tmp_path / "small.parquet"), home)
    assert parquet == take_in(with_path(tmp_path / "small.csv"), home)


@pytest.mark.parametrize("name", ["it's.csv", "book [1].csv", "a*b.csv", "with space.csv"])
def test_odd_file_names_are_read(name: str, tmp_path: Path, home: Home):
    (tmp_path / name).write_text(small_book(*good_lines(5)))
    assert take_in(with_path(tmp_path / name), home).rows == 5


def months_of(taken: Taken) -> dict[str, str]:
    return {row["application_id"]: f"{row['applied_at']:%Y-%m}" for row in taken.accepted}


def test_replay_deals_by_content_never_by_position(data: Path, home: Home):
    lines = good_lines(300)
    path = data / "small.csv"
    path.write_text(small_book(*lines))
    first = months_of(take_in(DEALT, home))
    assert len(first) == 300
    sizes = [list(first.values()).count(month) for month in ("2024-11", "2024-12", "2025-01")]
    assert sum(sizes) == 300
    assert min(sizes) > 70, "rows are dealt evenly"

    random.Random(3).shuffle(lines)  # noqa: S311
    path.write_text(small_book(*lines))
    assert months_of(take_in(DEALT, home)) == first

    path.write_text(small_book(*(f"{50_000 + n},1,home,0" for n in range(50)), *lines))
    longer = months_of(take_in(DEALT, home))
    assert len(longer) == 350
    assert first.items() <= longer.items()


def test_another_seed_deals_otherwise(data: Path, home: Home):
    (data / "small.csv").write_text(small_book(*good_lines(200)))
    replay = DEALT.time.replay
    assert replay is not None
    reseeded = DEALT.model_copy(
        update={
            "time": DEALT.time.model_copy(update={"replay": replay.model_copy(update={"seed": 8})})
        }
    )
    first, second = months_of(take_in(DEALT, home)), months_of(take_in(reseeded, home))
    assert first.keys() == second.keys()
    assert first != second


@pytest.fixture
def monthly(tmp_path: Path) -> tuple[Path, Contract]:
    """Home loans with a file a month."""
    rows: dict[str, list[Row]] = {}
    for row in home_loans.rows(600):
        rows.setdefault(row["applied_at"][:7], []).append(row)
    for month, those in rows.items():
        home_loans.write_csv(tmp_path / month / "home.csv", those)
    path = tmp_path / "{partition}" / "home.csv"
    return tmp_path, home_loans.contract(source={"path": str(path)})


def test_a_file_a_month_is_read_for_its_month(monthly: tuple[Path, Contract], home: Home):
    _, contract = monthly
    taken = take_in(contract, home, home_loans.MONTHS)
    assert (taken.rows, len(taken.accepted)) == (600, 600)
    assert set(taken.admissions) == set(home_loans.MONTHS)


def test_a_month_whose_file_is_missing_says_which(monthly: tuple[Path, Contract], home: Home):
    folder, contract = monthly
    (folder / "2024-03" / "home.csv").unlink()
    with pytest.raises(SourceError, match="the file of 2024-03 is missing; looked at") as raised:
        take_in(contract, home, ["2024-03"])
    assert str(folder / "2024-03" / "home.csv") in str(raised.value)


def test_a_folder_of_months_that_is_missing_is_told(tmp_path: Path, home: Home):
    contract = home_loans.contract(source={"path": str(tmp_path / "no" / "{partition}.csv")})
    with pytest.raises(SourceError, match="is missing; looked at"):
        locate(contract, home)


def test_mixed_line_ends_are_read(tmp_path: Path, home: Home):
    """DuckDB's own message on them quotes an applicant's line."""
    path = tmp_path / "small.csv"
    path.write_bytes((HEADER + "271828,1,home,0\n").encode() + b"3,1,car,0\r\n1,1,home,0\n")
    assert len(take_in(with_path(path), home).accepted) == 3


def test_a_book_that_was_found_is_not_a_stand_in(data: Path, home: Home):
    (data / "small.csv").write_text(HEADER)
    assert locate(REPLAYED, home) == Location.of_file(data / "small.csv")


def with_source(**source: str) -> Contract:
    return Contract.model_validate(REPLAYED.model_dump() | {"source": source})


def test_a_glob_is_one_book(data: Path, home: Home):
    for name, lines in (("b.csv", good_lines(30)[10:]), ("a.csv", good_lines(10))):
        (data / name).write_text(small_book(*lines))
    (data / "small.csv").write_text(small_book(*good_lines(30)))
    several = take_in(with_source(path="?.csv"), home)
    assert several == take_in(REPLAYED, home)
    told = error_of(with_source(path="*.parquet"), home)
    assert f"data file *.parquet is missing; looked at {data / '*.parquet'}" in told


def test_a_database_and_object_storage_are_there_once_configured(
    home: Home, credit_risk: Contract, monkeypatch: pytest.MonkeyPatch
):
    """Only where nothing is configured does a simulated book stand in."""
    away = with_source(path="s3://books/loans.csv")
    assert locate(away, home) == Location(away.source, simulated=False)

    source = {"url": "postgresql://me:${BOOK_PASSWORD}@db/books", "table": "loans"}
    with pytest.raises(SourceError, match=r"BOOK_PASSWORD of source.url is not set"):
        locate(with_source(**source), home)
    simulated = credit_risk.model_copy(update={"source": with_source(**source).source})
    assert book_of(simulated) is None
    monkeypatch.setenv("BOOK_PASSWORD", "hidden")
    found = book_of(simulated)
    assert found == simulated.source
    assert "hidden" not in repr(found), "a password stays in the environment"


def test_a_table_is_a_book_like_its_file(data: Path, home: Home, new_database: Callable[[], str]):
    lines = [*good_lines(40), "broken"]
    (data / "small.csv").write_text(small_book(*lines))
    url = new_database()
    migrate(REPLAYED.source, url, "loans", Console(quiet=True))
    from_file = take_in(REPLAYED, home)
    from_table = take_in(with_source(url=url, table="loans"), home)
    assert from_table.accepted == from_file.accepted
    assert (from_file.rows, from_table.rows) == (41, 40)


def test_dates_place_rows_and_none_is_without_a_month(tmp_path: Path, home: Home):
    dates: list[Any] = ["2024-02-10", "2023-12-31", "", "soon", "infinity", "2024-02-10 23:59:59"]
    rows = [
        {**row, "applied_at": date} for row, date in zip(home_loans.rows(6), dates, strict=True)
    ]
    contract = home_loans_in(tmp_path, rows)
    with open_book(contract, locate(contract, home)) as book:
        # Without a usable date of its own, a row lies where the nearest above it with one does.
        assert book.months() == {"2024-02": 6}
