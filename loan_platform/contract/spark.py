"""The contract's SQL in Spark's words: what is said alike, what is said otherwise, and no more.

Here: one statement of DuckDB's SQL to one of Spark SQL that gives the same values, and the list of
what may stand in it. What is not on the list is refused, so no construct that merely parses in
both engines slips through with another meaning.
Not here: running either (`engine`), or the statements themselves (`sql`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlglot
from sqlglot import exp

# Means the same to both engines under the settings of `engine.spark`. Comparisons: NaN equals
# itself and is above every number, -0.0 equals 0.0, text is compared by its bytes. Also the same:
# greatest() and least() pass over NULL, concat_ws() too, || does not.
ALIKE: tuple[type[exp.Expr], ...] = (
    # statements
    *(exp.Select, exp.With, exp.CTE, exp.From, exp.Join, exp.Where, exp.Order, exp.Ordered),
    *(exp.Union, exp.Subquery, exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier),
    *(exp.Star, exp.Group, exp.Tuple, exp.Count, exp.Sum),
    # values and conditions
    *(exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.DataType, exp.DataTypeParam, exp.Var),
    *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In),
    *(exp.Between, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Case, exp.If, exp.Coalesce, exp.Nullif),
    # numbers; exp, ln, log and pow may differ in the last digit: they come from another library
    *(exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Abs, exp.Sqrt, exp.Exp, exp.Ln, exp.Pow),
    *(exp.Greatest, exp.Least),
    # text
    *(exp.Lower, exp.Upper, exp.Length, exp.DPipe, exp.ConcatWs, exp.Replace, exp.StartsWith),
    *(exp.Contains, exp.StrPosition, exp.Pad),
    # dates
    *(exp.Year, exp.Quarter, exp.Month, exp.Day),
)

_WHOLE = {exp.DType.BIGINT, exp.DType.INT, exp.DType.SMALLINT}
_TEXT = {exp.DType.TEXT, exp.DType.VARCHAR}
_TEXTS = (
    *(exp.Column, exp.Null, exp.Trim, exp.Nullif, exp.Case, exp.Coalesce, exp.DPipe, exp.Replace),
    *(exp.Lower, exp.Upper, exp.Substring, exp.ConcatWs, exp.TimeToStr, exp.Pad),
)
# The one regular-expression language that RE2 and Java read alike, but for `$` and `.`.
_PATTERN = re.compile(r"(?:[^\\\[\](]|\((?!\?)|\\[.\\+*?()\[\]{}|^$/-]|\\[dz]|\[\^?[^\]\[\\&]+\])*")


class NotPortable(ValueError):
    """Says which part of a statement has no proven equivalent on Spark, and what to write."""


def to_spark(sql: str) -> str:
    """Spark SQL that gives for every row what `sql` (DuckDB's) gives.

    Raises:
        NotPortable: it holds something that is not known to mean the same.
        sqlglot.errors.SqlglotError: it is no SQL.
    """
    return _said(sqlglot.parse_one(sql, dialect="duckdb")).sql(
        dialect="spark", identify=True, unsupported_level=sqlglot.ErrorLevel.RAISE
    )


def _said(tree: exp.Expr) -> exp.Expr:
    """The tree with every part that Spark reads otherwise adapted, innermost first."""
    root = exp.Paren(this=tree)
    for node in reversed(list(tree.walk())):
        if adapt := ADAPTED.get(type(node)):
            adapted = adapt(node)
            if adapted is not node:
                node.replace(adapted)
        elif not isinstance(node, ALIKE):
            _refuse(node, "write it with the functions of docs/contract.md")
    said = root.this
    assert isinstance(said, exp.Expr)
    said.pop()
    return said


def _refuse(node: exp.Expr, instead: str) -> None:
    shown = node.sql(dialect="duckdb")
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    raise NotPortable(f"{shown} is not known to mean the same on Spark; {instead}")


def _double(node: exp.Expr) -> exp.Expr:
    return exp.cast(node.copy(), "double", dialect="spark")


def _never_zero(node: exp.Expr) -> bool:
    node = node.unnest()
    if isinstance(node, exp.Cast):
        return _never_zero(node.this)
    if isinstance(node, exp.Nullif):
        return bool(_number(node.expression) == 0)
    return _number(node) not in (None, 0)


def _number(node: exp.Expr) -> float | None:
    node = node.unnest()
    if isinstance(node, exp.Cast):
        return _number(node.this)
    return float(node.this) if isinstance(node, exp.Literal) and not node.is_string else None


def _divided(node: exp.Expr) -> exp.Expr:
    """DuckDB divides as IEEE 754 says, always as DOUBLE; Spark refuses 0 and keeps decimals."""
    above, below = _double(node.this), _double(node.expression)
    quotient = exp.Div(this=above, expression=below)
    if _never_zero(node.expression):
        return exp.paren(quotient)
    # pow(0, -1) is infinity, pow(-0.0, -1) minus infinity, and 0 times infinity NaN.
    by_zero = exp.Mul(this=above.copy(), expression=exp.Pow(this=below.copy(), expression=_one(-1)))
    return exp.case().when(below.copy().eq(0), by_zero).else_(quotient)


def _one(value: int) -> exp.Expr:
    return exp.Neg(this=exp.Literal.number(-value)) if value < 0 else exp.Literal.number(value)


def _remainder(node: exp.Expr) -> exp.Expr:
    if not _never_zero(node.expression):
        _refuse(node, "guard the divisor: nullif(..., 0)")
    return node


def _towards(node: exp.Expr) -> exp.Expr:
    """floor() and ceil() as DOUBLE: Spark's give BIGINT, and 0 for NaN."""
    if node.args.get("decimals") or node.args.get("to"):
        _refuse(node, "give it one value")
    value = node.this
    nearest = exp.func("rint", value.copy())
    down = isinstance(node, exp.Floor)
    over = (exp.GT if down else exp.LT)(this=nearest, expression=exp.paren(value.copy()))
    step = (exp.Sub if down else exp.Add)(this=nearest.copy(), expression=_one(1))
    return exp.case().when(over, step).else_(nearest.copy())


def _signed(node: exp.Expr) -> exp.Expr:
    """The sign of NaN is 0 in DuckDB, NaN in Spark."""
    value = node.this
    return exp.case().when(exp.func("isnan", _double(value)), exp.Literal.number(0)).else_(node)


def _rounded(node: exp.Expr) -> exp.Expr:
    if node.args.get("decimals"):
        _refuse(node, "round to whole numbers: round(x * 100) / 100")
    return exp.func("round", _double(node.this))


def _logarithm(node: exp.Expr) -> exp.Expr:
    """log(x) is to base 10 in DuckDB, natural in Spark; log10(x) parses as log(10, x)."""
    if node.expression is None:
        return exp.Anonymous(this="LOG10", expressions=[node.this.copy()])
    base = _number(node.this)
    if base not in (2, 10):
        _refuse(node, "use ln(), log10() or log2()")
    return exp.Anonymous(this=f"LOG{base:.0f}", expressions=[node.expression.copy()])


def _converted(node: exp.Expr) -> exp.Expr:
    """Casts. DuckDB rounds to whole numbers, a half to the even one; Spark cuts off."""
    value, kind = node.this.unnest(), node.args["to"].this
    if kind == exp.DType.DOUBLE or isinstance(value, exp.Null):
        return node
    if kind in _WHOLE:
        if _is_condition(value):
            return node
        value = node.this.copy()
        if isinstance(node, exp.TryCast):
            value = exp.TryCast(this=value, to=exp.DataType.build("double"), safe=True)
        node.set("this", exp.func("rint", value))
        return node
    if kind in _TEXT and (isinstance(value, _TEXTS) or value.is_string):
        return node
    if kind in (exp.DType.DATE, exp.DType.TIMESTAMPTZ):
        if value.is_string or isinstance(value, exp.Column | exp.Substring):
            return node
        _refuse(node, "cast a column of dates or an ISO date")
    _refuse(node, "cast to DOUBLE, BIGINT, or text to VARCHAR")
    return node


def _is_condition(value: exp.Expr) -> bool:
    if isinstance(value, exp.Case):
        branches = [branch.args["true"] for branch in value.args["ifs"]]
        return all(_is_condition(branch.unnest()) for branch in branches)
    return isinstance(value, exp.Predicate | exp.And | exp.Or | exp.Not | exp.Boolean)


def _matched(node: exp.Expr) -> exp.Expr:
    """In Java `$` is also before a last line end, and `.` stops at more line ends than in RE2."""
    pattern = node.expression
    if not pattern.is_string or node.args.get("flag") or not _PATTERN.fullmatch(pattern.name):
        _refuse(node, "use a plain pattern: characters, [classes], groups, repetitions, ^ and $")
    said = re.sub(
        r"\\.|\[\^?[^\]]+\]|[.$]",
        lambda found: {"$": r"\z", ".": r"[^\n]", r"\d": "[0-9]"}.get(found[0], found[0]),
        pattern.name,
    )
    return exp.RegexpLike(this=node.this.copy(), expression=exp.Literal.string(said))


def _found(node: exp.Expr) -> exp.Expr:
    """Which group is always said: unsaid, it is the whole match to DuckDB, the first to Spark."""
    if node.args.get("parameters"):
        _refuse(node, "leave the options out")
    matched = _matched(exp.RegexpLike(this=node.this, expression=node.expression))
    group = node.args.get("group") or exp.Literal.number(0)
    return exp.Anonymous(
        this="REGEXP_EXTRACT", expressions=[matched.this, matched.expression, group]
    )


def _replaced(node: exp.Expr) -> exp.Expr:
    """Every match, which is said by 'g': without it DuckDB replaces the first, Spark every one."""
    new, modifiers = node.args["replacement"], node.args.get("modifiers")
    every = modifiers is not None and modifiers.name == "g"
    if not every or not new.is_string or set(new.name) & {"\\", "$"}:
        _refuse(node, "replace every match by plain text: regexp_replace(x, 'a+', 'b', 'g')")
    matched = _matched(exp.RegexpLike(this=node.this, expression=node.expression))
    return exp.Anonymous(this="REGEXP_REPLACE", expressions=[matched.this, matched.expression, new])


def _trimmed(node: exp.Expr) -> exp.Expr:
    if node.expression is None or not node.expression.is_string:
        _refuse(node, "say what it takes off: trim(x, ' ')")
    return node


def _like(node: exp.Expr) -> exp.Expr:
    if not node.expression.is_string or "\\" in node.expression.name:
        _refuse(node, "use a pattern in quotes without backslashes")
    return node


def _part(node: exp.Expr) -> exp.Expr:
    if (_number(node.args["start"]) or 0) < 1:
        _refuse(node, "begin at a position from 1 on")
    return node


def _days(node: exp.Expr) -> exp.Expr:
    """Only days: of months DuckDB counts the boundaries crossed, Spark the months gone by."""
    if node.args["unit"].name.upper() != "DAY":
        _refuse(node, "use date_diff('day', a, b), or year() and month()")
    days = [exp.cast(side.copy(), "date") for side in (node.this, node.expression)]
    return exp.Anonymous(this="DATEDIFF", expressions=days)


def _extracted(node: exp.Expr) -> exp.Expr:
    if node.this.name.upper() not in ("YEAR", "QUARTER", "MONTH", "DAY"):
        _refuse(node, "take year, quarter, month or day")
    return node


def _interval(node: exp.Expr) -> exp.Expr:
    if node.args["unit"].name.upper() not in ("DAY", "DAYS"):
        _refuse(node, "use an interval of days")
    return node


def _written(node: exp.Expr) -> exp.Expr:
    if not re.fullmatch(r"(%[Ymd]|[-/. ])+", node.args["format"].name):
        _refuse(node, "use %Y, %m and %d")
    return node


ADAPTED: dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr]] = {
    exp.Div: _divided,
    exp.Mod: _remainder,
    exp.Floor: _towards,
    exp.Ceil: _towards,
    exp.Round: _rounded,
    exp.Sign: _signed,
    exp.Log: _logarithm,
    exp.Cast: _converted,
    exp.TryCast: _converted,
    exp.RegexpLike: _matched,
    exp.RegexpExtract: _found,
    exp.RegexpReplace: _replaced,
    exp.Trim: _trimmed,
    exp.Like: _like,
    exp.Substring: _part,
    exp.DateDiff: _days,
    exp.Extract: _extracted,
    exp.Interval: _interval,
    exp.TimeToStr: _written,
}
"""What Spark means otherwise by the same word, or what is alike only in part."""
