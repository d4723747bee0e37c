"""The profile of a book: what each column holds, and how it goes with the outcome.

Here: figures, from the text as it arrives; no contract is needed. Not here: their page
(`profile_page`), which columns leak (`leaks`), the contract they suggest (`proposal`).

The rows are staged once in a Parquet file; then one column at a time is grouped by value in
DuckDB, and everything about it follows from that table. Memory holds one column's values.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from pydantic import BaseModel, ConfigDict

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source, unknown
from loan_platform.contract.sql import literal, quoted, received
from loan_platform.engine import duck
from loan_platform.ingest.notation import READABLE, Notation, candidates

PROBABILITIES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
MOST_CATEGORIES = 60
LONGEST_CATEGORY = 80
BINS = 20
FOLLOWED = 12  # columns whose relation to the outcome is followed month by month
ENOUGH = 20  # loans of either outcome, for a month's figure
CORRELATED_ROWS = 100_000
CELLS_AT_ONCE = 2_000_000  # in memory while rows are staged: wide books in smaller pieces


class ProfileError(ValueError):
    """A book cannot be profiled as asked: says why, and how to mend it."""


class Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(Figures):
    """One value (or missing) of a column: its rows, those with a known outcome, the bad ones."""

    value: str
    rows: int
    known: int = 0
    bad: int = 0


class ColumnProfile(Figures):
    """What one column holds.

    `type`: what most of its values are read as; `unreadable` counts those that are not, and
    `unreadable_values` are the commonest of them (at most 10, of 20 rows or more). `distinct`:
    different values, missing not counted. `quantiles`: of a numeric column, at `PROBABILITIES`;
    `quantiles_good`, `quantiles_bad` among loans of either outcome. `categories`: the commonest
    values, at most 60; of a number those with 1 % of the rows, or all where there are few.
    `bins`: a number or date in some 20 bins of equal size, a common value in its own.
    `missing_share`: the missing values as one value. `lengths`: shortest and longest text.
    `date_format`: as `Column.format`, None for ISO; `date_format_or`: another one that reads every
    value as well. `remove`, `decimal`: as of `Column`. `auc_value`: area under the ROC curve of
    the column's values as a score of a bad outcome, of the present rows, either direction (0.5 to
    1); of a category, of its bad rates learnt on other rows. `auc_binned`: of a number, of the bad
    rates of 20 bins learnt on other rows: it sees what rises and falls. `auc_missing`: of being
    missing, either direction. `auc_by_month`: (YYYY-MM, rows with an outcome, AUC in the direction
    of the whole book or None), of the strongest columns. `tail`: the largest group at the low or
    high end of a number of which 97 % are bad; None where there is none of 30 rows.
    `after_application`: share of a date column's values later than the application. `whole`: every
    number is whole.
    """

    name: str
    type: Literal["number", "integer", "date", "category", "text", "empty"]
    rows: int
    missing: int
    unreadable: int = 0
    unreadable_values: tuple[Share, ...] = ()
    distinct: int
    whole: bool = False
    low: float | str | None = None
    high: float | str | None = None
    lengths: tuple[int, int] | None = None
    quantiles: tuple[float, ...] = ()
    quantiles_good: tuple[float, ...] = ()
    quantiles_bad: tuple[float, ...] = ()
    categories: tuple[Share, ...] = ()
    bins: tuple[Share, ...] = ()
    missing_share: Share | None = None
    date_format: str | None = None
    date_format_or: str | None = None
    remove: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    auc_value: float | None = None
    auc_binned: float | None = None
    auc_missing: float | None = None
    auc_by_month: tuple[tuple[str, int, float | None], ...] = ()
    tail: Share | None = None
    after_application: float | None = None

    @property
    def numeric(self) -> bool:
        return self.type in ("number", "integer")

    @property
    def numbers_rows(self) -> bool:
        """Every row has its own value: a key, a free text, nothing to learn from."""
        return self.type in ("integer", "text") and 100 <= self.rows - self.missing == self.distinct

    @property
    def strength(self) -> float:
        """How well the column alone ranks loans by outcome: the largest AUC known of it."""
        return max(self.auc_value or 0.5, self.auc_binned or 0.5, self.auc_missing or 0.5)


class Profile(Figures):
    """What a book holds. `correlations`: Spearman's, of pairs of numeric columns, strongest first.

    `malformed`: lines no row could be read from, not among `rows`. `known`, `known_bad`: rows with
    a known outcome, and the bad ones of them; `bad_rate`: their ratio. `months`: (YYYY-MM, rows,
    bad rate or None) where there is a time column.
    """

    rows: int
    malformed: int = 0
    outcome: str | None
    bad: tuple[str, ...]
    known: int = 0
    known_bad: int = 0
    bad_rate: float | None
    time: str | None
    months: tuple[tuple[str, int, float | None], ...] = ()
    columns: tuple[ColumnProfile, ...]
    correlations: tuple[tuple[str, str, float], ...] = ()

    def column(self, name: str) -> ColumnProfile:
        return next(column for column in self.columns if column.name == name)


def profile_source(
    source: Source,
    *,
    outcome: str | None = None,
    bad: Sequence[str] = (),
    good: Sequence[str] = (),
    time: str | None = None,
) -> Profile:
    """Profile all rows of a source; of a file a month, all months together.

    Raises:
        SourceError: the source cannot be read.
        ProfileError: see `profile_relation`.
    """
    from loan_platform.ingest.fetch import fetched
    from loan_platform.ingest.reading import stage

    if source.one_file_a_partition and source.path:
        every = source.path.replace("{partition}", "[0-9][0-9][0-9][0-9]-[0-9][0-9]")
        source = source.model_copy(update={"path": every})
    with _staged() as file, duck.bounded() as connection:
        with fetched(source) as paths:
            header, malformed = stage(
                connection, source, paths, lambda text: _copy(text.sql, text.header, file)
            )
        book = _Book(connection, file, header, outcome, tuple(bad), tuple(good))
        return _profile(book, time, malformed=len(malformed))


def profile_book(contract: Contract, source: Source) -> Profile:
    """Profile a portfolio's book as received: its outcome and time are the contract's.

    Raises:
        SourceError: the book cannot be read. ProfileError: it lacks its outcome or time column.
    """
    outcome, time = contract.outcome_column, contract.time_column
    stands_for = {text: str(value) for text, value in (outcome.values or {}).items()}

    def written(values: Sequence[str]) -> list[str]:
        """How the book writes these outcomes."""
        texts = [text for text, value in stands_for.items() if value in values]
        return texts + [value for value in values if value not in stands_for]

    return profile_source(
        source,
        outcome=outcome.name,
        bad=written(contract.outcome.bad),
        good=written(contract.outcome.good),
        time=time.name if time else None,
    )


def profile_relation(
    connection: duckdb.DuckDBPyConnection,
    relation_sql: str,
    header: Sequence[str],
    *,
    outcome: str | None = None,
    bad: Sequence[str] = (),
    good: Sequence[str] = (),
    time: str | None = None,
) -> Profile:
    """Profile the rows of a FROM clause whose columns are text.

    `bad`, `good`: values of the outcome column; without `good` every value that is not bad is
    good, without `bad` the outcome must be 0 and 1. Without `outcome` nothing is said of it.

    Raises:
        ProfileError: a named column is not there, the outcome's bad values are not, or the time
            column does not hold dates.
    """
    with _staged() as file:
        try:
            connection.execute(_copy(relation_sql, header, file))
        except duckdb.Error as error:
            # The full message of a CSV error holds the offending line: an applicant's data.
            what = str(error).split("\n")[0]
            raise ProfileError(f"the rows cannot be read: {what}") from None
        book = _Book(connection, file, list(header), outcome, tuple(bad), tuple(good))
        return _profile(book, time)


@contextmanager
def _staged() -> Iterator[Path]:
    """A file for the staged rows, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="loan_platform_") as folder:
        yield Path(folder) / "rows.parquet"


def _copy(relation_sql: str, header: Sequence[str], file: Path) -> str:
    columns = ", ".join(f"{received(name)} AS {quoted(name)}" for name in header)
    rows = max(4096, CELLS_AT_ONCE // max(len(header), 1))
    return (
        f"COPY (SELECT {columns} FROM {relation_sql} AS rows) TO {literal(str(file))} "
        f"(FORMAT parquet, {duck.PASSING}, ROW_GROUP_SIZE {rows})"
    )


def _profile(book: _Book, time: str | None, malformed: int = 0) -> Profile:
    book.require(time, "time")
    readings = {name: book.read(name) for name in ([time] if time else [])}
    applied = readings[time].value if time else None
    if time and readings[time].type != "date":
        raise ProfileError(f"the time column {time} does not hold dates; name another one")
    columns = []
    for name in book.header:
        reading, column = book.profile(name, applied if name != time else None)
        readings[name] = reading
        columns.append(column)
    months: tuple[tuple[str, int, float | None], ...] = ()
    if applied:
        months = book.months(applied)
        followed = sorted(
            (c for c in columns if c.auc_value is not None and c.name not in (time, book.outcome)),
            key=lambda column: -column.strength,
        )[:FOLLOWED]
        by_month = {c.name: book.by_month(c, readings[c.name], applied) for c in followed}
        columns = [
            c.model_copy(update={"auc_by_month": by_month[c.name]}) if c.name in by_month else c
            for c in columns
        ]
    correlated = [
        column
        for column in columns
        if column.numeric and column.distinct > 1 and not column.numbers_rows
    ]
    return Profile(
        rows=book.rows,
        malformed=malformed,
        outcome=book.outcome,
        bad=book.bad,
        known=book.known,
        known_bad=book.known_bad,
        bad_rate=_ratio(book.known_bad, book.known),
        time=time,
        months=months,
        columns=tuple(columns),
        correlations=book.correlations([(c.name, readings[c.name]) for c in correlated]),
    )


@dataclass(frozen=True)
class _Counts:
    """Values of a column in ascending order, with their rows in either half of the book.

    `value`: n values. The others: shape (n, 2), for rows of the first and of the second half.
    """

    value: np.ndarray
    rows: np.ndarray
    known: np.ndarray
    bad: np.ndarray

    @property
    def good(self) -> np.ndarray:
        return np.asarray(self.known - self.bad)


class _Book:
    """The staged rows, and one column of them after the other."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        staged: Path,
        header: list[str],
        outcome: str | None,
        bad: tuple[str, ...],
        good: tuple[str, ...],
    ) -> None:
        self.connection = connection
        self.table = f"read_parquet({literal(str(staged))}, file_row_number = true)"
        self.header = header
        self.outcome = outcome
        self.require(outcome, "outcome")
        self.bad = bad or (self._one() if outcome else ())
        self.is_bad = self._is_bad(good)
        self.rows, self.known, self.known_bad = self._one_row(
            f"SELECT count(*), count(y), coalesce(sum(y), 0)::BIGINT "
            f"FROM (SELECT {self.is_bad} AS y FROM {self.table})"
        )
        if outcome and self.rows and not self.known_bad and not good:
            raise ProfileError(
                f"no row has {outcome} = {' or '.join(self.bad)}; name the bad values as they "
                "stand in the book"
            )

    def require(self, name: str | None, role: str) -> None:
        if name is not None and name not in self.header:
            raise ProfileError(f"the {role} cannot be {name}: {unknown(name, self.header)}")

    def _one(self) -> tuple[str, ...]:
        """The bad value of an outcome of 0 and 1."""
        assert self.outcome
        name = quoted(self.outcome)
        values = [
            value
            for (value,) in self.connection.execute(
                f"SELECT DISTINCT {name} FROM {self.table} WHERE {name} IS NOT NULL LIMIT 10"
            ).fetchall()
        ]
        ones = tuple(value for value in values if value in ("1", "1.0"))
        if not ones or any(value not in ("0", "0.0", "1", "1.0") for value in values):
            raise ProfileError(
                f"{self.outcome} is not 0 and 1; say which of its values are bad outcomes"
            )
        return ones

    def _is_bad(self, good: tuple[str, ...]) -> str:
        if self.outcome is None:
            return "CAST(NULL AS INTEGER)"
        name = quoted(self.outcome)
        bad = ", ".join(literal(value) for value in self.bad)
        if good:
            known = f"{name} IN ({', '.join(literal(value) for value in good)})"
        else:
            known = f"{name} IS NOT NULL"
        return f"CASE WHEN {name} IN ({bad}) THEN 1 WHEN {known} THEN 0 END"

    def profile(self, name: str, applied: str | None) -> tuple[Notation, ColumnProfile]:
        """The profile of one column; `applied`: SQL of the day of application."""
        reading = self.read(name)
        missing, distinct, shortest, longest = self._one_row(
            "SELECT coalesce(sum(n) FILTER (v IS NULL), 0)::BIGINT, count(DISTINCT v), "
            "min(length(v)), max(length(v)) FROM grouped"
        )
        figures: dict[str, Any] = {
            "name": name,
            "rows": self.rows,
            "missing": missing,
            "distinct": distinct,
            "type": reading.type,
        }
        if distinct:
            figures["lengths"] = (shortest, longest)
        if reading.type in ("number", "date"):
            figures |= self._measured(reading)
        if reading.type == "date" and applied:
            figures["after_application"] = self._after(reading, applied)
        if self.outcome and name != self.outcome:
            figures |= self._told_by_missing(missing)
            if reading.type in ("category", "text"):
                figures["auc_value"] = _rounded(_crossfitted(self._counts_of_texts()))
        elif missing:
            figures["missing_share"] = Share(value="missing", rows=missing)
        if name == self.outcome:
            figures |= {"auc_value": None, "auc_binned": None, "tail": None}
        if reading.type != "text":
            figures["categories"] = self._categories(reading, distinct)
        return reading, ColumnProfile(**figures)

    def read(self, name: str) -> Notation:
        """Group the column by value into `grouped`, and find how its text is read."""
        # Half by a hash of the place: files are sorted, and copies lie side by side.
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE grouped AS SELECT v, f, count(*) AS n, count(y) AS k, "
            f"coalesce(sum(y), 0)::BIGINT AS b FROM (SELECT {quoted(name)} AS v, "
            f"hash(file_row_number) % 2 AS f, {self.is_bad} AS y FROM {self.table}) GROUP BY v, f"
        )
        sample = [
            value
            for (value,) in self.connection.execute(
                "SELECT v FROM (SELECT DISTINCT v FROM grouped WHERE v IS NOT NULL) "
                "ORDER BY hash(v) LIMIT 1000"
            ).fetchall()
        ]
        if not sample:
            return Notation("empty")
        for reading in candidates(name, sample):
            text = reading.value.replace(quoted(name), "v")
            (share,) = self._one_row(
                f"SELECT (sum(n) FILTER ({text} IS NOT NULL) / sum(n))::DOUBLE FROM grouped "
                "WHERE v IS NOT NULL"
            )
            if (share or 0) >= (1.0 if reading.format == "%Y%m%d" else READABLE):
                self.connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE valued AS SELECT *, {text} AS x FROM grouped"
                )
                return reading
        distinct, present, longest = self._one_row(
            "SELECT count(DISTINCT v), sum(n)::BIGINT, max(length(v)) FROM grouped "
            "WHERE v IS NOT NULL"
        )
        few = distinct <= min(MOST_CATEGORIES, max(10, present / 20))
        return Notation("category" if few and longest <= LONGEST_CATEGORY else "text")

    def _measured(self, reading: Notation) -> dict[str, Any]:
        """Figures of a number or date, from the table `valued`."""
        day = reading.type == "date"
        x = "epoch(x)::DOUBLE / 86400" if day else "x"
        counts = self._counts(f"SELECT {x} AS x, f, n, k, b FROM valued WHERE x IS NOT NULL")
        figures: dict[str, Any] = {
            "distinct": len(counts.value),
            "remove": reading.remove,
            "decimal": reading.decimal,
            "unreadable": self._one_row(
                "SELECT coalesce(sum(n), 0)::BIGINT FROM valued WHERE v IS NOT NULL AND x IS NULL"
            )[0],
            "unreadable_values": self._shares(
                "SELECT v AS value, sum(n) AS n, sum(k) AS k, sum(b) AS b FROM valued WHERE "
                "v IS NOT NULL AND x IS NULL GROUP BY 1 HAVING sum(n) >= 20 "
                "ORDER BY 2 DESC, 1 LIMIT 10"
            ),
        }
        if day:
            low, high = self._one_row("SELECT min(x)::VARCHAR, max(x)::VARCHAR FROM valued")
            shown = reading.format if reading.format != "%Y-%m-%d" else None
            figures |= {"date_format": shown, "date_format_or": reading.format_or}
        else:
            low, high = float(counts.value[0]), float(counts.value[-1])
            whole = bool((counts.value == np.floor(counts.value)).all())
            figures |= {"whole": whole, "type": "integer" if whole else "number"}
            figures["quantiles"] = _quantiles(counts.value, counts.rows.sum(axis=1))
            if self.outcome:
                figures["quantiles_good"] = _quantiles(counts.value, counts.good.sum(axis=1))
                figures["quantiles_bad"] = _quantiles(counts.value, counts.bad.sum(axis=1))
        binned, place = _binned(counts)
        figures["bins"] = _bins(counts, binned, place, day=day)
        if self.outcome:
            rising = auc(counts.good.sum(axis=1), counts.bad.sum(axis=1))
            figures |= {
                "auc_value": _rounded(None if rising is None else max(rising, 1 - rising)),
                "auc_binned": _rounded(_crossfitted(binned)),
                "tail": _tail(counts, day=day),
            }
        return {**figures, "low": low, "high": high}

    def _told_by_missing(self, missing: int) -> dict[str, Any]:
        if not missing:
            return {}
        known, bad = self._one_row(
            "SELECT sum(k)::BIGINT, sum(b)::BIGINT FROM grouped WHERE v IS NULL"
        )
        told = auc(
            np.array([self.known - self.known_bad - (known - bad), known - bad]),
            np.array([self.known_bad - bad, bad]),
        )
        return {
            "missing_share": Share(value="missing", rows=missing, known=known, bad=bad),
            "auc_missing": _rounded(None if told is None else max(told, 1 - told)),
        }

    def _categories(self, reading: Notation, distinct: int) -> tuple[Share, ...]:
        if reading.type == "empty":
            return ()
        source, value = ("grouped", "v") if reading.type == "category" else ("valued", "x")
        # Of a number only what many share: a value of its own may be one person's.
        common = 1 if distinct <= MOST_CATEGORIES else max(20.0, 0.01 * self.rows)
        shown = (
            "CASE WHEN x = floor(x) AND abs(x) < 1e15 THEN x::BIGINT::VARCHAR ELSE x::VARCHAR END"
        )
        text = shown if reading.type == "number" else f"{value}::VARCHAR"
        return self._shares(
            f"SELECT {text} AS value, sum(n) AS n, sum(k) AS k, sum(b) AS b FROM {source} "
            f"WHERE {value} IS NOT NULL GROUP BY 1 HAVING sum(n) >= {common} "
            f"ORDER BY 2 DESC, 1 LIMIT {MOST_CATEGORIES}"
        )

    def _after(self, reading: Notation, applied: str) -> float | None:
        later, both = self._one_row(
            f"SELECT count(*) FILTER ({reading.value} > {applied}), "
            f"count(*) FROM {self.table} WHERE {reading.value} IS NOT NULL "
            f"AND {applied} IS NOT NULL"
        )
        return _rounded(_ratio(later, both))

    def months(self, applied: str) -> tuple[tuple[str, int, float | None], ...]:
        counted = self.connection.execute(
            f"SELECT strftime({applied}, '%Y-%m') AS month, count(*), avg({self.is_bad}) "
            f"FROM {self.table} WHERE {applied} IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()
        return tuple((month, rows, _rounded(rate)) for month, rows, rate in counted)

    def by_month(
        self, column: ColumnProfile, reading: Notation, applied: str
    ) -> tuple[tuple[str, int, float | None], ...]:
        """AUC of the column in each month, in the direction it has in the whole book."""
        value = reading.value or quoted(column.name)
        if reading.type == "date":
            value = f"epoch({value})"
        counted = self.connection.execute(
            f"SELECT strftime({applied}, '%Y-%m') AS month, {value} AS x, "
            f"count(*)::BIGINT AS k, sum({self.is_bad})::BIGINT AS b FROM {self.table} "
            f"WHERE {applied} IS NOT NULL AND {value} IS NOT NULL AND {self.is_bad} IS NOT NULL "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchnumpy()
        month, score = np.asarray(counted["month"], dtype=object), np.asarray(counted["x"])
        known, bad = np.asarray(counted["k"]), np.asarray(counted["b"])
        if reading.type in ("category", "text"):
            values, place = np.unique(score.astype(str), return_inverse=True)
            in_book = np.bincount(place, bad, len(values)) / np.bincount(place, known, len(values))
            score = in_book[place]
        whole = _auc_of(score, known, bad)
        rises = whole is None or whole >= 0.5
        found = []
        for key in sorted(set(month.tolist())):
            here = month == key
            rows, bads = int(known[here].sum()), int(bad[here].sum())
            area = None
            if min(bads, rows - bads) >= ENOUGH:
                area = _auc_of(score[here], known[here], bad[here])
            found.append((key, rows, _rounded(area if area is None or rises else 1 - area)))
        return tuple(found)

    def correlations(
        self, columns: list[tuple[str, Notation]]
    ) -> tuple[tuple[str, str, float], ...]:
        """Spearman's rho of each pair, ranked where the column is present, over shared rows."""
        if len(columns) < 2:
            return ()
        step = math.ceil(self.rows / CORRELATED_ROWS)
        values = ", ".join(f"{reading.value} AS c{i}" for i, (_, reading) in enumerate(columns))
        table = self.connection.execute(
            f"SELECT {values} FROM {self.table} WHERE hash(file_row_number) % {step} = 0"
        ).fetchnumpy()
        ranks, present = [], []
        for i in range(len(columns)):
            value = np.ma.filled(np.ma.asarray(table[f"c{i}"], dtype=np.float64), np.nan)
            there = ~np.isnan(value)
            rank = np.zeros(len(value))
            rank[there] = _ranks(value[there])
            ranks.append(rank)
            present.append(there.astype(np.float64))
        rho = _pairwise_correlation(np.column_stack(ranks), np.column_stack(present))
        pairs = [
            (columns[i][0], columns[j][0], round(float(rho[i, j]), 4))
            for i in range(len(columns))
            for j in range(i)
            if not math.isnan(rho[i, j])
        ]
        return tuple(sorted(pairs, key=lambda pair: -abs(pair[2])))

    def _counts_of_texts(self) -> _Counts:
        return self._counts(
            "SELECT dense_rank() OVER (ORDER BY v)::DOUBLE AS x, f, n, k, b FROM grouped "
            "WHERE v IS NOT NULL"
        )

    def _counts(self, grouped: str) -> _Counts:
        halves = ", ".join(
            f"coalesce(sum({what}) FILTER (f = {half}), 0)::BIGINT AS {what}{half}"
            for what in ("n", "k", "b")
            for half in (0, 1)
        )
        table = self.connection.execute(
            f"SELECT x, {halves} FROM ({grouped}) GROUP BY x ORDER BY x"
        ).fetchnumpy()

        def both(what: str) -> np.ndarray:
            return np.column_stack([np.asarray(table[f"{what}0"]), np.asarray(table[f"{what}1"])])

        return _Counts(np.asarray(table["x"]), both("n"), both("k"), both("b"))

    def _shares(self, sql: str) -> tuple[Share, ...]:
        return tuple(
            Share(value=value, rows=int(rows), known=int(known), bad=int(bad))
            for value, rows, known, bad in self.connection.execute(sql).fetchall()
        )

    def _one_row(self, sql: str) -> Any:
        return self.connection.execute(sql).fetchone()


def auc(good: np.ndarray, bad: np.ndarray) -> float | None:
    """Mann-Whitney: chance that a bad loan has a higher value than a good one, ties half.

    `good`, `bad`: loans at each value, in ascending order of value. None without both.
    """
    goods, bads = float(good.sum()), float(bad.sum())
    if not goods or not bads:
        return None
    below = np.cumsum(good) - good
    return float((bad * (below + good / 2)).sum() / (goods * bads))


def _auc_of(score: np.ndarray, known: np.ndarray, bad: np.ndarray) -> float | None:
    """`auc` of loans in any order, those of one score together."""
    values, place = np.unique(score, return_inverse=True)
    bads = np.bincount(place, bad, len(values))
    return auc(np.bincount(place, known, len(values)) - bads, bads)


def _crossfitted(counts: _Counts) -> float | None:
    """AUC of the bad rates of each value, learnt on the other half of the book.

    A value with few rows there is drawn to the overall rate: one of its own tells nothing.
    """
    found = []
    for half in (0, 1):
        known, bad = counts.known[:, 1 - half], counts.bad[:, 1 - half]
        if not known.sum():
            return None
        prior = bad.sum() / known.sum()
        score = (bad + 10 * prior) / (known + 10)
        found.append(_auc_of(score, counts.known[:, half], counts.bad[:, half]))
    areas = [area for area in found if area is not None]
    return sum(areas) / len(areas) if areas else None


def _binned(counts: _Counts) -> tuple[_Counts, np.ndarray]:
    """The same rows in some `BINS` bins, and each value's bin.

    They have some equal size; a value with as many rows as a bin has one of its own.
    """
    if len(counts.value) <= BINS:
        return counts, np.arange(len(counts.value))
    rows = counts.rows.sum(axis=1)
    upto = np.cumsum(rows)
    common = rows * BINS >= upto[-1]
    # A common value parts the bin it lies in.
    parted = 2 * np.cumsum(common) - common
    _, place = np.unique(
        parted * BINS + (upto - rows) * BINS // upto[-1] * ~common, return_inverse=True
    )

    def summed(what: np.ndarray) -> np.ndarray:
        return np.column_stack([np.bincount(place, what[:, half]) for half in (0, 1)])

    bins = _Counts(np.unique(place), summed(counts.rows), summed(counts.known), summed(counts.bad))
    return bins, place


def _bins(counts: _Counts, binned: _Counts, place: np.ndarray, *, day: bool) -> tuple[Share, ...]:
    """The bins as people read them: `low to high`."""
    low = counts.value[np.searchsorted(place, np.arange(len(binned.value)))]
    high = counts.value[np.searchsorted(place, np.arange(len(binned.value)), side="right") - 1]
    columns = (low, high, *(what.sum(axis=1) for what in (binned.rows, binned.known, binned.bad)))
    return tuple(
        Share(
            value=" to ".join(dict.fromkeys(_shown(end, day=day) for end in (first, last))),
            rows=int(rows),
            known=int(known),
            bad=int(bad),
        )
        for first, last, rows, known, bad in zip(*columns, strict=True)
    )


def _shown(value: float, *, day: bool) -> str:
    if day:
        return str(np.datetime64(int(value), "D"))
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.6g}"


PURE = 0.97
SMALLEST_TAIL = 30


def _tail(counts: _Counts, *, day: bool) -> Share | None:
    """The largest group at the low or high end of which 97 % are bad."""
    rows, known, bad = (what.sum(axis=1) for what in (counts.rows, counts.known, counts.bad))
    if bad.sum() >= PURE * known.sum():
        return None  # it is no end of the column, but all of it: being missing tells the rest
    best: Share | None = None
    for sign, order in (("<=", slice(None)), (">=", slice(None, None, -1))):
        known_so_far, bad_so_far = np.cumsum(known[order]), np.cumsum(bad[order])
        pure = (bad_so_far >= PURE * known_so_far) & (known_so_far >= SMALLEST_TAIL)
        if not pure.any():
            continue
        last = int(np.flatnonzero(pure)[-1])
        if best is None or known_so_far[last] > best.known:
            best = Share(
                value=f"{sign} {_shown(counts.value[order][last], day=day)}",
                rows=int(np.cumsum(rows[order])[last]),
                known=int(known_so_far[last]),
                bad=int(bad_so_far[last]),
            )
    return best


def _quantiles(values: np.ndarray, rows: np.ndarray) -> tuple[float, ...]:
    """As `numpy.quantile` of the rows, each value repeated as often as it has rows."""
    upto = np.cumsum(rows)
    if not len(upto) or not upto[-1]:
        return ()
    place = np.array(PROBABILITIES) * (upto[-1] - 1)
    below = values[np.searchsorted(upto, np.floor(place), side="right")]
    above = values[np.searchsorted(upto, np.ceil(place), side="right")]
    between = below + (above - below) * (place - np.floor(place))
    return tuple(float(f"{value:.8g}") for value in between)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values share their mean rank."""
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(number) - (number - 1) / 2)[place])


def _pairwise_correlation(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Pearson's r of each pair of columns over the rows where both are present."""
    number = present.T @ present
    sums = values.T @ present
    squares = (values**2).T @ present
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = values.T @ values - sums * sums.T / number
        variance = squares - sums**2 / number
        rho = covariance / np.sqrt(variance * variance.T)
    return np.where(np.isfinite(rho) & (number >= SMALLEST_TAIL), np.clip(rho, -1, 1), np.nan)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
