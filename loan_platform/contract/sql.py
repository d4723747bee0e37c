"""The SQL a contract means: typing and refusing, features, the model's matrix.

Here: SQL text in the portable subset (docs/contract.md), generated from the contract. The same
text runs over a month of a book and over the requests waiting in the service.
Not here: anything that executes it (`engine`), or counters (`drift`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loan_platform.contract.expression import columns_of
from loan_platform.contract.portfolio import Column, Contract

LARGEST = "1.7976931348623157e308::double"  # NaN and infinity are above it, in every engine

# Patterns end in \z: to Spark a $ also stands before a last line break.
# What counts as a number; engines differ (DuckDB reads 1_000 and +-5, Spark reads 5d).
_NUMBER = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
DECIMAL = rf"^{_NUMBER}\z"
_DECIMALS = rf"^({_NUMBER}([|]{_NUMBER})*)?\z"
# A day, and after it perhaps a time of that day in UTC.
_ISO_DAY = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?(Z|[+]00(:?00)?)?)?\z"
)

# Removed only where they stand between thousands: 12,5 is not 125.
_BETWEEN_THOUSANDS = (",", ".", " ", "'", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}")
_SPACES = (" ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}")

_DATE_PARTS = {"%Y": "[0-9]{4}", "%y": "[0-9]{2}", "%b": "[A-Za-z]{3}"}
_DATE_WIDTHS = {"%Y": 4, "%y": 2, "%b": 3}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIRST_SHORT_YEAR = 69  # 69 is 1969, 68 is 2068: the rule of POSIX, which Python has too


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def received(name: str) -> str:
    """A text column without the spaces around it; NULL where nothing is left.

    Said in full: a bare trim() takes off what else an engine holds for blank (DuckDB: no-break
    spaces), and trimming where there is nothing to trim takes longer than looking.
    """
    text = quoted(name)
    return (
        f"CASE WHEN {text} LIKE ' %' OR {text} LIKE '% ' THEN nullif(trim({text}, ' '), '') "
        f"WHEN {text} <> '' THEN {text} END"
    )


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def number(value: float) -> str:
    """A DOUBLE literal. A bare 6.8 is DECIMAL in DuckDB and would bin differently."""
    return f"{float(value)!r}::double"


def date(text: str) -> str:
    """The day an ISO 8601 text names, or NULL; engines differ on what else is a date."""
    day = f"TRY_CAST(substr({text}, 1, 10) AS date)"
    return (
        f"CASE WHEN regexp_matches({text}, {literal(_ISO_DAY)}) AND {day} >= DATE '0001-01-01' "
        f"THEN {day} END"
    )


def written_date(column: Column, text: str) -> str:
    """The day a text of the book names in the column's own notation, or NULL."""
    return date(f"({_plain(column, text)})") if _has_notation(column) else date(text)


def typed_sql(contract: Contract, relation: str, also: tuple[str, ...] = ()) -> str:
    """Rows of `relation` (all columns text, plus `_row` and `_origin`) typed, with what they break.

    Text of origin 'service' is a typed value written down; all other text is in the book's own
    notation (`values`, `format`, `remove`, `decimal`). Gives `_row`, `_outcome_text`, every column
    but the ignored ones with its contract type, and `_rules`: the ids (see `reasons`) of the
    rules the row breaks, joined by ' '; '' for an accepted row. `also` names further columns of
    `relation` to carry through.
    """
    kept = [c for c in contract.columns if c.role not in ("ignored", "outcome")]
    read = [*kept, contract.outcome_column]
    told = [c for c in kept if c.type in ("number", "integer", "date")]
    numbers = [c for c in kept if c.type in ("number", "integer")]
    names = [quoted(c.name) for c in kept]
    given = [_given_name(c) for c in told]
    carried = ["_row", *also]
    # Each step gives what the next reads more than once, so that an engine computes it once.
    steps = {
        "texts": [
            *carried,
            *(["_origin"] if "_origin" not in also and any(map(_has_notation, read)) else []),
            *(f"{received(c.name)} AS {quoted(c.name)}" for c in read),
        ],
        "plain": [
            *carried,
            *(f"{_canonical(c)} AS {quoted(c.name)}" for c in kept),
            *(f"{_given(c)} AS {_given_name(c)}" for c in told),
            f"{_canonical(contract.outcome_column)} AS _outcome_text",
        ],
        "seen": [*carried, "_outcome_text", *names, *given, f"{_all_decimal(numbers)} AS _decimal"],
        "parsed": [
            *carried,
            "_outcome_text",
            *(f"{_parsed(c)} AS {quoted(c.name)}" for c in kept),
            *given,
        ],
        "typed": [
            *carried,
            "_outcome_text",
            *(f"{_typed(c)} AS {quoted(c.name)}" for c in kept),
            *given,
        ],
    }
    chain, source = [], relation
    for step, items in steps.items():
        chain.append(f"{step} AS (\n  SELECT {_lines(items)}\n  FROM {source}\n)")
        source = step
    rules = list(_rules(contract))
    broken = " OR ".join(f"({rule.condition})" for rule in rules)
    ids = _lines(f"CASE WHEN {rule.condition} THEN {literal(rule.id)} END" for rule in rules)
    return (
        f"WITH {', '.join(chain)}\nSELECT {', '.join([*carried, '_outcome_text', *names])},\n"
        f"  CASE WHEN {broken} THEN concat_ws(' ',\n    {ids}\n  ) ELSE '' END AS _rules\n"
        "FROM typed"
    )


def reasons(contract: Contract) -> dict[str, str]:
    """Every rule id of `typed_sql`, in their order, with what it means in words."""
    return {rule.id: rule.reason for rule in _rules(contract)}


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
        if _asked_of_requests(contract, rule.refuse_when)
    ]
    return f"concat_ws('; ', {', '.join(broken)})" if broken else "''"


def features_sql(contract: Contract, relation: str, also: tuple[str, ...] = ()) -> str:
    """Inputs and features of each row of `relation`, as people read them.

    The columns an application carries come first, then the derived features.

    `also` names further columns to carry through.
    """
    carried = [quoted(name) for name in also]
    columns = [quoted(column.name) for column in contract.input_columns]
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


def _truth(condition: str) -> str:
    return f"coalesce(({condition}), false)"


def _has_notation(column: Column) -> bool:
    return bool(column.values or column.format or column.remove or column.decimal != ".")


def _given_name(column: Column) -> str:
    return quoted("_given_" + column.name)


def _given(column: Column) -> str:
    """The received text, NULL where it is a word for a missing value."""
    text = quoted(column.name)
    missing = [word for word, value in (column.values or {}).items() if value is None]
    if not missing:
        return text
    listed = ", ".join(literal(word) for word in missing)
    return f"CASE WHEN {text} NOT IN ({listed}) OR _origin = 'service' THEN {text} END"


def _canonical(column: Column) -> str:
    """The received text as the service would write it down; NULL where it cannot be read."""
    text = quoted(column.name)
    if not _has_notation(column):
        return text
    return f"CASE WHEN _origin = 'service' THEN {text} ELSE {_plain(column, text)} END"


def _plain(column: Column, text: str) -> str:
    """`text`, in the book's notation, as plain text: a decimal number, an ISO date, a value."""
    if column.format:
        read = _iso_date(column.format, text)
    elif column.type in ("number", "integer"):
        read = _plain_number(column, text)
    else:
        read = text
    if not column.values:
        return read
    meant = " ".join(
        f"WHEN {literal(word)} THEN "
        + ("NULL" if value is None else literal(value if isinstance(value, str) else repr(value)))
        for word, value in column.values.items()
    )
    return f"CASE {text} {meant} ELSE {read} END"


def _plain_number(column: Column, text: str) -> str:
    """A number without what is removed, and with a decimal point.

    What stands between thousands is removed only where each group has three digits.
    """
    between = [sign for sign in column.remove if sign in _BETWEEN_THOUSANDS]
    if column.decimal == ",":
        between = list(dict.fromkeys([".", *_SPACES, *between]))
    for sign in column.remove:
        if sign not in between:
            text = f"replace({text}, {literal(sign)}, '')"
    if column.remove:
        text = f"trim({text}, ' ')"
    if not between and column.decimal == ".":
        return text
    point = f"[{column.decimal}]"
    thousands = "".join(f"|[0-9]{{1,3}}([{sign}][0-9]{{3}})+" for sign in between)
    form = rf"^[+-]?(([0-9]+{thousands})({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?\z"
    plain = text
    for sign in between:
        plain = f"replace({plain}, {literal(sign)}, '')"
    if column.decimal == ",":
        plain = f"replace({plain}, ',', '.')"
    return f"CASE WHEN regexp_matches({text}, {literal(form)}) THEN {plain} END"


def _iso_date(notation: str, text: str) -> str:
    """The ISO text of a date written as `notation` says; text that is ISO already stays."""
    tokens = re.findall(r"%.|.", notation)
    # 1/2/2001 has short days and months; written without separators they must have two digits.
    close = any(a[0] == b[0] == "%" for a, b in itertools.pairwise(tokens))
    forms = _DATE_PARTS | dict.fromkeys(("%m", "%d"), "[0-9]{2}" if close else "[0-9]{1,2}")
    widths = _DATE_WIDTHS | (dict.fromkeys(("%m", "%d"), 2) if close else {})
    pattern = "".join(f"({forms[t]})" if t in forms else f"[{t}]" for t in tokens)
    pattern = literal(rf"^{pattern}\z")
    part: dict[str, str] = {}
    position: int | None = 1  # of the next token, None after one of no fixed width
    for token in tokens:
        width = widths.get(token) if token in forms else 1
        if token in forms:
            group = len(part) + 1
            part[token] = (
                f"substr({text}, {position}, {width})"
                if position and width
                else f"regexp_extract({text}, {pattern}, {group})"
            )
        position = position + width if position and width else None
    if "%Y" in part:
        year = part["%Y"]
    else:
        century = f"CASE WHEN {part['%y']} < '{_FIRST_SHORT_YEAR}' THEN '20' ELSE '19' END"
        year = f"{century} || {part['%y']}"
    if "%m" in part:
        month = f"lpad({part['%m']}, 2, '0')"
    else:
        names = " ".join(
            f"WHEN {literal(name)} THEN '{count:02d}'" for count, name in enumerate(MONTHS, 1)
        )
        month = f"CASE upper({part['%b']}) {names} END"
    day = f"lpad({part['%d']}, 2, '0')" if "%d" in part else "'01'"
    return (
        f"CASE WHEN regexp_matches({text}, {pattern}) "
        f"THEN {year} || '-' || {month} || '-' || {day} ELSE {text} END"
    )


def _all_decimal(numbers: list[Column]) -> str:
    """Whether all numbers of a row are written as numbers: one look instead of one at each.

    A text with a | in it could pass here, and is no number to any engine's cast.
    """
    if not numbers:
        return "true"
    texts = ", ".join(quoted(c.name) for c in numbers)
    return f"regexp_matches(concat_ws('|', {texts}), {literal(_DECIMALS)})"


def _parsed(column: Column) -> str:
    """Over the plain text: a DOUBLE of a number or whole number, the date, the text."""
    text = quoted(column.name)
    match column.type:
        case "number" | "integer":
            value = f"TRY_CAST({text} AS double)"
            return (
                f"CASE WHEN _decimal THEN {value} "
                f"WHEN regexp_matches({text}, {literal(DECIMAL)}) THEN {value} END"
            )
        case "date":
            return date(text)
        case _:
            return text


def _typed(column: Column) -> str:
    """Over what `_parsed` gave: the value in the contract's type."""
    value = quoted(column.name)
    match column.type:
        case "number":
            return _finite(value)
        case "integer":
            whole = f"abs({value}) <= {number(2**53)} AND {value} = floor({value})"
            return f"CASE WHEN {whole} THEN TRY_CAST({value} AS bigint) END"
        case _:
            return value


@dataclass(frozen=True)
class _Rule:
    """What a row may break: an id, a condition over `typed`, and the reason in words."""

    id: str
    condition: str
    reason: str


def _rules(contract: Contract) -> Iterator[_Rule]:
    for column in contract.columns:
        if column.role not in ("ignored", "outcome"):
            yield from _column_rules(column)
    yield _outcome_rule(contract)
    for rule in contract.rules:
        condition = _truth(rule.refuse_when)
        yield _Rule(f"rules.{rule.name}", condition, f"{rule.name}: {rule.reason}")


def _column_rules(column: Column) -> Iterator[_Rule]:
    name = quoted(column.name)
    prefix = f"columns.{column.name.replace(' ', '_')}."
    kinds = {"number": "a finite number", "integer": "a whole number", "date": "a date"}
    given = name
    if column.type in kinds:
        given = _given_name(column)
        unread = f"{given} IS NOT NULL AND {name} IS NULL"
        yield _Rule(prefix + "type", unread, f"{column.name}: not {kinds[column.type]}")
    # Protected columns are kept for testing; an application need not carry them.
    if column.nulls == "refused" and column.role not in ("protected", "measure"):
        yield _Rule(prefix + "nulls", f"{given} IS NULL", f"{column.name}: missing")
    if column.range:
        low, high = column.range
        value = f"CAST({name} AS double)"
        yield _Rule(prefix + "below", f"{value} < {number(low)}", f"{column.name}: below {low:g}")
        yield _Rule(prefix + "above", f"{value} > {number(high)}", f"{column.name}: above {high:g}")
    if column.categories:
        allowed = ", ".join(literal(value) for value in column.categories)
        yield _Rule(
            prefix + "categories",
            f"{name} NOT IN ({allowed})",
            f"{column.name}: not a listed category",
        )


def _outcome_rule(contract: Contract) -> _Rule:
    name = contract.outcome_column.name
    # A listed value that is neither (open, current) says that the outcome is not known yet.
    undecided = contract.outcome_column.categories or []
    values = dict.fromkeys([*contract.outcome.bad, *contract.outcome.good, *undecided])
    listed = ", ".join(literal(value) for value in values)
    return _Rule(
        "outcome",
        f"_outcome_text NOT IN ({listed})",
        f"{name}: neither a good nor a bad outcome",
    )


def _asked_of_requests(contract: Contract, condition: str) -> bool:
    """Whether a rule reads only what a request has: not, say, a protected column."""
    return set(columns_of(condition)) <= {column.name for column in contract.input_columns}
