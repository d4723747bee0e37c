"""DuckDB, in memory only: no database file is ever shared between processes.

Here: connections, and the engine that runs the contract's SQL over Parquet files. Not here: what
only staging does in DuckDB's own tongue (`ingest.staging`).
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from loan_platform.engine.files import replacing

THREADS = 2
MEMORY = "400MB"  # of one instance; two of them and Python stay below 1 GB

# Small dictionaries and no bloom filters: most columns are short or all different.
_ENCODING = "PARQUET_VERSION v2, DICTIONARY_SIZE_LIMIT 5000, WRITE_BLOOM_FILTER false"
KEPT = f"COMPRESSION zstd, {_ENCODING}"
PASSING = f"COMPRESSION lz4, {_ENCODING}"  # of files that are read once or twice, then deleted


def connect(*, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A private in-memory connection: UTC, no extension ever downloaded.

    `spill`: a folder for what does not fit into `MEMORY`; without one nothing is limited.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": THREADS,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if spill is not None:
        config |= {
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "enable_external_file_cache": "false",
        }
    connection = duckdb.connect(config=config)
    _set_up(connection)
    return connection


@contextmanager
def bounded() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that stays within `MEMORY`, however many rows there are.

    Its temporary tables and views are its own; the instance is the process's, since opening one
    takes longer than many a statement.
    """
    with _instance(os.getpid())[1].cursor() as connection:
        _set_up(connection)
        yield connection


@functools.cache
def _instance(_process: int) -> tuple[object, duckdb.DuckDBPyConnection]:
    """One for each process: a fork has none of its parent's threads."""
    spill = tempfile.TemporaryDirectory(prefix="loan_platform_")  # deleted when the process ends
    return spill, connect(spill=Path(spill.name))


def _set_up(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    # A Parquet file's statistics leave NaN out, and the optimizer takes them at their word: of a
    # column with 0 and NaN it makes `abs(x) <= 1` true for every row.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")


class DuckEngine:
    """The engine of one machine (see `engine.Engine`): bounded memory, the same bytes each time."""

    def query(self, sql: str, **files: list[Path]) -> pa.Table:
        with over(files) as connection:
            return connection.sql(sql).to_arrow_table()

    def write(self, sql: str, path: Path, **files: list[Path]) -> int:
        with over(files) as connection, replacing(path) as temporary:
            return copy(connection, sql, temporary, KEPT)


def copy(connection: duckdb.DuckDBPyConnection, sql: str, path: Path, options: str) -> int:
    """Write a statement's result as a Parquet file, in its order; return its rows."""
    target = str(path).replace("'", "''")
    copied = connection.execute(f"COPY ({sql}) TO '{target}' (FORMAT parquet, {options})")
    written = copied.fetchone()
    return int(written[0]) if written else 0


@contextmanager
def over(files: dict[str, list[Path]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A bounded connection with a view on each relation's files."""
    with bounded() as connection:
        for name, those in files.items():
            connection.execute(f'CREATE TEMP VIEW "{name}" AS FROM {parquet(*those)}')
        yield connection


def query(sql: str, **relations: pa.Table) -> pa.Table:
    """Run one statement over Arrow tables, each named in the SQL as its keyword."""
    with bounded() as connection:
        for name, table in relations.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table()


def parquet(*files: Path) -> str:
    """A FROM clause over Parquet files of one schema."""
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}])"
