"""Loading files into PostgreSQL: all or nothing, again is harmless, and nothing is lost."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from rich.console import Console

from loan_platform.contract.portfolio import Source
from loan_platform.engine import duck
from loan_platform.ingest.fetch import fetched
from loan_platform.ingest.migrate import migrate
from loan_platform.ingest.reading import stage
from loan_platform.ingest.source import SourceError

FIRST = 'id,Note,paid\n1,"a ""b"",\nc",\n2,é,""\nbroken\n3,x,no\n'
SECOND = "id,Note,paid\n3,x,no\n4,new,yes\n1,again,yes\n2,again,yes\n5,again,no\n"


class Database:
    """A database with a connection that looks into it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg2.connect(url.replace("+psycopg2", ""))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    found = Database(new_database())
    found.connection.autocommit = True
    with closing(found.connection):
        yield found


def load(
    database: Database, path: Path, table: str = "loans", content: str | None = None
) -> tuple[int, str]:
    """Load the file (of new content); return the rows and what was said."""
    if content is not None:
        path.write_text(content)
    said = io.StringIO()
    rows = migrate(Source(path=str(path)), database.url, table, Console(file=said, width=200))
    return rows, said.getvalue()


def read_back(database: Database, table: str) -> list[tuple[Any, ...]]:
    source = Source(url=database.url, table=table)
    with fetched(source) as files, duck.connect() as connection:
        stage(connection, source, files, lambda rows: f"CREATE TABLE found AS FROM {rows.sql}")
        return connection.execute("FROM found").fetchall()


def test_a_file_becomes_a_table_and_again_is_harmless(database: Database, tmp_path: Path):
    path = tmp_path / "loans.csv"
    rows, said = load(database, path, content=FIRST)
    assert rows == 3
    assert "table loans holds 3 rows" in said
    assert "1 malformed, kept in table loans_malformed:" in said
    assert "line 5: malformed line: missing columns" in said
    assert "broken" not in said, "a line is an applicant's; it is not shown"
    assert database.rows('SELECT id, "Note", paid FROM loans ORDER BY _row') == [
        ("1", 'a "b",\nc', None),
        ("2", "é", None),
        ("3", "x", "no"),
    ]
    kept = database.rows("SELECT line_number, reason, line FROM loans_malformed")
    assert kept == [(5, "malformed line: missing columns", "broken")]

    written = database.rows("SELECT xmin, * FROM loans ORDER BY _row")
    rows, said = load(database, path)
    assert rows == 3
    assert "holds these 3 rows already" in said
    assert database.rows("SELECT xmin, * FROM loans ORDER BY _row") == written


def test_other_content_replaces_the_rows_at_once(database: Database, tmp_path: Path):
    path = tmp_path / "loans.csv"
    load(database, path, content=FIRST)
    database.rows("CREATE VIEW report AS SELECT id FROM loans")
    with closing(psycopg2.connect(database.url.replace("+psycopg2", ""))) as before:
        before.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with before.cursor() as reader:
            reader.execute("SELECT 1")
            rows, said = load(database, path, content=SECOND)
            reader.execute("SELECT count(*) FROM loans")
            assert reader.fetchone() == (3,), "who began before sees the rows of before"
    assert rows == 5
    assert "holds 5 rows in place of 3" in said
    assert database.rows("SELECT id FROM report ORDER BY id") == [(n,) for n in "12345"]
    assert database.rows("SELECT * FROM loans_malformed") == []
    # As a source it is the file: its rows, its columns, its order.
    assert [row[0] for row in read_back(database, "loans")] == list("34125")

    path.write_text("id,Note,other\n1,2,3\n")
    with pytest.raises(SourceError, match="has other columns than the file: other, paid"):
        load(database, path)
    assert database.rows("SELECT count(*) FROM loans") == [(5,)]


def test_what_is_not_its_own_is_left_alone(database: Database, tmp_path: Path):
    path = tmp_path / "loans.csv"
    path.write_text("a,b\n1,2\n")
    database.rows('CREATE TABLE loans AS SELECT 7 AS a; CREATE SCHEMA "Odd; --"')
    with pytest.raises(SourceError, match="a table loans that loan-platform did not make"):
        load(database, path)
    assert database.rows("SELECT a FROM loans") == [(7,)]
    odd = 'Odd; --.lo"ans'
    assert load(database, path, odd)[0] == 1
    assert database.rows('SELECT a, b FROM "Odd; --"."lo""ans"') == [("1", "2")]
    for name in ("a.b.c", "", "schema.", "x" * 60):
        with pytest.raises(SourceError, match=r"name of table|no name of a table"):
            load(database, path, name)


def test_a_load_that_fails_leaves_the_rows_of_before(database: Database, tmp_path: Path):
    path = tmp_path / "loans.csv"
    load(database, path, content=SECOND)
    many = "".join(f"{n},x,no\n" for n in range(20_000))
    with pytest.raises(SourceError, match=r"table loans at .*invalid byte sequence") as raised:
        load(database, path, content=f"id,Note,paid\n{many}1,secret\0,no\n")
    assert "secret" not in str(raised.value)
    assert database.rows("SELECT count(*) FROM loans") == [(5,)]
    assert database.rows("SELECT to_regclass('loans_malformed')") == [(None,)]

    database.rows(
        "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'; "
        "CREATE TRIGGER t BEFORE INSERT ON loans FOR EACH ROW WHEN (NEW._row = 9999) "
        "EXECUTE FUNCTION end_it()"
    )
    with pytest.raises(SourceError, match="The connection was lost; nothing of it is kept"):
        load(database, path, content=f"id,Note,paid\n{many}")
    assert database.rows("SELECT count(*) FROM loans") == [(5,)]
