"""Bringing a source here: whole and in order, or an error that says what, where, how to mend."""

from __future__ import annotations

import gzip
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from loan_platform.contract.portfolio import Source
from loan_platform.engine import duck
from loan_platform.ingest.fetch import fetched
from loan_platform.ingest.reading import stage
from loan_platform.ingest.source import MissingFile, SourceError
from loan_platform_tests.ingest.object_storage import Bucket
from loan_platform_tests.ingest.object_storage import bucket as bucket
from loan_platform_tests.ingest.object_storage import object_storage as object_storage

NewDatabase = Callable[[], str]


def contents(source: Source, month: str | None = None) -> list[bytes]:
    with fetched(source, month) as files:
        return [file.read_bytes() for file in files]


def rows_of(source: Source) -> list[tuple[Any, ...]]:
    with fetched(source) as files, duck.connect() as connection:
        stage(
            connection,
            source,
            files,
            lambda relation: f"CREATE OR REPLACE TABLE found AS FROM {relation.sql}",
        )
        return connection.execute("FROM found").fetchall()


def error_of(source: Source, month: str | None = None) -> str:
    with pytest.raises(SourceError) as raised, fetched(source, month):
        pass
    return str(raised.value)


# Files


def test_a_glob_gives_its_files_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    assert contents(Source(path="*.csv")) == [b"a.csv", b"b.csv"]
    assert contents(Source(path=str(tmp_path / "[ab].csv"))) == [b"a.csv", b"b.csv"]


def test_a_file_a_month_may_be_many(tmp_path: Path):
    for name in ("2024-01/a.csv", "2024-01/b.csv", "2024-02/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = Source(path=str(tmp_path / "{partition}" / "*.csv"))
    assert contents(source, "2024-01") == [b"2024-01/a.csv", b"2024-01/b.csv"]
    with pytest.raises(MissingFile, match="the file of 2024-03 is missing; looked at"):
        contents(source, "2024-03")


def renamed_over(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other.csv")
    other.write_text("a,b\n3,4\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def added_to(path: Path) -> None:
    with path.open("a") as file:
        file.write("3,4\n")


def removed(path: Path) -> None:
    path.unlink()
    raise SourceError("what a reader says of a file that is gone")


@pytest.mark.parametrize("meanwhile", [renamed_over, added_to, removed])
def test_a_file_that_is_replaced_while_it_is_read_is_not_taken(
    meanwhile: Callable[[Path], None], tmp_path: Path
):
    path = tmp_path / "book.csv"
    path.write_text("a,b\n1,2\n")
    with (
        pytest.raises(SourceError, match=r"book.csv was replaced while it was read; materialize"),
        fetched(Source(path=str(path))) as (file,),
    ):
        meanwhile(file)


# Object storage


def test_objects_are_read_like_files(bucket: Bucket):
    packed = gzip.compress(b"a,b\n1,2\n")
    url = bucket.put("books/2024/loans.csv.gz", packed)
    with fetched(Source(path=url)) as (file,):
        assert (file.name, file.read_bytes()) == ("loans.csv.gz", packed)
        assert stat.S_IMODE(file.parents[1].stat().st_mode) == 0o700
    assert not file.exists()

    bucket.put("books/2023/loans.csv.gz", b"earlier")
    bucket.put("books/2023/deep/loans.csv.gz", b"a star does not reach over a slash")
    pattern = f"s3://{bucket.name}/books/*/loans.csv.gz"
    assert contents(Source(path=pattern)) == [b"earlier", packed]
    monthly = Source(path=f"s3://{bucket.name}/books/{{partition}}/loans.csv.gz")
    assert contents(monthly, "2023") == [b"earlier"]


def test_the_address_may_name_the_endpoint(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    url = bucket.put("loans.csv", b"a,b\n")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert contents(Source(path=f"{url}?endpoint_override={bucket.endpoint}")) == [b"a,b\n"]
    assert "unknown option secret" in error_of(Source(path=f"{url}?secret=hidden"))


def test_what_object_storage_does_not_give_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    url = bucket.put("loans.csv", b"a,b\n")
    missing = f"s3://{bucket.name}/other.csv"
    assert f"object {missing} is missing" in error_of(Source(path=missing))
    assert "is missing" in error_of(Source(path="s3://no-such-bucket/*.csv"))
    with pytest.raises(MissingFile):
        contents(Source(path=f"s3://{bucket.name}/{{partition}}.csv"), "2024-01")

    bucket.check_keys(True)
    try:
        refused = error_of(Source(path=url))
    finally:
        bucket.check_keys(False)
    assert f"{url} cannot be read" in refused
    assert "AWS_ACCESS_KEY_ID" in refused
    assert "secret-of-someone" not in refused

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert f"{url} cannot be read" in error_of(Source(path=url))


# PostgreSQL


@contextmanager
def cursor_of(url: str) -> Iterator[Any]:
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def test_a_table_is_read_in_the_order_of_its_key(new_database: NewDatabase):
    url = new_database()
    with cursor_of(url) as cursor:
        cursor.execute('CREATE SCHEMA "Old books"')
        cursor.execute(
            'CREATE TABLE "Old books".loans (note text, "Id" int PRIMARY KEY, paid boolean, at '
            "timestamptz, amount numeric)"
        )
        cursor.execute(
            """INSERT INTO "Old books".loans VALUES ('a "b", c' || chr(10) || 'é', 2, true,
            '2024-01-01 12:00+02', 1.50), (NULL, 1, false, NULL, NULL), ('', 3, NULL, NULL, 0)"""
        )
    expected = [
        (None, "1", "f", None, None),
        ('a "b", c\né', "2", "t", "2024-01-01 10:00:00+00", "1.50"),
        ("", "3", None, None, "0"),
    ]
    found = rows_of(Source(url=url, table="Old books.loans"))
    assert [tuple(value or None for value in row) for row in found] == [
        tuple(value or None for value in row) for row in expected
    ]
    query = 'SELECT "Id", 1 AS one FROM "Old books".loans WHERE "Id" > 1 ORDER BY 1 DESC; '
    assert rows_of(Source(url=url, query=query)) == [("3", "1"), ("2", "1")]


def test_a_database_that_does_not_answer_as_asked_is_told(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
):
    url = new_database()
    with cursor_of(url) as cursor:
        cursor.execute("CREATE TABLE loans (a int)")
    assert "did you mean loans?" in error_of(Source(url=url, table="loan"))
    told = error_of(Source(url=url, query="SELECT b FROM loans"))
    assert 'column "b" does not exist. Check the table or query' in told
    assert "read-only transaction" in error_of(
        Source(url=url, query="DELETE FROM loans RETURNING a")
    )

    monkeypatch.setenv("BOOK_PASSWORD", "p@ss:word")
    away = Source(url="postgresql://me:${BOOK_PASSWORD}@127.0.0.1:9/db", table="loans")
    assert "write special characters of a password as %40" in error_of(away)
    monkeypatch.setenv("BOOK_PASSWORD", "hidden")
    told = error_of(away)
    assert "table loans at 127.0.0.1/db" in told
    assert "Check that the server runs" in told
    assert "hidden" not in told
    monkeypatch.delenv("BOOK_PASSWORD")
    assert "environment variable BOOK_PASSWORD, which is not set" in error_of(away)


def test_a_database_that_goes_away_midway_leaves_nothing_half_read(new_database: NewDatabase):
    """The server ends the connection after the first rows have come."""
    url = new_database()
    slow = "SELECT n, repeat('x', 5000), pg_sleep(0.001) FROM generate_series(1, 100000) AS n"

    def end_it() -> None:
        with cursor_of(url) as cursor:
            ended = False
            while not ended:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE "
                    "'COPY%%' AND clock_timestamp() > query_start + interval '0.5 s'"
                )
                ended = cursor.fetchone() is not None

    ending = threading.Thread(target=end_it, daemon=True)
    ending.start()
    told = error_of(Source(url=url, query=slow))
    ending.join(10)
    assert "query at" in told
    assert "The connection was lost; nothing of it is kept. Run it again." in told
