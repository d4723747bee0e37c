"""Finds a portfolio's book and stages it: every row once, as text, with its month and its id.

Here: the file as it arrives. Not here: which rows are admitted (`admission`).
"""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.calendar import KEY_FORMAT, keys, partition_key, window
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
    wanted = Path(contract.source.path).expanduser()
    if wanted.is_absolute():
        return Location(_existing(contract, [wanted]), simulated=False)
    directories = data_directories()
    if directories:
        return Location(
            _existing(contract, [directory / wanted for directory in directories]), simulated=False
        )
    if contract.simulation is None:
        raise SourceError(
            f"{contract.name}: the book {wanted} cannot be looked for: LOAN_DATA_DIR is not set, "
            "and the contract has no simulation: section to draw a stand-in from. Set "
            "LOAN_DATA_DIR to the folder that holds it, or give source.path as an absolute path."
        )
    drawn = stand_in_path(contract, home)
    if not drawn.is_file():
        from loan_platform.ingest.simulate import write_simulated

        write_simulated(contract, drawn)
    return Location(drawn, simulated=True)


def stand_in_path(contract: Contract, home: Home) -> Path:
    """Where the stand-in book lies; other figures in the contract, another file."""
    drawn_from = contract.model_dump_json(include={"simulation", "columns", "outcome", "time"})
    figures = hashlib.sha256(drawn_from.encode()).hexdigest()[:12]
    return home.portfolio(contract.name) / "simulated" / f"book-{figures}.csv.gz"


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
    column can have: `_row` (1-based, in file order), `_application_id`, `_applied_at` (UTC),
    `_month` ('YYYY-MM'), `_origin` ('book', or 'simulated' for a stand-in) and `_duplicate` (of
    which earlier row of the whole book it is one, as a reason, or NULL).
    """

    def __init__(
        self,
        contract: Contract,
        connection: duckdb.DuckDBPyConnection,
        columns_unlisted: list[str],
        simulated: bool,
    ) -> None:
        self.contract = contract
        self.connection = connection
        self.columns_unlisted = columns_unlisted
        self.simulated = simulated

    def ids(self) -> pa.Table:
        """`_application_id` of every row, whatever its month."""
        return self.connection.sql("SELECT DISTINCT _application_id FROM book").to_arrow_table()

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
        """Lines no row could be read from: `number` (of the line in the file), `reason`, `line`."""
        return self.connection.sql(
            f"SELECT number, _origin, reason, line FROM malformed WHERE _month = {literal(month)} "
            "ORDER BY number"
        ).to_arrow_table()


@contextmanager
def open_book(contract: Contract, location: Location, month: str | None = None) -> Iterator[Book]:
    """Stage the book, or the file of `month` where the source has a file a month.

    Raises:
        SourceError: the file cannot be read, or lacks a column of the contract.
    """
    path = location.path
    if contract.source.one_file_a_partition:
        if month is None:
            raise ValueError("a source with a file a month is opened one month at a time")
        path = Path(str(path).replace("{partition}", month))
    with duck.connect() as connection:
        if month and not path.is_file():
            _stage_nothing(contract, connection, path, month)
            unlisted = []
        else:
            unlisted = _stage_text(contract, connection, path)
        _stage_book(contract, connection, month, "simulated" if location.simulated else "book")
        yield Book(contract, connection, unlisted, location.simulated)


def _stage_nothing(
    contract: Contract, connection: duckdb.DuckDBPyConnection, path: Path, month: str
) -> None:
    """Stage an empty book for a month that is not over: its file is still to come.

    Raises:
        SourceError: the month is over, so its file should be there.
    """
    if window(month)[1] <= dt.datetime.now(dt.UTC):
        raise SourceError(
            f"{contract.name}: the file of {month} is missing; looked at {path}. "
            "Put it there and materialize the month again."
        )
    columns = ", ".join(f"{quoted(column.name)} VARCHAR" for column in contract.columns)
    connection.execute(f"CREATE TABLE text (_row BIGINT, {columns})")
    connection.execute(NOTHING_REJECTED_SQL)


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
    kept_rejects = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reject_errors'"
    ).fetchone()
    connection.execute(REJECTED_SQL if kept_rejects and kept_rejects[0] else NOTHING_REJECTED_SQL)
    listed = {column.name for column in contract.columns}
    return [name for name in header if name not in listed]


NOTHING_REJECTED_SQL = "CREATE TABLE rejected (number BIGINT, reason VARCHAR, line VARCHAR)"

# A quote that is never closed swallows the lines after it: each of them is refused, none vanishes.
REJECTED_SQL = """
CREATE TABLE rejected AS
WITH records AS (
  SELECT line AS first,
    string_split(replace(coalesce(any_value(csv_line), ''), chr(13), ''), chr(10)) AS lines,
    string_agg(DISTINCT lower(replace(error_type::VARCHAR, '_', ' ')), ', '
      ORDER BY lower(replace(error_type::VARCHAR, '_', ' '))) AS why
  FROM reject_errors GROUP BY line
), spread AS (
  SELECT first, why, generate_subscripts(lines, 1) AS position, unnest(lines) AS line FROM records
)
SELECT first + position - 1 AS number, 'malformed line: ' || why AS reason, line
FROM spread WHERE position = 1 OR line <> ''
"""


def _reading(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[list[str], str]:
    """Column names of the file, and a FROM clause that gives the columns as c0, c1, ..."""
    if path.suffix == ".parquet":
        parquet = f"read_parquet({literal(str(path))})"
        header = [row[0] for row in connection.execute(f"DESCRIBE FROM {parquet}").fetchall()]
        return header, f"{parquet} AS file({', '.join(f'c{i}' for i in range(len(header)))})"
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
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
    contract: Contract, connection: duckdb.DuckDBPyConnection, month: str | None, origin: str
) -> None:
    """Give every staged row its id, time and month, and say of which row it is a duplicate."""
    # Without the outcome: a label that is corrected later moves a loan nowhere.
    content = "concat_ws(chr(31), {})".format(
        ", ".join(
            f"coalesce({received(c.name)}, '')" for c in contract.columns if c.role != "outcome"
        )
    )
    key = contract.key_column
    identity = received(key.name) if key else f"'row-' || substr(md5({content}), 1, 20)"
    if contract.time.replay:
        moment = _replayed(contract, content)
    else:
        assert contract.time_column is not None
        moment = f"CAST({date(received(contract.time_column.name))} AS TIMESTAMPTZ)"
    connection.execute(
        f"CREATE TABLE placed AS SELECT *, {identity} AS _id, {moment} AS _dated FROM text"
    )
    _place(contract, connection, month)
    again = "_id IS NOT NULL AND _row > min(_row) OVER same"
    if contract.duplicates == "keep":
        # Behind a '#', which the split of a training leaves out: twins stay on one side of it.
        turn = "row_number() OVER (PARTITION BY _id ORDER BY _row)"
        identity, duplicate = f"_id || CASE WHEN {turn} > 1 THEN '#' || {turn} ELSE '' END", "NULL"
    else:
        outcome = received(contract.outcome_column.name)
        other = f"{outcome} IS DISTINCT FROM first({outcome} ORDER BY _row) OVER same"
        identity = "_id"
        duplicate = (
            f"CASE WHEN {again} THEN 'duplicate of row ' || min(_row) OVER same || "
            f"CASE WHEN {other} THEN ' with another outcome' ELSE '' END END"
        )
    connection.execute(
        f"CREATE TABLE book AS SELECT * EXCLUDE (_id, _dated), {identity} AS _application_id, "
        f"{literal(origin)} AS _origin, {duplicate} AS _duplicate FROM placed "
        "WINDOW same AS (PARTITION BY _id)"
    )
    connection.execute(
        f"ALTER TABLE malformed ADD COLUMN _origin VARCHAR DEFAULT {literal(origin)}"
    )


def _place(contract: Contract, connection: duckdb.DuckDBPyConnection, month: str | None) -> None:
    """Put every row and every malformed line into a month there is: none is ever without one.

    A row dated before the book or after today lies in the first month or the current one, where
    admission refuses it. One without a usable date, or a malformed line, lies where the row above
    it does (found by counting lines, so a little further down where values hold line breaks).
    """
    first_month = month or partition_key(contract.time.first_day)
    first = f"TIMESTAMPTZ {literal(window(first_month)[0].isoformat())}"
    # A replay's months are not held against today: they are dealt, not dated.
    last = "'infinity'" if contract.time.replay else literal(dt.datetime.now(dt.UTC).isoformat())

    def within(moment: str) -> str:
        return f"least(greatest({moment}, {first}), TIMESTAMPTZ {last})"

    above = "last_value(_dated IGNORE NULLS) OVER (ORDER BY _row)"
    placed = (
        literal(month) if month else f"strftime({within('_applied_at')}, {literal(KEY_FORMAT)})"
    )
    connection.execute(
        f"CREATE OR REPLACE TABLE placed AS SELECT *, {placed} AS _month FROM (SELECT *, "
        f"coalesce(_dated, {within(f'coalesce({above}, {first})')}) AS _applied_at FROM placed)"
    )
    connection.execute(
        "CREATE TABLE malformed AS SELECT lines.*, "
        f"coalesce(placed._month, {literal(first_month)}) AS _month FROM "
        "(SELECT *, number - 1 - row_number() OVER (ORDER BY number) AS above FROM rejected) lines "
        "ASOF LEFT JOIN placed ON lines.above >= placed._row"
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
