"""Stages a book: every row once, as text, with its month and its id.

Here: which month a row belongs to, and which earlier row it repeats. Not here: reading the file
(`reading`), which rows are admitted (`admission`).

The source is read once, into one Parquet file of a temporary folder in the order of its rows. What
is asked of the whole book afterwards (months, repeated ids) reads single columns of that file, and
a month is a scan of it that skips what it can. DuckDB's memory is bounded and spills to the same
folder, so a book may be far larger than memory.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys, partition_key, window
from loan_platform.contract.portfolio import COPY_MARK
from loan_platform.contract.sql import literal, quoted, received, written_date
from loan_platform.engine import duck
from loan_platform.ingest.fetch import fetched
from loan_platform.ingest.reading import TextRelation, require_columns, stage
from loan_platform.ingest.sieve import REJECTED
from loan_platform.ingest.source import Location, MissingFile, SourceError

PROVENANCE = (
    "_application_id",
    "_applied_at",
    "_origin",
    "_duplicate",
    "_outside",
)
"""What a staged row carries beside `_row` and its text.

`_applied_at` is UTC, NULL without a usable date. `_duplicate`: which earlier row it repeats.
`_outside`: why it has no place in its month.
"""

STAGED = ("_row", "_place", *PROVENANCE)
"""`_row`: the record's number in the book, from 1. `_place`: its month (`place_of`)."""


class Book:
    """A source staged in a temporary folder, from which months are taken.

    A staged row has every raw column (`raw_columns`) as text, `_row` (the record's number in the
    book, from 1) and `PROVENANCE`.

    `columns_unlisted`: columns of the file that the contract does not have. `simulated`: it is a
    stand-in. `missing`: where the file of a month that is not over yet was looked for in vain; the
    book is empty. `connection` has the relations `book` (staged rows, with `_month` as 'YYYY-MM')
    and `malformed` (`_line_number` from 1, `reason`, `line`, `_month`).
    """

    def __init__(
        self,
        contract: Contract,
        connection: duckdb.DuckDBPyConnection,
        folder: Path,
        columns_unlisted: list[str],
        *,
        simulated: bool = False,
        missing: str | None = None,
    ) -> None:
        self.contract = contract
        self.connection = connection
        self.folder = folder
        self.columns_unlisted = columns_unlisted
        self.simulated = simulated
        self.missing = missing
        self.found: dict[str, Path] = {}
        self._rows_of: dict[str, int] | None = None

    @property
    def origin(self) -> str:
        return "simulated" if self.simulated else "book"

    def months(self) -> dict[str, int]:
        """Rows of each month the book reaches, malformed lines included."""
        if self._rows_of is None:
            counted = self.connection.execute(
                "SELECT _place, sum(n)::BIGINT FROM (SELECT _place, count(*) AS n FROM book "
                "GROUP BY 1 UNION ALL SELECT _place, count(*) FROM lying GROUP BY 1) "
                "GROUP BY 1 ORDER BY 1"
            ).fetchall()
            self._rows_of = {_month_at(place): rows for place, rows in counted}
        return self._rows_of

    def take(self, month: str | None = None) -> pa.Table:
        """Staged rows of one month, or of all, in file order."""
        chosen = f"WHERE _place = {place_of(month)}" if month else ""
        return self.connection.sql(f"SELECT * FROM book {chosen} ORDER BY _row").to_arrow_table()

    def relation(self) -> str:
        """FROM clause of all staged rows, for DuckDB to read as they lie."""
        columns = [*STAGED, *(quoted(name) for name in raw_columns(self.contract))]
        return f"(SELECT {', '.join(columns)} FROM {_placed(self)})"

    def staged(self) -> Path:
        """A Parquet file of the same rows, for any engine to read."""
        path = self.folder / "staged.parquet"
        if not path.is_file():
            duck.copy(self.connection, f"FROM {self.relation()}", path, duck.PASSING)
        return path

    def malformed(self, month: str) -> Path:
        """A Parquet file with the month's lines that no row could be read from, in file order."""
        path = self.folder / f"malformed-{month}.parquet"
        chosen = f"WHERE _month = {literal(month)} ORDER BY _line_number"
        sql = f"SELECT _line_number, reason, line FROM malformed {chosen}"
        duck.copy(self.connection, sql, path, duck.PASSING)
        return path

    def known(self, applications: pa.Table) -> pa.Table:
        """Those of `applications` (`_application_id`) that the book has, in whatever month."""
        self.connection.register("asked", applications)
        try:
            return self.connection.sql(
                "SELECT _application_id FROM asked SEMI JOIN rows USING (_application_id)"
            ).to_arrow_table()
        finally:
            self.connection.unregister("asked")

    def refuse_repeated(self, earlier: Mapping[str, Path]) -> None:
        """Mark rows that were accepted from the files of earlier months (their raw_loans).

        For a source with a file a month; to be called before rows are taken.
        """
        if not earlier or self.contract.duplicates == "keep":
            return
        accepted = " UNION ALL ".join(
            f"SELECT application_id AS id, {literal(month)} AS month FROM {duck.parquet(path)} "
            "WHERE origin <> 'service'"
            for month, path in earlier.items()
        )
        self.keep(
            "before",
            "SELECT _row, min(month) AS month FROM rows "
            f"JOIN ({accepted}) AS accepted ON rows._application_id = accepted.id GROUP BY _row",
        )

    def keep(self, name: str, sql: str) -> None:
        """Keep what was found out about some rows, for `relation` to join, if there are any."""
        path = self.folder / f"{name}.parquet"
        if duck.copy(self.connection, sql, path, duck.PASSING):
            self.found[name] = path
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW book AS FROM {_placed(self)}")


def raw_columns(contract: Contract) -> list[str]:
    """Names of all columns of the file the contract knows, used or not."""
    together = [name for group in contract.ignored for name in group.columns]
    return [*(column.name for column in contract.columns), *together]


@contextmanager
def open_book(
    contract: Contract,
    location: Location,
    month: str | None = None,
) -> Iterator[Book]:
    """Stage the book, or the file of `month` where the source has a file a month.

    Raises:
        SourceError: the file cannot be read, or lacks a column of the contract; or the month is
            over and has none.
    """
    missing = None
    with tempfile.TemporaryDirectory(prefix="loan_platform_") as name:
        folder = Path(name)
        path = folder / "rows.parquet"
        with duck.bounded() as connection:
            try:
                with fetched(location.source, month) as paths:
                    header, rejected = _read(contract, connection, location, paths, path, month)
            except MissingFile as error:
                if month is None or window(month)[1] <= dt.datetime.now(dt.UTC):
                    raise SourceError(f"{contract.name}: {error}") from None
                missing = error.looked_at
                header, rejected = raw_columns(contract), REJECTED.empty_table()
                connection.execute(_rows_sql(contract, _nothing(contract), path, month))
            except SourceError as error:
                raise SourceError(f"{contract.name}: {error}") from None
            book = Book(
                contract,
                connection,
                folder,
                [name for name in header if name not in raw_columns(contract)],
                simulated=location.simulated,
                missing=missing,
            )
            connection.execute(f"CREATE TEMP VIEW rows AS FROM {_rows(folder)}")
            connection.register("found", rejected)
            connection.execute("CREATE TEMP TABLE rejected AS FROM found")
            connection.unregister("found")
            _find_repeated(book)
            _find_beside(book, month)
            yield book


def _rows(folder: Path) -> str:
    file = literal(str(folder / "rows.parquet"))
    return (
        "(SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS _row "
        f"FROM read_parquet({file}, file_row_number = true))"
    )


def _read(
    contract: Contract,
    connection: duckdb.DuckDBPyConnection,
    location: Location,
    files: list[Path],
    path: Path,
    month: str | None,
) -> tuple[list[str], pa.Table]:
    """Write the rows of `files` to `path`; return the header and the malformed lines."""

    def statement(relation: TextRelation) -> str:
        require_columns(contract, relation.header, files)
        return _rows_sql(contract, relation, path, month)

    return stage(connection, location.source, files, statement)


def _nothing(contract: Contract) -> TextRelation:
    names = [column.name for column in contract.columns]
    nulls = ", ".join(f"CAST(NULL AS VARCHAR) AS {quoted(name)}" for name in names)
    return TextRelation(names, f"(SELECT {nulls} WHERE false)")


def _rows_sql(contract: Contract, relation: TextRelation, path: Path, month: str | None) -> str:
    """The one statement that reads the source: each row with its id, moment and place.

    `_place` counts months from the year 0; it is NULL where a row has no usable date.
    """
    texts = ", ".join(
        quoted(name) if name in relation.header else f"CAST(NULL AS VARCHAR) AS {quoted(name)}"
        for name in raw_columns(contract)
    )
    key = contract.key_column
    if key:
        identity = f"SELECT *, {received(key.name)} AS _application_id"
        # A row without its key is refused; its content deals it, so that such rows spread.
        content = f"coalesce(_application_id, {_content(contract)})"
        rows = f"{identity} FROM (SELECT {texts} FROM {relation.sql})"
    else:
        content = "_content"
        rows = (
            "SELECT * EXCLUDE (_said), _said AS _content, "
            "'row-' || substr(md5(_said), 1, 20) AS _application_id "
            f"FROM (SELECT *, {_content(contract)} AS _said "
            f"FROM (SELECT {texts} FROM {relation.sql}))"
        )
    if contract.time.replay:
        left_out = "_deal" if key else "_deal, _content"
        moment, place = _dealt(contract)
        rows = (
            f"SELECT * EXCLUDE ({left_out}), {moment} AS _applied_at, {place} AS _place "
            f"FROM (SELECT *, {_deal(contract, content)} AS _deal FROM ({rows}))"
        )
    else:
        column = contract.time_column
        assert column is not None
        left_out = "_day" if key else "_day, _content"
        if month is not None:
            place = str(place_of(month))
        else:
            first, last = _reach(contract)
            at = "year(_day) * 12 + month(_day) - 1"
            place = f"CASE WHEN {at} > {last} THEN {last} WHEN {at} >= {first} THEN {at} END"
        rows = (
            f"SELECT * EXCLUDE ({left_out}), CAST(_day AS TIMESTAMPTZ) AS _applied_at, "
            f"CAST({place} AS INTEGER) AS _place FROM (SELECT *, "
            f"{written_date(column, received(column.name))} AS _day FROM ({rows}))"
        )
    return f"COPY ({rows}) TO {literal(str(path))} (FORMAT parquet, {duck.PASSING})"


def _content(contract: Contract) -> str:
    """What makes a row of a book without keys the application it is.

    Without the outcome: a corrected label makes no other application of it, so the row keeps its
    id, its month in a replay, and its part in training.
    """
    texts = (f"coalesce({received(c.name)}, '')" for c in contract.columns if c.role != "outcome")
    return f"concat_ws(chr(31), {', '.join(texts)})"


def _deal(contract: Contract, content: str) -> str:
    """128 bits that decide where a row of a book without dates lies."""
    replay = contract.time.replay
    assert replay is not None
    return f"md5_number({literal(str(replay.seed))} || ':' || {content})"


def _dealt(contract: Contract) -> tuple[str, str]:
    """The moment and the place a `_deal` of a replayed book stands for."""
    replay = contract.time.replay
    assert replay is not None
    months = keys(replay.start, replay.periods)
    starts = ", ".join(str(int(window(key)[0].timestamp())) for key in months)
    lengths = ", ".join(
        str(int((window(key)[1] - window(key)[0]).total_seconds())) for key in months
    )
    turn = f"CAST(CAST(_deal >> 64 AS UBIGINT) % {replay.periods} AS INTEGER)"
    rest = f"CAST(_deal & {2**64 - 1} AS UBIGINT)"
    second = f"CAST({rest} % CAST([{lengths}] AS UBIGINT[])[{turn} + 1] AS BIGINT)"
    return (
        f"to_timestamp([{starts}][{turn} + 1] + {second})",
        f"CAST({place_of(months[0])} + {turn} AS INTEGER)",
    )


def _reach(contract: Contract) -> tuple[int, int]:
    """Places of the first and the last month that a dated book may have now."""
    first = place_of(partition_key(contract.time.first_day))
    last = place_of(partition_key(dt.datetime.now(dt.UTC)))
    if contract.time.end:
        last = min(last, place_of(partition_key(contract.time.end)))
    return first, max(first, last)


def place_of(month: str) -> int:
    """A month as a number: months since the year 0."""
    year, number = month.split("-")
    return int(year) * 12 + int(number) - 1


def _month_at(place: int) -> str:
    return f"{place // 12:04d}-{place % 12 + 1:02d}"


def _find_repeated(book: Book) -> None:
    """Find `again`: rows whose id an earlier row has, with its number and which time it is.

    Ids are counted by a hash of 64 bits; only those counted twice are compared as they are.
    """
    outcome = received(book.contract.outcome_column.name)
    book.connection.execute(
        "CREATE TEMP TABLE twice AS SELECT hash(_application_id) AS h FROM rows "
        "WHERE _application_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    )
    book.keep(
        "again",
        "SELECT _row, _turn, _first, _differs FROM ("
        "SELECT _row, row_number() OVER same AS _turn, first_value(_row) OVER same AS _first, "
        "_outcome IS DISTINCT FROM first_value(_outcome) OVER same AS _differs "
        f"FROM (SELECT _row, _application_id, {outcome} AS _outcome FROM rows "
        "WHERE _application_id IS NOT NULL AND hash(_application_id) IN (SELECT h FROM twice)) "
        "WINDOW same AS (PARTITION BY _application_id ORDER BY _row)) WHERE _turn > 1",
    )
    book.connection.execute("DROP TABLE twice")


def _find_beside(book: Book, month: str | None) -> None:
    """Make `malformed`, and find `beside`: places of rows that have none of their own.

    What has no usable date lies in the month of the nearest row above that has one: what a
    delivery brought is looked for in the month it was delivered for. A row dated after the last
    month lies in that one. Admission refuses them all there: every row of the book is in a month
    that exists.
    """
    contract = book.contract
    if month is not None:
        lying = f"SELECT *, {place_of(month)} AS _place FROM rejected"
    elif contract.time.replay:
        deal = f"(SELECT *, {_deal(contract, 'line')} AS _deal FROM rejected)"
        lying = f"SELECT *, {_dealt(contract)[1]} AS _place FROM {deal}"
    else:
        first, last = _reach(contract)
        end = literal(window(_month_at(last))[1].isoformat())
        usable = (
            "(SELECT _row, _place FROM rows WHERE _place IS NOT NULL "
            f"AND _applied_at < TIMESTAMPTZ {end}) AS usable"
        )
        nearest = f"coalesce(usable._place, {first}) AS _place"
        book.keep(
            "beside",
            f"SELECT astray._row, {nearest} "
            "FROM (SELECT _row FROM rows WHERE _place IS NULL) AS astray "
            f"ASOF LEFT JOIN {usable} ON astray._row >= usable._row",
        )
        lying = (
            f"SELECT rejected.*, {nearest} "
            f"FROM rejected ASOF LEFT JOIN {usable} ON rejected._after >= usable._row"
        )
    book.connection.execute(f"CREATE TEMP TABLE lying AS {lying}")
    book.connection.execute(
        "CREATE TEMP VIEW malformed AS "
        f"SELECT _line_number, reason, line, {_MONTH} AS _month FROM lying"
    )


_MONTH = "printf('%04d-%02d', _place // 12, _place % 12 + 1)"


def _placed(book: Book) -> str:
    """FROM clause of the staged rows, with what was found out about them.

    Names files, no tables: any connection can read it.
    """
    contract = book.contract
    joins, place = "", "rows._place"
    application, repeats = "rows._application_id", []
    for name, path in book.found.items():
        joins += f" LEFT JOIN {duck.parquet(path)} AS {name} ON {name}._row = rows._row"
    if "beside" in book.found:
        place = "coalesce(rows._place, beside._place)"
    if "before" in book.found:
        repeats.append("'duplicate of an application of ' || before.month")
    if "again" in book.found and contract.duplicates == "keep":
        application += f" || coalesce({literal(COPY_MARK)} || again._turn, '')"
    elif "again" in book.found:
        repeats.append(
            "'duplicate of row ' || again._first || "
            "CASE WHEN again._differs THEN ' with another outcome' ELSE '' END"
        )
    duplicate = f"coalesce({', '.join(repeats)})" if repeats else "NULL"
    raw = ", ".join(f"rows.{quoted(name)}" for name in raw_columns(contract))
    return (
        f"(SELECT *, {_MONTH} AS _month, CAST({_outside(contract)} AS VARCHAR) AS _outside "
        f"FROM (SELECT rows._row, {application} AS _application_id, rows._applied_at, "
        f"{place} AS _place, {literal(book.origin)} AS _origin, "
        f"CAST({duplicate} AS VARCHAR) AS _duplicate, "
        f"{raw} FROM {_rows(book.folder)} AS rows{joins}))"
    )


def _outside(contract: Contract) -> str:
    """Why a row has no place in its month, whatever it says; or NULL."""
    if contract.time.replay:
        return "NULL"
    at = "year(_applied_at) * 12 + month(_applied_at) - 1"
    if contract.source.one_file_a_partition:
        return f"CASE WHEN {at} <> _place THEN 'dated outside ' || {_MONTH} END"
    first = partition_key(contract.time.first_day)
    return (
        f"CASE WHEN {at} < {place_of(first)} THEN {literal(f'dated before {first}')} "
        f"WHEN {at} > _place THEN 'dated after ' || {_MONTH} END"
    )
