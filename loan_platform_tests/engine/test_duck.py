"""DuckDB as the platform opens it."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet


def test_times_are_utc_whatever_the_machine_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "America/New_York")
    found = duck.query(
        "SELECT TIMESTAMPTZ '2024-01-31 23:30:00+00' AS moment, strftime(moment, '%d') AS day"
    )
    assert found["moment"].to_pylist() == [dt.datetime(2024, 1, 31, 23, 30, tzinfo=dt.UTC)]
    assert found["day"].to_pylist() == ["31"]


def test_connections_share_nothing():
    with duck.connect() as one, duck.connect() as other:
        one.execute("CREATE TABLE t AS SELECT 1 AS n")
        assert other.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (0,)


def test_what_shares_an_instance_shares_no_relation():
    """Two books are staged at once in one process, each with its own `rows`."""
    with duck.bounded() as one, duck.bounded() as other:
        for number, connection in enumerate((one, other)):
            connection.register("given", pa.table({"n": [number]}))
            connection.execute("CREATE TEMP TABLE rows AS FROM given")
            connection.execute("CREATE TEMP VIEW seen AS SELECT n + 10 AS n FROM rows")
        asked = duck.query("SELECT n + 20 AS n FROM given", given=pa.table({"n": [2]}))
        assert asked["n"].to_pylist() == [22]
        assert one.execute("FROM seen").fetchall() == [(10,)]
        assert other.execute("FROM seen").fetchall() == [(11,)]
    with duck.bounded() as later:
        assert later.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (0,)


def test_nothing_is_ever_downloaded():
    with duck.connect() as connection:
        told = connection.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions'"
        ).fetchall()
    assert dict(told) == {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }


def test_parquet_files_of_any_name_are_read_together(tmp_path: Path):
    files = [tmp_path / "it's 1.parquet", tmp_path / "2.parquet"]
    for number, file in enumerate(files):
        write_parquet(pa.table({"n": [number]}), file)
    found = duck.query(f"SELECT sum(n) AS n FROM {duck.parquet(*files)}")
    assert found["n"].to_pylist() == [1]
