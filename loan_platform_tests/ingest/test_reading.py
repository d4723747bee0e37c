"""Reading files as text: every value as it stands there, every line in a row or kept aside."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loan_platform.contract.portfolio import Source
from loan_platform.engine import duck
from loan_platform.ingest.reading import stage
from loan_platform.ingest.source import SourceError

Rows = list[tuple[str | None, ...]]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duck.connect() as connection:
        yield connection


def read(
    connection: duckdb.DuckDBPyConnection, paths: list[Path], **options: Any
) -> tuple[list[str], Rows, list[dict[str, Any]]]:
    """Header, rows and malformed lines."""
    header, rejected = stage(
        connection,
        Source(path="book.csv", **options),
        paths,
        lambda relation: f"CREATE OR REPLACE TABLE found AS FROM {relation.sql}",
    )
    return header, connection.execute("FROM found").fetchall(), rejected.to_pylist()


def written(folder: Path, content: str | bytes, name: str = "book.csv") -> list[Path]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [path]


def error_of(paths: list[Path], **options: Any) -> str:
    with duck.connect() as connection, pytest.raises(SourceError) as raised:
        read(connection, paths, **options)
    return str(raised.value)


AWKWARD = st.sampled_from(list("\",;\n\r\t '\\#é€0aN"))
VALUES = st.text(st.one_of(AWKWARD, st.characters(exclude_categories=["Cs"])), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    table=st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=6)
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    malformed=st.booleans(),
)
def test_any_table_is_read_back_exactly(
    connection: duckdb.DuckDBPyConnection,
    table: list[list[str]],
    delimiter: str,
    line_end: str,
    malformed: bool,
):
    """On both ways: the fast one, and the one a malformed line leads to."""
    text = io.StringIO(newline="")
    width = len(table[0]) if table else 2
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerow([f"c{n}" for n in range(width)])
    writer.writerows(table)
    text.write(("malformed" + line_end) * malformed)
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), text.getvalue())
        _, rows, rejected = read(connection, paths, delimiter=delimiter)
    # Whether an empty value is NULL or '' says nothing about a loan.
    assert [[value or "" for value in row] for row in rows] == table
    assert [line["line"] for line in rejected] == ["malformed"] * malformed


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from(["1,2", '"a","b"', '"a,b",c', '"a ""b""",']),
            st.lists(st.sampled_from(["a", ",", '"', " ", "é", ',"', '",']), min_size=1, max_size=8)
            .map("".join),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_every_line_is_in_a_row_or_kept_aside(
    connection: duckdb.DuckDBPyConnection, lines: list[str]
):
    """Around stray quotes DuckDB alone loses lines."""
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), "\n".join(["x,y", *lines, ""]))
        _, rows, rejected = read(connection, paths)
    in_rows = sum(1 + sum((value or "").count("\n") for value in row) for row in rows)
    assert in_rows + len(rejected) == len(lines)
    for line in rejected:
        assert line["line"] == lines[line["_line_number"] - 2]


def test_a_stray_quote_in_a_long_file_costs_its_line_alone(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    """DuckDB alone loses nearly all of it: it keeps 10,000 characters of a malformed line."""
    good = [f"{n},x" for n in range(300_000)]
    lines = [*good[:5], '5,"never closed', *good[5:], '6,"a ""quoted"" value"']
    _, rows, rejected = read(connection, written(tmp_path, "\n".join(["a,b", *lines])))
    assert len(rows) == 300_001
    assert rows[5] == ("5", "x")
    assert rows[-1] == ("6", 'a "quoted" value')
    assert rejected == [
        {
            "_after": 5,
            "_line_number": 7,
            "reason": "malformed line: stray quote",
            "line": '5,"never closed',
        }
    ]


def test_line_ends_within_values_of_a_long_file_neither_make_nor_lose_rows(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    """DuckDB's threads begin somewhere within the file, and the lines of these values look like
    rows; while it notes malformed lines it does not check that the threads agreed."""
    rows = [f'{n},"{chr(10).join(["7,x"] * (n % 9 + 1))}"' for n in range(400_000)]
    paths = written(tmp_path, "\n".join(["a,b", *rows]))
    assert len(read(connection, paths)[1]) == 400_000
    wrong = connection.execute(
        "SELECT count(*) FROM found WHERE len(b) IS DISTINCT FROM 4 * (a::INT % 9 + 1) - 1"
    )
    assert wrong.fetchone() == (0,)


def test_a_field_of_10_mb_is_kept_aside_whole(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    huge = "3," + "x" * 10_000_000
    _, rows, (line,) = read(connection, written(tmp_path, f"a,b\n1,2\n{huge}\n5,6\n"))
    assert rows == [("1", "2"), ("5", "6")]
    assert (line["_after"], line["_line_number"]) == (1, 3)
    assert line["reason"] == "malformed line: longer than 2,000,000 bytes"
    assert line["line"] == huge


def test_many_files_are_one_book_and_a_malformed_line_tells_its_file(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    first = written(tmp_path, "a,b\n1,2\nbad\n3,4\n", "first.csv")
    second = written(tmp_path, "a,b\r\n5,6\r\n7,8,9\r\n", "second.csv")
    header, rows, rejected = read(connection, first + second)
    assert header == ["a", "b"]
    assert rows == [("1", "2"), ("3", "4"), ("5", "6")]
    assert [tuple(line.values()) for line in rejected] == [
        (1, 3, "malformed line: missing columns in first.csv", "bad"),
        (3, 3, "malformed line: too many columns in second.csv", "7,8,9"),
    ]
    other = written(tmp_path, "a,c\n", "third.csv")
    told = error_of(first + other)
    assert f"{other[0]} has another header than {first[0]}: it lacks b; it has c" in told


def test_parquet_files_of_other_types_keep_their_values(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    """Read by the first file's types, 1.5 would become 2."""
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    pq.write_table(pa.table({"a": [1, 2]}), paths[0])
    pq.write_table(pa.table({"a": [1.5, None]}), paths[1])
    assert read(connection, paths)[1] == [("1",), ("2",), ("1.5",), (None,)]
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert f"{paths[0]} or one of 1 more cannot be read" in error_of(paths)


def test_latin_1_is_read_where_it_is_said_and_told_where_it_is_not(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    paths = written(tmp_path, b"a,b\n1,caf\xe9\n2,plain\n")
    assert read(connection, paths, encoding="latin-1")[1] == [("1", "café"), ("2", "plain")]
    _, rows, (line,) = read(connection, paths)
    assert rows == [("2", "plain")]
    assert (line["_line_number"], line["reason"], line["line"]) == (
        2,
        "malformed line: invalid encoding",
        "1,caf\\xe9",
    )
    # Programs of Windows write a euro sign and call it Latin-1; DuckDB alone refuses the file.
    paths = written(tmp_path, b"a,b\n1,\x80 5\n2,\xe9\n3\n")
    _, rows, rejected = read(connection, paths, encoding="latin-1")
    assert (rows, len(rejected)) == ([("1", "€ 5"), ("2", "é")], 1)
    told = error_of(written(tmp_path, b"a,pr\xeat\n1,2\n"))
    assert "Set source.encoding: latin-1" in told


def test_a_header_that_cannot_name_columns_is_told(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    assert "is empty. Its first line must name" in error_of(written(tmp_path, ""))
    assert "begins with a blank line" in error_of(written(tmp_path, "\na,b\n"))
    told = error_of(written(tmp_path, "id,ID,a\n1,2,3\n"))
    assert "more than one column ID, id (capitals make no difference)" in told
    assert read(connection, written(tmp_path, "a,b\n")) == (["a", "b"], [], [])
    assert read(connection, written(tmp_path, ",a,\n1,2,\n"))[:2] == (
        ["column_1", "a"],
        [("1", "2")],
    )
    assert "is in UTF-16" in error_of(written(tmp_path, "a,b\n".encode("utf-16")))
    # DuckDB takes the line end within the name for that of the file, and finds no row.
    found = read(connection, written(tmp_path, '"a\r\nz",b\n1,2\n3\n'))
    assert (found[0], found[1], len(found[2])) == (["a\r\nz", "b"], [("1", "2")], 1)
