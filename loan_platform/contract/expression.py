"""Checks one SQL expression of a contract: known columns, portable, and of the promised type.

Here: the verdict on an expression alone. Not here: the statements it becomes part of (`sql`).
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Literal

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

from loan_platform.contract.spark import NotPortable, to_spark

SQL_TYPES = {
    "number": "DOUBLE",
    "integer": "BIGINT",
    "category": "VARCHAR",
    "text": "VARCHAR",
    "date": "DATE",
}
NUMERIC = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"}
NUMERIC |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}

# What no column's range or categories rule out.
EXTREMES: dict[str, tuple[float | str, ...]] = {
    "number": (0.0, 1.0, -1.0, 1e308, -1e308, 5e-324),
    "integer": (0, 1, -1, 2**53, -(2**53)),
    "category": ("", "x"),
    "text": ("", "x"),
    "date": ("0001-01-01", "9999-12-31"),
}
MOST_PROBES = 200_000

# A row's value may not depend on another row, on a clock or on chance: the service sees one row.
_FORBIDDEN: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Query, "a query"),
    (exp.Window, "a window function"),
    (exp.AggFunc, "an aggregate"),
    (exp.Star, "*"),
    (exp.UDTF, "a function that gives rows"),
    (exp.CurrentTimestamp, "the clock"),
    (exp.CurrentDate, "the clock"),
    (exp.Localtime, "the clock"),
    (exp.Localtimestamp, "the clock"),
    (exp.Rand, "a random number"),
)
_PLAIN = "write a plain expression over one row's columns"


class ExpressionError(ValueError):
    """Says what is wrong with an expression and how to mend it."""


def check_expression(
    sql: str,
    columns: Mapping[str, str],
    returns: Literal["number", "boolean"],
    unusable: Mapping[str, str | None],
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Raise `ExpressionError` unless `sql` is a portable, total expression over a row's `columns`.

    `columns` maps names to contract types; `unusable` maps names that exist but may not be
    used to the reason why; `ranges` to the lowest and highest value, where rows are known to keep
    to it.
    """
    if not sql.strip():
        raise ExpressionError("is empty; write an SQL expression")
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.ParseError as error:
        near = error.errors[0]["highlight"] if error.errors else sql
        raise ExpressionError(
            f"not valid SQL near '{near}'; check operators, brackets and quotes"
        ) from None
    except sqlglot.errors.TokenError:
        raise ExpressionError("not valid SQL; close every quote and comment") from None
    for kind, what in _FORBIDDEN:
        if isinstance(tree, kind) or tree.find(kind):
            raise ExpressionError(f"uses {what}; {_PLAIN}")
    used = [reference.name for reference in tree.find_all(exp.Column)]
    for name in used:
        _check_reference(name, columns, unusable)
    with _engine().cursor() as connection:
        _check_functions(sql)
        _check_binding(connection, sql, columns, returns)
        _check_dates(connection, tree, columns)
        _check_total(connection, sql, columns, ranges or {}, used)
    try:
        to_spark(sql)
    except NotPortable as error:
        raise ExpressionError(str(error)) from None
    except sqlglot.errors.SqlglotError as error:
        raise ExpressionError(f"has no Spark equivalent: {error}") from None


def columns_of(sql: str) -> list[str]:
    """Names of the columns an expression reads, each once; none where it cannot be parsed."""
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return []
    return list(dict.fromkeys(reference.name for reference in tree.find_all(exp.Column)))


def _check_reference(
    name: str, columns: Mapping[str, str], unusable: Mapping[str, str | None]
) -> None:
    if name in columns:
        return
    if name in unusable:
        why = unusable[name] or "it is not a feature"
        raise ExpressionError(f"uses {name}, which stays out of the model: {why}")
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(columns)}"
    raise ExpressionError(f"unknown column {name}; {hint}")


@functools.cache
def _engine() -> duckdb.DuckDBPyConnection:
    """Opened once: that takes longer than all the checks. One thread, so a fork does no harm."""
    return duckdb.connect(config={"threads": 1})


@functools.cache
def _changing_functions() -> frozenset[str]:
    """Functions that DuckDB itself says may answer differently from one call to the next."""
    listed = _engine().execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    )
    return frozenset(name for (name,) in listed.fetchall())


def _check_functions(sql: str) -> None:
    for token, after in itertools.pairwise(sqlglot.tokenize(sql, dialect="duckdb")):
        name = token.text.lower()
        if after.token_type is TokenType.L_PAREN and name in _changing_functions():
            raise ExpressionError(f"uses {name}(), which is not the same at every call; {_PLAIN}")


def _check_binding(
    connection: duckdb.DuckDBPyConnection, sql: str, columns: Mapping[str, str], returns: str
) -> None:
    try:
        found = _type_of(connection, sql, columns)
    except duckdb.Error as error:
        raise ExpressionError(_first_line(error)) from None
    fits = found == "BOOLEAN" if returns == "boolean" else found.split("(")[0] in NUMERIC
    if not fits or found.endswith("]"):
        raise ExpressionError(f"gives {found}, but must give a {returns}")


def _type_of(connection: duckdb.DuckDBPyConnection, sql: str, columns: Mapping[str, str]) -> str:
    row = ", ".join(f'NULL::{SQL_TYPES[kind]} AS "{name}"' for name, kind in columns.items())
    described = connection.execute(
        f"DESCRIBE SELECT ({sql}) AS value FROM (SELECT {row})"
    ).fetchone()
    assert described is not None
    return str(described[1])


def _check_dates(
    connection: duckdb.DuckDBPyConnection, tree: exp.Expr, columns: Mapping[str, str]
) -> None:
    """Refuse date - date: whole days to DuckDB, an interval to Spark."""
    for difference in tree.find_all(exp.Sub):
        sides = (difference.this, difference.expression)
        if all(_type_of(connection, s.sql(dialect="duckdb"), columns) == "DATE" for s in sides):
            earlier, later = sides[1].sql(dialect="duckdb"), sides[0].sql(dialect="duckdb")
            raise ExpressionError(
                f"subtracts dates, which not every engine gives as days; write "
                f"date_diff('day', {earlier}, {later})"
            )


def _check_total(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    columns: Mapping[str, str],
    ranges: Mapping[str, tuple[float, float]],
    used: Iterable[str],
) -> None:
    """Try the expression on extreme rows: one row it fails on would fail every row beside it."""
    probes: dict[str, list[float | str | None]] = {}
    axes = ["(SELECT 1)"]
    for position, name in enumerate(dict.fromkeys(used)):
        low, high = ranges.get(name, (-float("inf"), float("inf")))
        extremes = [v for v in EXTREMES[columns[name]] if isinstance(v, str) or low < v < high]
        probes[f"v{position}"] = [None, *ranges.get(name, ()), *extremes]
        axes.append(f'(SELECT unnest($v{position})::{SQL_TYPES[columns[name]]} AS "{name}")')
    try:
        connection.execute(
            f"SELECT ({sql}) AS value FROM {' CROSS JOIN '.join(axes)} LIMIT {MOST_PROBES}", probes
        ).fetchall()
    except duckdb.Error as error:
        why = _first_line(error).split(" Use TRY(")[0].rstrip(".!")
        raise ExpressionError(
            f"fails on a row it may meet: {why}. "
            "Guard it: nullif() below a division, TRY_CAST() for a cast, ::double in a product"
        ) from None


def _first_line(error: duckdb.Error) -> str:
    return str(error).split("\n\n")[0].replace("\n", " ")
