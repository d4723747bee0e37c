"""DuckDB, in memory only: no database file is ever shared between processes."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

THREADS = 2


def connect() -> duckdb.DuckDBPyConnection:
    """A private in-memory connection: UTC, no extension ever downloaded."""
    connection = duckdb.connect(
        config={
            "threads": THREADS,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def query(sql: str, **relations: pa.Table) -> pa.Table:
    """Run one statement over Arrow tables, each named in the SQL as its keyword."""
    with connect() as connection:
        for name, table in relations.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table()


def parquet(*files: Path) -> str:
    """A FROM clause over Parquet files of one schema."""
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}])"
