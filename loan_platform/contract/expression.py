"""Checks one SQL expression of a contract: known columns, portable, and of the promised type.

Here: the verdict on an expression alone. Not here: the statements it becomes part of (`sql`).
"""

from __future__ import annotations

import difflib
from typing import Literal

import duckdb
import sqlglot
from sqlglot import exp

SQL_TYPES = {
    "number": "DOUBLE",
    "integer": "BIGINT",
    "category": "VARCHAR",
    "text": "VARCHAR",
    "date": "DATE",
}
NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "U")

# A row's value may not depend on another row, on a clock or on chance: the service sees one row.
_FORBIDDEN: tuple[tuple[type[exp.Expression], str], ...] = (
    (exp.Query, "a query"),
    (exp.Window, "a window function"),
    (exp.AggFunc, "an aggregate"),
    (exp.Star, "*"),
    (exp.CurrentTimestamp, "the clock"),
    (exp.CurrentDate, "the clock"),
    (exp.Rand, "a random number"),
)


class ExpressionError(ValueError):
    """Says what is wrong with an expression and how to mend it."""


def check_expression(
    sql: str,
    columns: dict[str, str],
    returns: Literal["number", "boolean"],
    unusable: dict[str, str | None],
) -> None:
    """Raise `ExpressionError` unless `sql` is a portable row-wise expression over `columns`.

    `columns` maps names to contract types; `unusable` maps names that exist but may not be
    used to the reason why.
    """
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.ParseError as error:
        problem = error.errors[0]
        raise ExpressionError(
            f"not valid SQL near '{problem['highlight']}': {problem['description']}"
        ) from None
    for kind, what in _FORBIDDEN:
        if isinstance(tree, kind) or tree.find(kind):
            raise ExpressionError(f"uses {what}; write a plain expression over one row's columns")
    for reference in tree.find_all(exp.Column):
        _check_reference(reference.name, columns, unusable)
    _check_binding(sql, columns, returns)
    try:
        sqlglot.parse_one(tree.sql(dialect="spark"), dialect="spark")
    except sqlglot.errors.SqlglotError as error:
        raise ExpressionError(f"has no Spark equivalent: {error}") from None


def _check_reference(name: str, columns: dict[str, str], unusable: dict[str, str | None]) -> None:
    if name in columns:
        return
    if name in unusable:
        why = unusable[name] or "it is not a feature"
        raise ExpressionError(f"uses {name}, which stays out of the model: {why}")
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(columns)}"
    raise ExpressionError(f"unknown column {name}; {hint}")


def _check_binding(sql: str, columns: dict[str, str], returns: str) -> None:
    row = ", ".join(f'NULL::{SQL_TYPES[kind]} AS "{name}"' for name, kind in columns.items())
    try:
        with duckdb.connect() as connection:
            described = connection.execute(
                f"DESCRIBE SELECT ({sql}) AS value FROM (SELECT {row})"
            ).fetchone()
    except duckdb.Error as error:
        raise ExpressionError(str(error).split("\n\n")[0].replace("\n", " ")) from None
    assert described is not None
    found = described[1]
    fits = found == "BOOLEAN" if returns == "boolean" else found.startswith(NUMERIC)
    if not fits:
        raise ExpressionError(f"gives {found}, but must give a {returns}")
