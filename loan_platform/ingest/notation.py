"""How a column of text writes its numbers and dates: signs, units, decimal marks, date formats.

Here: the ways a column may be read, guessed from some of its values, as SQL. Not here: which of
them is right for all its values (`profile`).
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loan_platform.contract.sql import DECIMAL, literal, quoted

READABLE = 0.95
"""A column holds numbers, or dates, where this share of its values is one."""

# The commonest first: where several read every value, the first is taken and the next is named.
DATE_FORMATS = (
    "%Y-%m-%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%b %d %Y",
    "%b-%Y",
    "%b-%y",
    "%b %Y",
    "%Y-%m",
    "%m/%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%Y%m%d",
)
CURRENCIES = ("$", "€", "£", "¥", "₹", "us$", "usd", "eur", "gbp", "chf", "jpy", "inr")
PERIODS = ("year", "yr", "month", "mo", "week", "day")
UNITS = frozenset([*CURRENCIES, "%", "bp", "bps", *PERIODS, *(f"{period}s" for period in PERIODS)])
CLOCK = r"[ T]\d\d?:\d\d(:\d\d(\.\d+)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?$"


@dataclass(frozen=True)
class Notation:
    """How a column's text is read.

    `value`: SQL that gives the number or the day, NULL where there is none to read; of the other
    types ''. `format_or`: another date format that reads as much.
    """

    type: Literal["number", "date", "category", "text", "empty"]
    value: str = ""
    remove: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    format: str | None = None
    format_or: str | None = None


def candidates(name: str, sample: list[str]) -> Iterator[Notation]:
    """How a column may be read, the likeliest first, from some of its different values."""
    if all(re.fullmatch(r"(19|20)\d{6}", value) for value in sample):
        yield Notation("date", _date_sql(name, "%Y%m%d"), format="%Y%m%d")
    remove, decimal = _decorations(sample)
    yield Notation("number", number_sql(name, remove, decimal), remove=remove, decimal=decimal)
    # A glance first: most columns are no dates, and reading a day takes long.
    likely = [form for form in DATE_FORMATS if _fits(form, sample[:20], share=0.5)]
    fitting = [form for form in likely if _fits(form, sample)]
    for form, other in itertools.zip_longest(fitting, fitting[1:]):
        yield Notation("date", _date_sql(name, form), format=form, format_or=other)


def _fits(form: str, sample: list[str], share: float = READABLE) -> bool:
    """Whether that share of the sample is written so."""
    read = 0
    for value in sample:
        try:
            dt.datetime.strptime(re.sub(CLOCK, "", value), form)  # noqa: DTZ007 - a day, no moment
        except ValueError:
            continue
        read += 1
    return read >= share * len(sample)


def _date_sql(name: str, form: str) -> str:
    text = f"regexp_replace({quoted(name)}, {literal(CLOCK)}, '')"
    return f"CAST(try_strptime({text}, {literal(form)}) AS DATE)"


def number_sql(name: str, remove: Sequence[str] = (), decimal: str = ".") -> str:
    """The finite number a text column holds, or NULL."""
    text = quoted(name)
    for token in remove:
        text = f"replace({text}, {literal(token)}, '')"
    if remove:
        text = f"trim({text}, ' ')"
    if decimal == ",":
        text = f"replace({text}, ',', '.')"
    return (
        f"CASE WHEN regexp_matches({text}, {literal(DECIMAL)}) AND "
        f"isfinite(TRY_CAST({text} AS DOUBLE)) THEN TRY_CAST({text} AS DOUBLE) END"
    )


def _decorations(sample: list[str]) -> tuple[tuple[str, ...], Literal[".", ","]]:
    """What is taken off the numbers of a column, and its decimal mark.

    At most one of `UNITS` before them and one after: 'type1' is a code, and '10+ years' beside
    '1 year' are words. A comma is a thousands mark where three digits follow it each time, a
    point where there are two of it; any other lone comma is a decimal mark.
    """
    shape = re.compile(
        r"^([^\d+\-.,]*)([+-]?)([^\d+\-.,]*)([\d.,' ]*\d[\d.,]*)([eE][+-]?\d+)?(\D*)$"
    )
    read = [found for value in sample if (found := shape.match(value))]
    if len(read) < READABLE * len(sample):
        return (), "."
    words = [{(found[1] or found[3]).strip() for found in read} - {""}]
    words.append({found[6].strip() for found in read} - {""})
    if any(len(those) > 1 or not {word.lower() for word in those} <= UNITS for those in words):
        return (), "."
    remove = [word for those in words for word in those]
    numbers = [found[4] for found in read]
    grouped = [value for value in numbers if re.search(r"[.,' ]", value)]
    commas = [value for value in grouped if "," in value]
    if not commas:
        several = [value for value in grouped if value.count(".") > 1]
        if several and all(re.fullmatch(r"\d{1,3}(\.\d{3})*", value) for value in grouped):
            return (*remove, "."), "."
        return (*remove, *_spaces(grouped)), "."
    if all(re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d*)?", value) for value in commas) and (
        any("." in value or value.count(",") > 1 for value in grouped)
        or all(int(value.split(",")[0]) > 0 for value in commas)
    ):
        return (*remove, ","), "."
    if all(re.fullmatch(r"\d{1,3}([. ']\d{3})+,\d*|\d*,\d*", value) for value in commas):
        marks = sorted({mark for value in commas for mark in value if mark in ".' "})
        return (*remove, *marks), ","
    return tuple(remove), "."


def _spaces(grouped: list[str]) -> list[str]:
    return sorted({mark for value in grouped for mark in value if mark in "' "})
