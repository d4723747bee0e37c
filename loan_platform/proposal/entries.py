"""One column's entry in a proposed contract: type, unit, range, categories, notation.

Here: what a column's figures and name make of it, once its role is known. Not here: the role
(`propose`), the text (`text`).

How a range is set, so that absurd values are refused from the first day: an age, a time in
employment and the like have limits of their own (`LIMITS`), as long as nearly all rows keep to
them. Everything else may reach several times the value that 999 rows in 1,000 stay below
(`REACH`), rounded up to 1, 2 or 5 times a power of ten: an honest extreme fits in, a slipped
decimal point does not, and no applicant's own value stands in the contract.
"""

from __future__ import annotations

import math
import re
from typing import Any

from loan_platform.ingest import vocabulary
from loan_platform.ingest.profile import PROBABILITIES, ColumnProfile
from loan_platform.ingest.vocabulary import meaning, normalised

MOST_CATEGORIES = 60
LONGEST_CATEGORY = 120

LIMITS: tuple[tuple[str, tuple[float, float]], ...] = (
    (r"(^|_)age$", (18, 100)),
    (r"emp|employment|job", (0, 60)),
    (r"cred.*hist|credit_history|hist", (0, 80)),
)
AGE_BANDS = (25.0, 40.0, 62.0)
MOST_CODES = 10  # of different values, in a number that stands for groups: 1 and 2 for a sex
UNIT_LIMITS = {"points": (300.0, 900.0), "months": (0.0, 600.0)}
REACH = {"currency": 10.0}
USUAL_REACH = 3.0
LEAST_COUNT = 20.0
RATIO_BELOW = 1.5
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "₹": "INR", "¥": "JPY"}
WHOLE_UNITS = ("months", "days", "count", "points")

# Words that say that there is nothing to say. A category may be called so; a number may not.
NOTHING = frozenset(
    ("n/a", "na", "nan", "none", "null", "nil", "-", "--", "?", "unknown", "missing")
)

# '10+ years', '< 1 year', '3', '36 months': a number in words. '25-34' is a band, not a number.
SPELLED = re.compile(
    r"(?P<below><\s*)?(?P<number>\d+(\.\d+)?)\s*\+?\s*(years?|yrs?|y|months?|mths?|mos?|m|days?|d)?",
    re.IGNORECASE,
)

Entry = dict[str, Any]


def entry_of(column: ColumnProfile, role: str) -> Entry:
    """Keys of the column's entry, in the order in which they are written.

    A `feature`, an `input` and a `protected` column get all that is known of them; the others
    what a contract must say.
    """
    entry: Entry = {"name": column.name}
    spelled = spelled_numbers(column)
    match column.type:
        case "date":
            entry |= {"type": "date"} | _given(format=column.date_format)
        case "number" | "integer":
            entry |= _numeric(column)
        case _ if spelled:
            entry |= _of_spelled(column, spelled)
        case _:
            entry |= {"type": "category", "categories": [s.value for s in column.categories]}
    entry |= _words_for_nothing(column, entry)
    if role not in ("time", "key") and (column.missing or None in entry.get("values", {}).values()):
        entry["nulls"] = "allowed"
    if role != "feature":
        entry["role"] = role
        if role == "protected":
            entry |= _given(bands=_bands(column, entry))
    elif direction := _direction(column):
        entry["monotone"] = direction
    return entry


def unused_entry(column: ColumnProfile, role: str) -> Entry:
    """The entry of a column that is only told apart by: a key, or one left out."""
    numeric = column.type in ("number", "integer") and role != "key"
    return {"name": column.name, "type": "number" if numeric else "text", "role": role}


def bands_note(entry: Entry) -> str:
    """What the bands of an entry are for, and where they are from."""
    told = "bands are where the groups begin whose approvals are compared"
    if _in_years_of_age(entry["name"], entry.get("unit")):
        return f"{told}; Regulation B protects 62 and over, the other ages are guesses"
    return f"{told}; set them where the law or common sense draws a line"


def spelled_numbers(column: ColumnProfile) -> dict[str, float | None]:
    """What each text of a column of spelled numbers stands for, None for nothing.

    Empty if it is no such column.
    """
    if column.type not in ("category", "text") or column.distinct > len(column.categories):
        return {}
    found: dict[str, float | None] = {}
    for share in column.categories:
        if share.value.lower() in NOTHING:
            found[share.value] = None
            continue
        matched = SPELLED.fullmatch(share.value.strip())
        if matched is None:
            return {}
        number = float(matched["number"])
        found[share.value] = max(number - 1, 0.0) if matched["below"] else number
    return found if len(set(found.values()) - {None}) > 1 else {}


def is_categorical(column: ColumnProfile) -> bool:
    """Its texts can be listed in a contract."""
    return (
        column.type in ("category", "text")
        and 0 < column.distinct <= min(MOST_CATEGORIES, len(column.categories))
        and all(len(share.value) <= LONGEST_CATEGORY for share in column.categories)
    )


def unit_of(column: ColumnProfile) -> str | None:
    """Unit of a column's figures, from its name and, for a rate, from its size."""
    unit = meaning(vocabulary.UNITS, column.name)
    marks = set(column.remove)
    if "%" in marks:
        return "percent"
    if money := next((CURRENCIES[mark] for mark in marks if mark in CURRENCIES), None):
        return unit.replace("currency", money) if unit and "currency" in unit else money
    if unit == "rate":
        return "ratio" if quantile(column, 0.999) <= RATIO_BELOW else "percent"
    return unit


def quantile(column: ColumnProfile, probability: float) -> float:
    return column.quantiles[PROBABILITIES.index(probability)]


def rounded_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten, away from 0."""
    if value == 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(abs(value)))
    step = next(step for step in (1, 2, 5, 10) if abs(value) <= step * power * (1 + 1e-9))
    return math.copysign(float(f"{step * power:.6g}"), value)


def refused(column: ColumnProfile, limits: tuple[float, float]) -> bool:
    """Whether the book itself has values outside."""
    return quantile(column, 0.0) < limits[0] or quantile(column, 1.0) > limits[1]


def _given(**keys: Any) -> Entry:
    return {key: value for key, value in keys.items() if value}


def _numeric(column: ColumnProfile) -> Entry:
    unit = unit_of(column)
    flag = (quantile(column, 0.0), quantile(column, 1.0)) == (0.0, 1.0) and column.distinct == 2
    age = _in_years_of_age(column.name, unit)
    whole = column.whole and (unit in WHOLE_UNITS or flag or age or _whole_years(column, unit))
    return {"type": "integer" if whole else "number"} | _given(
        unit=None if flag else unit,
        range=[0.0, 1.0] if flag else list(_range(column, unit)),
        remove=list(column.remove),
        decimal="," if column.decimal == "," else None,
    )


def _in_years_of_age(name: str, unit: str | None) -> bool:
    return normalised(name).endswith("age") and unit == "years"


def _bands(column: ColumnProfile, entry: Entry) -> list[float]:
    """Where the groups of a protected number begin: ages, else each code, else quarters."""
    if entry["type"] not in ("number", "integer"):
        return []
    spelled = [float(value) for value in entry.get("values", {}).values() if value is not None]
    listed = column.distinct <= len(column.categories)
    codes = spelled or [float(share.value) for share in column.categories if listed]
    ends = [quantile(column, end) for end in (0.0, 1.0)] if column.quantiles else codes
    if _in_years_of_age(column.name, entry.get("unit")):
        begins = list(AGE_BANDS)
    elif column.quantiles and not 0 < len(codes) <= MOST_CODES:
        begins = [float(f"{quantile(column, quarter):.3g}") for quarter in (0.25, 0.5, 0.75)]
    else:
        begins = codes
    return sorted({begin for begin in begins if min(ends) < begin <= max(ends)})


def _whole_years(column: ColumnProfile, unit: str | None) -> bool:
    return unit == "years" and column.type == "integer"


def _of_spelled(column: ColumnProfile, spelled: dict[str, float | None]) -> Entry:
    unit = meaning(vocabulary.UNITS, column.name)
    numbers = [number for number in spelled.values() if number is not None]
    highest = max(numbers)
    limits = _limits(column.name, unit)
    low, high = limits if limits and limits[0] <= 0 and highest <= limits[1] else (0.0, 0.0)
    whole = all(number.is_integer() for number in numbers)
    return {"type": "integer" if whole else "number"} | _given(
        unit=unit,
        range=[low, high or max(rounded_up(USUAL_REACH * highest), 1.0)],
        values={
            text: int(number) if whole and number is not None else number
            for text, number in spelled.items()
        },
    )


def _words_for_nothing(column: ColumnProfile, entry: Entry) -> Entry:
    """`values` for what stands where a number or a date should, and says that there is none."""
    words = [s.value for s in column.unreadable_values if s.value.lower() in NOTHING]
    if entry["type"] == "category" or "values" in entry or not words:
        return {}
    return {"values": dict.fromkeys(words)}


def _limits(name: str, unit: str | None) -> tuple[float, float] | None:
    if unit != "years":
        return UNIT_LIMITS.get(unit or "")
    plain = normalised(name)
    return next((limits for words, limits in LIMITS if re.search(words, plain)), None)


def _range(column: ColumnProfile, unit: str | None) -> tuple[float, float]:
    limits = _limits(column.name, unit)
    lowest, first, most, highest = (quantile(column, p) for p in (0.0, 0.01, 0.999, 1.0))
    if limits and limits[0] <= first and most <= limits[1]:
        return limits
    reach = REACH.get((unit or "").split(" ")[0], USUAL_REACH)
    if unit in CURRENCIES.values():
        reach = REACH["currency"]
    high = rounded_up(reach * most) if most > 0 else rounded_up(reach * max(highest, 0.0))
    low = rounded_up(reach * first) if first < 0 else rounded_up(reach * min(lowest, 0.0))
    if unit == "count":
        high = max(high, LEAST_COUNT)
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def _direction(column: ColumnProfile) -> str | None:
    """How default moves with the column: where its name says so and the book nowhere objects.

    The book objects where a quantile of the bad loans lies on the wrong side of the good ones'.
    """
    wanted = meaning(vocabulary.DIRECTIONS, column.name)
    if wanted is None or not column.quantiles_good or not column.quantiles_bad:
        return None
    middle = slice(PROBABILITIES.index(0.1), PROBABILITIES.index(0.9) + 1)
    sign = 1 if wanted == "increasing" else -1
    pairs = zip(column.quantiles_bad[middle], column.quantiles_good[middle], strict=True)
    higher = [sign * (bad - good) for bad, good in pairs]
    return wanted if min(higher) >= 0 and max(higher) > 0 else None
