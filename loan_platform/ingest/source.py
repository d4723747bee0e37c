"""Finds a portfolio's book and stages it: every row once, as text, with its month and its id.

Here: the file as it arrives. Not here: which rows are admitted (`admission`).
"""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.calendar import KEY_FORMAT, keys, partition_key, window
from loan_platform.contract.portfolio import COPY_MARK
from loan_platform.contract.sql import date, literal, quoted, received
from loan_platform.engine import duck
from loan_platform.engine.home import Home, data_directories


class SourceError(Exception):
    """The book cannot be found or read: says which file, where it was looked for, what to do."""


@dataclass(frozen=True)
class Location:
    """Where the book lies. `simulated`: it is a stand-in drawn from the contract's figures."""

    path: Path
    simulated: bool


def locate(contract: Contract, home: Home) -> Location:
    """Find the source file, or draw the stand-in where no data folder is set.

    Raises:
        SourceError: the file is not where it was looked for.
    """
    path = book_path(contract)
    if path is not None:
        return Location(path, simulated=False)
    drawn = stand_in_path(contract, home)
    if not drawn.is_file():
        from loan_platform.ingest.simulate import write_simulated

        write_simulated(contract, drawn)
    return Location(drawn, simulated=True)


def book_path(contract: Contract) -> Path | None:
    """Where the lender's book lies; None where a stand-in is drawn for want of a data folder.

    Raises:
        SourceError: the file is not where it was looked for, or cannot be looked for.
    """
    wanted = Path(contract.source.path).expanduser()
    if wanted.is_absolute():
        return _existing(contract, [wanted])
    directories = data_directories()
    if directories:
        return _existing(contract, [directory / wanted for directory in directories])
    if contract.simulation is None:
        raise SourceError(
            f"{contract.name}: the book {wanted} cannot be looked for: LOAN_DATA_DIR is not set, "
            "and the contract has no simulation: section to draw a stand-in from. Set "
            "LOAN_DATA_DIR to the folder that holds it, or give source.path as an absolute path."
        )
    return None


def stand_in_path(contract: Contract, home: Home) -> Path:
    """Where the stand-in book lies; a contract that would draw another one has another file."""
    drawn_from = contract.model_dump_json(include={"simulation", "columns", "outcome", "time"})
    digest = hashlib.sha256(drawn_from.encode()).hexdigest()[:12]
    return home.portfolio(contract.name) / "simulated" / f"book-{digest}.csv.gz"


def _existing(contract: Contract, candidates: list[Path]) -> Path:
    for candidate in candidates:
        if contract.source.one_file_a_partition:
            if Path(str(candidate).split("{partition}")[0] + "_").parent.is_dir():
                return candidate
        elif candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise SourceError(
        f"{contract.name}: data file {contract.source.path} is missing; looked at {looked}. "
        "Put the file there, or set LOAN_DATA_DIR to the folder that holds it."
    )


class Book:
    """A source staged in memory, from which months are taken.

    The staged table `book` has every contract column as text, and beside them, under names no
    column can have: `_row` (the record's number in the file, from 1), `_application_id`,
    `_applied_at` (UTC, NULL without a usable date), `_month` ('YYYY-MM') and `_duplicate` (which
    earlier row it repeats; NULL where none).

    `columns_unlisted`: columns of the file that the contract does not have. `simulated`: it is a
    stand-in. `missing`: the file of a month that is not over yet and has none; the book is empty.
    """

    def __init__(
        self,
        contract: Contract,
        connection: duckdb.DuckDBPyConnection,
        columns_unlisted: list[str],
        *,
        simulated: bool = False,
        missing: Path | None = None,
    ) -> None:
        self.contract = contract
        self.connection = connection
        self.columns_unlisted = columns_unlisted
        self.simulated = simulated
        self.missing = missing

    def months(self) -> dict[str, int]:
        """Rows of each month the book reaches, malformed lines included."""
        counted = self.connection.execute(
            "SELECT _month, count(*) FROM (SELECT _month FROM book UNION ALL "
            "SELECT _month FROM malformed) GROUP BY 1 ORDER BY 1"
        ).fetchall()
        return dict(counted)

    def take(self, month: str | None = None) -> pa.Table:
        """Staged rows of one month, or of all, in file order."""
        chosen = f"WHERE _month = {literal(month)}" if month else ""
        return self.connection.sql(f"SELECT * FROM book {chosen} ORDER BY _row").to_arrow_table()

    def malformed(self, month: str) -> pa.Table:
        """Lines no row could be read from: `_line_number` (from 1), `reason`, `line`."""
        return self.connection.sql(
            f"SELECT _line_number, reason, line FROM malformed WHERE _month = {literal(month)} "
            "ORDER BY _line_number"
        ).to_arrow_table()

    def known(self, applications: pa.Table) -> pa.Table:
        """Those of `applications` (`_application_id`) that the book has, in whatever month."""
        self.connection.register("asked", applications)
        try:
            return self.connection.sql(
                "SELECT _application_id FROM asked SEMI JOIN book USING (_application_id)"
            ).to_arrow_table()
        finally:
            self.connection.unregister("asked")


@contextmanager
def open_book(contract: Contract, location: Location, month: str | None = None) -> Iterator[Book]:
    """Stage the book, or the file of `month` where the source has a file a month.

    Raises:
        SourceError: the file cannot be read, or lacks a column of the contract; or the month is
            over and has none.
    """
    path, missing = location.path, None
    if contract.source.one_file_a_partition:
        if month is None:
            raise ValueError("a source with a file a month is opened one month at a time")
        path = Path(str(path).replace("{partition}", month))
        missing = None if path.is_file() else path
        if missing and window(month)[1] <= dt.datetime.now(dt.UTC):
            raise SourceError(
                f"{contract.name}: the file of {month} is missing; looked at {path}. "
                "Put it there and materialize the month again."
            )
    with duck.connect() as connection:
        if missing:
            unlisted = _stage_nothing(contract, connection)
        else:
            unlisted = _stage_text(contract, connection, path)
        _stage_book(contract, connection, month)
        yield Book(contract, connection, unlisted, simulated=location.simulated, missing=missing)


def _stage_nothing(contract: Contract, connection: duckdb.DuckDBPyConnection) -> list[str]:
    texts = ", ".join(f"{quoted(column.name)} VARCHAR" for column in contract.columns)
    connection.execute(f"CREATE TABLE text (_row BIGINT, {texts})")
    _stage_rejected(connection, [])
    return []


def _stage_text(contract: Contract, connection: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Read the file into `text`, its unreadable lines into `rejected`; return unlisted columns."""
    try:
        header, reading = _reading(connection, path)
        _require_columns(contract, header, path)
        texts = ", ".join(
            f"CAST(c{header.index(c.name)} AS VARCHAR) AS {quoted(c.name)}"
            for c in contract.columns
        )
        connection.execute(
            f"CREATE TABLE text AS SELECT row_number() OVER () AS _row, {texts} FROM {reading}"
        )
    except (duckdb.Error, csv.Error, zlib.error, EOFError, OSError) as error:
        # The full message of a CSV error holds the offending line: an applicant's data.
        what = str(error).split("\n")[0].split(": ", 1)[-1]
        raise SourceError(
            f"{contract.name}: {path} cannot be read: {what.rstrip('.')}. "
            "Check that the file is complete and is comma-separated with a header line, or Parquet."
        ) from None
    _stage_rejected(connection, _rejected(connection, path))
    listed = {column.name for column in contract.columns}
    return [name for name in header if name not in listed]


REJECTED = pa.schema(
    [
        ("_after", pa.int64()),
        ("_line_number", pa.int64()),
        ("reason", pa.string()),
        ("line", pa.string()),
    ]
)
"""Lines no row could be read from. `_after`: how many rows were read from the lines before."""


def _stage_rejected(connection: duckdb.DuckDBPyConnection, lines: list[dict[str, Any]]) -> None:
    connection.register("found", pa.Table.from_pylist(lines, schema=REJECTED))
    connection.execute("CREATE TABLE rejected AS FROM found")
    connection.unregister("found")


def _rejected(connection: duckdb.DuckDBPyConnection, path: Path) -> list[dict[str, Any]]:
    """The lines DuckDB could read no row from, as `REJECTED` has them.

    A quote that is never closed swallows the lines after it: each is refused, none vanishes.
    """
    kept = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'"
    ).fetchall()
    records = connection.execute(REJECTED_RECORDS).fetchall() if kept else []
    # DuckDB numbers records: the header is 1, a value with line breaks counts once, a blank line
    # counts although it is no row. It may put line ends before a record to its text.
    leads = [len(text) - len(text.lstrip("\r\n")) for _, _, text, _ in records]
    starts = [byte - 1 + lead for (_, byte, _, _), lead in zip(records, leads, strict=True)]
    found = []
    for before, ((record, _, text, why), (above, blank)) in enumerate(
        zip(records, _lines_above(path, starts), strict=True)
    ):
        lines = [line.rstrip("\r") for line in text.lstrip("\r\n").split("\n")]
        found += [
            {
                "_after": record - 2 - before - blank,
                "_line_number": above + position,
                "reason": f"malformed line: {why}",
                "line": line,
            }
            for position, line in enumerate(lines, 1)
            if line or not any(lines)
        ]
    return found


REJECTED_RECORDS = """
SELECT line, min(line_byte_position), coalesce(any_value(csv_line), ''),
  string_agg(DISTINCT lower(replace(error_type::VARCHAR, '_', ' ')), ', '
    ORDER BY lower(replace(error_type::VARCHAR, '_', ' ')))
FROM reject_errors GROUP BY line ORDER BY line
"""


def _lines_above(path: Path, starts: list[int]) -> list[tuple[int, int]]:
    """For each byte of the text at which a line begins: the lines above it, and blank ones there.

    A blank line inside a quoted value is counted with them, although it is none to DuckDB.
    """
    if not starts:
        return []
    found = []
    at = lines = blank = 0
    with _opened(path) as file:
        for start in starts:
            while at < start and (line := file.readline()):
                at += len(line)
                lines += 1
                blank += not line.strip()
            found.append((lines, blank))
    return found


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _reading(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[list[str], str]:
    """Column names of the file, and a FROM clause that gives the columns as c0, c1, ..."""
    if path.suffix == ".parquet":
        parquet = f"read_parquet({literal(str(path))})"
        header = [row[0] for row in connection.execute(f"DESCRIBE FROM {parquet}").fetchall()]
        return header, f"{parquet} AS file({', '.join(f'c{i}' for i in range(len(header)))})"
    with (
        _opened(path) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="") as text,
    ):
        header = [name.strip() for name in next(csv.reader(text), [])]
    # Nothing is detected: what a few first lines look like must not decide how the rest is read.
    columns = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(header)))
    return header, (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, delim = ',', "
        f"quote = '\"', escape = '\"', store_rejects = true, columns = {{{columns}}})"
    )


def _require_columns(contract: Contract, header: list[str], path: Path) -> None:
    if twice := [c.name for c in contract.columns if header.count(c.name) > 1]:
        raise SourceError(
            f"{contract.name}: {path} has more than one column {', '.join(twice)}. "
            "Mend the file's header: each name stands there once."
        )
    missing = [c.name for c in contract.columns if c.name not in header]
    if not missing:
        return
    hints = []
    for name in missing:
        near = difflib.get_close_matches(name, header, n=1)
        hints.append(f"{name} (did it become {near[0]}?)" if near else name)
    raise SourceError(
        f"{contract.name}: {path} lacks the column{'s' if len(missing) > 1 else ''} "
        f"{', '.join(hints)}. Mend the file's header, or the contract's columns."
    )


def _stage_book(
    contract: Contract, connection: duckdb.DuckDBPyConnection, month: str | None
) -> None:
    """Give every staged row its id, time and month, and name the earlier row it repeats."""
    # Without the outcome: a corrected label makes no other application of it, so the row keeps
    # its id, its month in a replay, and its part in training.
    content = "concat_ws(chr(31), {})".format(
        ", ".join(
            f"coalesce({received(c.name)}, '')" for c in contract.columns if c.role != "outcome"
        )
    )
    key = contract.key_column
    identity = received(key.name) if key else f"'row-' || substr(md5({content}), 1, 20)"
    moment = _replayed(contract, content) if contract.time.replay else _dated(contract)
    outcome = received(contract.outcome_column.name)
    if contract.duplicates == "keep":
        application = f"_id || CASE WHEN _turn > 1 THEN {literal(COPY_MARK)} || _turn ELSE '' END"
        duplicate = "CAST(NULL AS VARCHAR)"
    else:
        application = "_id"
        duplicate = (
            "CASE WHEN _turn > 1 AND _id IS NOT NULL THEN 'duplicate of row ' || _first || "
            f"CASE WHEN {outcome} IS DISTINCT FROM _first_outcome "
            "THEN ' with another outcome' ELSE '' END END"
        )
    connection.execute(
        f"CREATE TABLE identified AS SELECT * EXCLUDE (_id, _turn, _first, _first_outcome), "
        f"{application} AS _application_id, {duplicate} AS _duplicate FROM ("
        "SELECT *, row_number() OVER same AS _turn, first_value(_row) OVER same AS _first, "
        f"first_value({outcome}) OVER same AS _first_outcome "
        f"FROM (SELECT *, {identity} AS _id, {moment} AS _applied_at FROM text) "
        "WINDOW same AS (PARTITION BY _id ORDER BY _row))"
    )
    connection.execute("DROP TABLE text")
    if month is not None:
        row_month = line_month = literal(month)
        near = ""
    elif contract.time.replay:
        row_month = f"strftime(_applied_at, {literal(KEY_FORMAT)})"
        line_month = f"strftime({_replayed(contract, 'line')}, {literal(KEY_FORMAT)})"
        near = ""
    else:
        row_month, line_month, near = _beside_dated_rows(contract, connection)
    connection.execute(
        f"CREATE TABLE book AS SELECT identified.*, {row_month} AS _month FROM identified "
        + near.format("identified._row")
    )
    connection.execute(
        f"CREATE TABLE malformed AS SELECT rejected.*, {line_month} AS _month FROM rejected "
        + near.format("rejected._after")
    )
    connection.execute("DROP TABLE identified")


def _beside_dated_rows(
    contract: Contract, connection: duckdb.DuckDBPyConnection
) -> tuple[str, str, str]:
    """The months of rows and of malformed lines of a dated book, and the join both need.

    What has no usable date lies in the month of the nearest row above that has one: what a
    delivery brought is looked for in the month it was delivered for. A row dated after the
    current month lies in the current one. Admission refuses them all there: every row of the
    book is in a month that exists.
    """
    first = partition_key(contract.time.first_day)
    last = max(first, partition_key(dt.datetime.now(dt.UTC)))
    begin, end = (
        f"TIMESTAMPTZ {literal(moment.isoformat())}"
        for moment in (window(first)[0], window(last)[1])
    )
    connection.execute(
        f"CREATE TABLE usable AS SELECT _row, strftime(_applied_at, {literal(KEY_FORMAT)}) AS "
        f"_near FROM identified WHERE _applied_at >= {begin} AND _applied_at < {end}"
    )
    beside = f"coalesce(_near, {literal(first)})"
    return (
        f"CASE WHEN _applied_at >= {end} THEN {literal(last)} ELSE {beside} END",
        beside,
        "ASOF LEFT JOIN usable ON {} >= usable._row",
    )


def _replayed(contract: Contract, content: str) -> str:
    """The moment a row of a book without dates is dealt to: a hash of its content decides."""
    replay = contract.time.replay
    assert replay is not None
    months = keys(replay.start, replay.periods)
    starts = ", ".join(str(int(window(key)[0].timestamp())) for key in months)
    lengths = ", ".join(
        str(int((window(key)[1] - window(key)[0]).total_seconds())) for key in months
    )
    salted = f"{literal(str(replay.seed))} || ':' || {content}"
    turn = f"(md5_number_lower({salted}) % {replay.periods} + 1)::BIGINT"
    second = f"(md5_number_upper({salted}) % [{lengths}][{turn}])::BIGINT"
    return f"to_timestamp([{starts}][{turn}] + {second})"


def _dated(contract: Contract) -> str:
    """The moment of a row of a dated book, NULL where there is no usable date."""
    column = contract.time_column
    assert column is not None
    return f"CAST({date(received(column.name))} AS TIMESTAMPTZ)"
