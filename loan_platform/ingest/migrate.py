"""Loads files into a table of PostgreSQL: all of them or nothing, and again is harmless.

Here: a book's move into a database, as it is. Not here: reading such a table (`fetch`).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loan_platform.contract.portfolio import Source
from loan_platform.contract.sql import literal, quoted
from loan_platform.engine import duck
from loan_platform.ingest.fetch import COPY_BYTES, ROW, connected, fetched, table_name
from loan_platform.ingest.reading import TextRelation, stage
from loan_platform.ingest.source import SourceError

if TYPE_CHECKING:
    import psycopg2.extensions
    import pyarrow as pa
    from rich.console import Console

    Cursor = psycopg2.extensions.cursor

MARK = "loan-platform migrate: "
"""Begins the comment on a table made here; after it, as JSON, what was loaded."""
LISTED = 20
SAY_EVERY_SECONDS = 5.0
MALFORMED = {ROW: "bigint", "line_number": "bigint", "reason": "text", "line": "text"}


def migrate(source: Source, url: str, table: str, say: Console) -> int:
    """Make `table` hold the rows of the source's files; return how many it holds.

    Every column is text, an empty value NULL; `_row` (the primary key) keeps the order.
    Malformed lines go to `<table>_malformed`. All happens in one transaction: who reads meanwhile
    sees the rows of before. The same files again change nothing; other files of the same columns
    replace the rows.

    Raises:
        SourceError: the files or the database cannot be read or written; or there is a table of
            that name with other columns, or that was not made here.
    """
    if source.path is None:
        raise SourceError("a file is loaded into a database, and this is none. Give its path.")
    table_name(table)
    if len(table.rpartition(".")[2].encode()) > 63 - len("_malformed"):
        raise SourceError(f"the name of table {table} is too long. Choose one of 53 bytes at most.")
    with fetched(source) as paths, tempfile.TemporaryDirectory(prefix="loan_platform_") as folder:
        content = _hash(source, paths)
        with connected(url, f"table {table}") as connection, connection.cursor() as cursor:
            connection.set_client_encoding("UTF8")
            # One at a time; a table that is still to be made cannot be locked itself.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (MARK + table,))
            before = _loaded(cursor, table)
            if before and before["content"] == content and before["rows"] == _count(cursor, table):
                rows: int = before["rows"]
                say.print(f"table {table} holds these {rows:,} rows already; nothing is changed")
                return rows
            say.print(f"reading {source.name}")
            file = Path(folder) / "rows.csv"
            header, rejected = _write_rows(source, paths, file)
            _make(cursor, table, dict.fromkeys(header, "text"))
            rows = _load(cursor, table, header, file, say)
            if rejected.num_rows or _loaded(cursor, table + "_malformed"):
                _keep_malformed(cursor, table + "_malformed", rejected)
            _mark(cursor, table, {"content": content, "rows": rows})
            connection.commit()
    replaced = f" in place of {before['rows']:,}" if before else ""
    say.print(f"table {table} holds {rows:,} rows{replaced}")
    _tell_malformed(table, rejected, say)
    return rows


def _hash(source: Source, paths: list[Path]) -> str:
    """Of the files' bytes and of how they are read."""
    digest = hashlib.sha256(json.dumps([source.delimiter, source.encoding]).encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write_rows(source: Source, paths: list[Path], file: Path) -> tuple[list[str], pa.Table]:
    """Write the rows, numbered from 1, as CSV; return the header and the malformed lines."""

    def statement(relation: TextRelation) -> str:
        if long := [name for name in relation.header if len(name.encode()) > 63]:
            raise SourceError(
                f"PostgreSQL allows names of 63 bytes, and a column is called {long[0]}. "
                "Shorten it in the file's header."
            )
        return (
            f"COPY (SELECT row_number() OVER () AS {ROW}, * FROM {relation.sql}) "
            f"TO {literal(str(file))} (FORMAT csv, HEADER false)"
        )

    with duck.connect(spill=file.parent / "spill") as connection:
        return stage(connection, source, paths, statement)


def _loaded(cursor: Cursor, table: str) -> dict[str, Any] | None:
    """What was loaded into a table before; None where there is no such table.

    Raises:
        SourceError: there is one, and it was not made here.
    """
    cursor.execute(
        "SELECT to_regclass(%(name)s)::oid, obj_description(to_regclass(%(name)s), 'pg_class')",
        {"name": table_name(table)},
    )
    number, comment = cursor.fetchone() or (None, None)
    if number is None:
        return None
    if not str(comment).startswith(MARK):
        raise SourceError(
            f"there is a table {table} that loan-platform did not make, and it is left alone. "
            "Choose another name, or drop the table."
        )
    found: dict[str, Any] = json.loads(comment.removeprefix(MARK))
    return found


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(f"SELECT count(*) FROM {table_name(table)}")
    (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def _make(cursor: Cursor, table: str, columns: dict[str, str]) -> None:
    """Make a table, or empty the one of the same columns that there is.

    DELETE, not TRUNCATE: a transaction that began before goes on to see the rows of before.
    """
    name = table_name(table)
    columns = {ROW: "bigint"} | columns
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attnum",
        (name,),
    )
    there = [row[0] for row in cursor.fetchall()]
    if not there:
        listed = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns.items())
        cursor.execute(f"CREATE TABLE {name} ({listed}, PRIMARY KEY ({ROW}))")
    elif there == list(columns):
        cursor.execute(f"DELETE FROM {name}")
    else:
        other = sorted(set(there) ^ set(columns)) or ["another order"]
        raise SourceError(
            f"table {table} has other columns than the file: {', '.join(other)}. "
            "Choose another name, or drop the table."
        )


def _load(cursor: Cursor, table: str, header: list[str], file: Path, say: Console) -> int:
    columns = ", ".join(map(quoted, [ROW, *header]))
    with file.open("rb") as rows, _progress(file.stat().st_size, say) as advance:
        cursor.copy_expert(
            f"COPY {table_name(table)} ({columns}) FROM STDIN WITH (FORMAT csv)",
            _Watched(rows, advance),
            COPY_BYTES,
        )
    return cursor.rowcount


def _keep_malformed(cursor: Cursor, table: str, rejected: pa.Table) -> None:
    from psycopg2.extras import execute_values

    _make(cursor, table, MALFORMED)
    numbers = itertools.count(1)
    lines = (
        (next(numbers), row["_line_number"], row["reason"], row["line"].replace("\0", "\\x00"))
        for batch in rejected.to_batches()
        for row in batch.to_pylist()
    )
    execute_values(cursor, f"INSERT INTO {table_name(table)} VALUES %s", lines, page_size=1000)
    _mark(cursor, table, {"rows": rejected.num_rows})


def _mark(cursor: Cursor, table: str, loaded: dict[str, Any]) -> None:
    cursor.execute(f"COMMENT ON TABLE {table_name(table)} IS %s", (MARK + json.dumps(loaded),))


def _tell_malformed(table: str, rejected: pa.Table, say: Console) -> None:
    """Name the lines; what stands in them is an applicant's and is not shown."""
    if not rejected.num_rows:
        return
    say.print(f"lines: {rejected.num_rows:,} malformed, kept in table {table}_malformed:")
    for row in rejected.slice(0, LISTED).to_pylist():
        say.print(f"  line {row['_line_number']:,}: {row['reason']}", markup=False)
    if rejected.num_rows > LISTED:
        say.print(f"  and {rejected.num_rows - LISTED:,} more")


class _Watched(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: io.BufferedReader, advance: Callable[[int], None]) -> None:
        self.file = file
        self.advance = advance

    def read(self, size: int = -1) -> bytes:
        found = self.file.read(size)
        self.advance(len(found))
        return found


@contextmanager
def _progress(total: int, say: Console) -> Iterator[Callable[[int], None]]:
    """Give what is told of each piece loaded: a bar at a terminal, else a line now and then."""
    if say.is_terminal:
        from rich.progress import Progress

        with Progress(console=say, transient=True) as bar:
            task = bar.add_task("loading", total=total)
            yield lambda size: bar.advance(task, size)
        return
    done = 0
    told = time.monotonic()

    def advance(size: int) -> None:
        nonlocal done, told
        done += size
        if time.monotonic() - told > SAY_EVERY_SECONDS:
            told = time.monotonic()
            say.print(f"loading: {done / max(total, 1):.0%}")

    yield advance
