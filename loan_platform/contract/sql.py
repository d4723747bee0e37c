"""The SQL a contract means: typing and refusing, features, the model's matrix.

Here: SQL text in the portable subset (docs/contract.md), generated from the contract. The same
text runs over a month of a book and over the requests waiting in the service.
Not here: anything that executes it (`engine`), or counters (`drift`).
"""

from __future__ import annotations

from collections.abc import Iterable

from loan_platform.contract.expression import SQL_TYPES
from loan_platform.contract.portfolio import Column, Contract

LARGEST = "1.7976931348623157e308::double"  # NaN and infinity are above it, in every engine

# What counts as a number; engines differ (DuckDB reads 1_000 and +-5, Spark reads 5d).
DECIMAL = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def received(name: str) -> str:
    """A text column without the spaces around it; NULL where nothing is left.

    Said in full: a bare trim() takes off what else an engine holds for blank (DuckDB: no-break
    spaces).
    """
    return f"nullif(trim({quoted(name)}, ' '), '')"


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def number(value: float) -> str:
    """A DOUBLE literal. A bare 6.8 is DECIMAL in DuckDB and would bin differently."""
    return f"{float(value)!r}::double"


def date(text: str) -> str:
    """The day a text names, or NULL. 'infinity' is a date to DuckDB, and no month has it."""
    day = f"TRY_CAST({text} AS date)"
    return f"CASE WHEN {day} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {day} END"


def typed_sql(contract: Contract, relation: str) -> str:
    """Rows of `relation` (all columns text, plus `_row`) typed, with the reasons to refuse each.

    Gives `_row`, `_refused` (reasons joined by '; ', '' for an accepted row), every column but
    the ignored ones with its contract type, and `_outcome_text`.
    """
    kept = [c for c in contract.columns if c.role not in ("ignored", "outcome")]
    texts = _lines(
        f"{received(c.name)} AS {quoted(c.name)}" for c in [*kept, contract.outcome_column]
    )
    typed = _lines(f"{_typed(c)} AS {quoted(c.name)}" for c in kept)
    typed_texts = _lines(f"{quoted(c.name)} AS {quoted('_text_' + c.name)}" for c in kept)
    reasons = [reason for c in kept for reason in _column_refusals(c)]
    reasons += [_outcome_refusal(contract)]
    reasons += [
        f"CASE WHEN {_truth(rule.refuse_when)} THEN {literal(f'{rule.name}: {rule.reason}')} END"
        for rule in contract.rules
    ]
    return (
        f"WITH texts AS (\n  SELECT _row,\n    {texts}\n  FROM {relation}\n), typed AS (\n"
        f"  SELECT _row,\n    {typed},\n    {typed_texts},\n"
        f"    {quoted(contract.outcome_column.name)} AS _outcome_text\n  FROM texts\n)\n"
        f"SELECT _row, _outcome_text, {', '.join(quoted(c.name) for c in kept)},\n"
        f"  concat_ws('; ',\n    {_lines(reasons)}\n  ) AS _refused\nFROM typed"
    )


def outcome_sql(contract: Contract) -> str:
    """Expression over `_outcome_text`: 1 bad, 0 good, NULL not known."""
    bad = ", ".join(literal(value) for value in contract.outcome.bad)
    good = ", ".join(literal(value) for value in contract.outcome.good)
    return (
        f"CASE WHEN _outcome_text IN ({bad}) THEN 1 "
        f"WHEN _outcome_text IN ({good}) THEN 0 ELSE NULL END"
    )


def refusal_sql(contract: Contract) -> str:
    """Expression over typed columns: names of the broken row rules joined by '; ', '' if none.

    The service asks this of requests whose single fields are already validated.
    """
    broken = [
        f"CASE WHEN {_truth(rule.refuse_when)} THEN {literal(f'{rule.name}: {rule.reason}')} END"
        for rule in contract.rules
        if not _names_protected(contract, rule.refuse_when)
    ]
    return f"concat_ws('; ', {', '.join(broken)})" if broken else "''"


def features_sql(contract: Contract, relation: str, also: tuple[str, ...] = ()) -> str:
    """Model inputs of each row of `relation`, as people read them: columns, then derived features.

    `also` names further columns to carry through.
    """
    carried = [quoted(name) for name in also]
    columns = [quoted(column.name) for column in contract.feature_columns]
    derived = [
        f"{_finite(f'CAST(({feature.sql}) AS double)')} AS {quoted(name)}"
        for name, feature in contract.features.items()
    ]
    return f"SELECT {_lines([*carried, *columns, *derived])}\nFROM {relation}"


def matrix_sql(contract: Contract, relation: str, also: tuple[str, ...] = ()) -> str:
    """What the model sees of each row of `relation` (as from `features_sql`): DOUBLE columns only.

    A category becomes its position in the contract's list; a missing or unlisted one is NULL.
    """
    codes = contract.categorical_inputs
    inputs = []
    for name in contract.model_inputs:
        if name in codes:
            cases = " ".join(
                f"WHEN {literal(value)} THEN {number(code)}"
                for code, value in enumerate(codes[name])
            )
            expression = f"CASE {quoted(name)} {cases} ELSE NULL END"
        else:
            expression = quoted(name)
        inputs.append(f"CAST({expression} AS double) AS {quoted(name)}")
    return f"SELECT {_lines([*(quoted(name) for name in also), *inputs])}\nFROM {relation}"


def _lines(items: Iterable[str]) -> str:
    return ",\n    ".join(items)


def _finite(expression: str) -> str:
    return f"CASE WHEN abs({expression}) <= {LARGEST} THEN {expression} ELSE NULL END"


def _decimal(text: str) -> str:
    return (
        f"CASE WHEN regexp_matches({text}, {literal(DECIMAL)}) THEN TRY_CAST({text} AS double) END"
    )


def _truth(condition: str) -> str:
    return f"coalesce(({condition}), false)"


def _typed(column: Column) -> str:
    text = quoted(column.name)
    match column.type:
        case "number":
            return _finite(_decimal(text))
        case "integer":
            value = _decimal(text)
            whole = f"abs({value}) <= {number(2**53)} AND {value} = floor({value})"
            return f"CASE WHEN {whole} THEN TRY_CAST({value} AS bigint) ELSE NULL END"
        case "date":
            return date(text)
        case _:
            return f"TRY_CAST({text} AS {SQL_TYPES[column.type]})"


def _column_refusals(column: Column) -> list[str]:
    """CASE expressions, each giving its reason or NULL, over one column of `typed`."""
    name, text = quoted(column.name), quoted("_text_" + column.name)

    def refuse(condition: str, reason: str) -> str:
        return f"CASE WHEN {condition} THEN {literal(f'{column.name}: {reason}')} END"

    wanted = {"number": "a finite number", "integer": "a whole number", "date": "a date"}
    found = []
    if column.type in wanted:
        found.append(refuse(f"{text} IS NOT NULL AND {name} IS NULL", f"not {wanted[column.type]}"))
    # Protected columns are kept for testing; an application need not carry them.
    if column.nulls == "refused" and column.role != "protected":
        found.append(refuse(f"{text} IS NULL", "missing"))
    if column.range:
        low, high = column.range
        value = f"CAST({name} AS double)"
        found.append(refuse(f"{value} < {number(low)}", f"below {low:g}"))
        found.append(refuse(f"{value} > {number(high)}", f"above {high:g}"))
    if column.categories:
        allowed = ", ".join(literal(value) for value in column.categories)
        found.append(refuse(f"{name} NOT IN ({allowed})", "not a listed category"))
    return found


def _outcome_refusal(contract: Contract) -> str:
    name = contract.outcome_column.name
    # A listed value that is neither (open, current) says that the outcome is not known yet.
    undecided = contract.outcome_column.categories or []
    values = dict.fromkeys([*contract.outcome.bad, *contract.outcome.good, *undecided])
    listed = ", ".join(literal(value) for value in values)
    return (
        f"CASE WHEN _outcome_text NOT IN ({listed}) "
        f"THEN {literal(f'{name}: neither a good nor a bad outcome')} END"
    )


def _names_protected(contract: Contract, condition: str) -> bool:
    import sqlglot
    from sqlglot import exp

    served = {column.name for column in contract.feature_columns}
    tree = sqlglot.parse_one(condition, dialect="duckdb")
    return any(reference.name not in served for reference in tree.find_all(exp.Column))
