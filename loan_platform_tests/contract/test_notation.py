"""A book's own way to write values, read by the generated SQL and by plain Python."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loan_platform.contract import Contract
from loan_platform.contract.sql import typed_sql
from loan_platform.engine import duck
from loan_platform_tests import club_loans

# The same examples everywhere: a test run is no place to meet a new one.
FEW = settings(max_examples=5, deadline=None, derandomize=True)

SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
NUMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "percent": {"remove": ["%", "$"]},
    "thousands": {"remove": [",", "USD"]},
    "comma": {"decimal": ","},
    "euro": {"decimal": ",", "remove": ["EUR", "'"]},
}
DATES = ["%b-%Y", "%d/%m/%Y", "%m-%d-%y", "%Y%m%d", "%d.%b.%y", "%Y/%m"]


def read(column: dict[str, Any], texts: Sequence[str | None], origin: str = "book") -> list[Any]:
    """The values of one column in that notation; 'refused' where its type is broken."""
    contract = Contract.model_validate(
        {
            "name": "one",
            "title": "One column",
            "source": {"path": "one.csv"},
            "time": {"replay": {"start": "2024-01-01", "periods": 1}},
            "outcome": {"bad": ["1"], "good": ["0"], "matures_after_days": 1},
            "columns": [
                {"name": "amount", "type": "number", "nulls": "allowed"},
                {"name": "it", "nulls": "allowed", "role": "protected", **column},
                {"name": "end", "type": "text", "role": "outcome"},
            ],
        }
    )
    table = pa.table(
        {
            "_row": pa.array(range(len(texts)), pa.int64()),
            "_origin": [origin] * len(texts),
            "amount": ["1"] * len(texts),
            "it": pa.array(texts, pa.string()),
            "end": ["1"] * len(texts),
        }
    )
    found = duck.query(f"SELECT * FROM ({typed_sql(contract, 't')}) ORDER BY _row", t=table)
    return [
        "refused" if row["_rules"] == "columns.it.type" else row["it"] if not row["_rules"] else row
        for row in found.to_pylist()
    ]


def number_in_python(text: str | None, decimal: str, remove: list[str]) -> float | str | None:
    text = (text or "").strip(" ")
    if not text:
        return None
    between = [sign for sign in remove if sign in ",.'" + SPACES]
    if decimal == ",":
        between += [".", *SPACES]
    for sign in remove:
        text = text if sign in between else text.replace(sign, "")
    text = text.strip(" ") if remove else text
    mantissa, mark, power = text.lower().partition("e")
    if mark and not re.fullmatch("[+-]?[0-9]+", power):
        return "refused"
    sign = mantissa[:1] if mantissa[:1] in ("+", "-") else ""
    whole, _, fraction = mantissa[len(sign) :].partition(decimal)
    used = [char for char in dict.fromkeys(whole) if char in between]
    if used:
        first, *others = whole.split(used[0])
        if len(used) > 1 or not 1 <= len(first) <= 3 or any(len(group) != 3 for group in others):
            return "refused"
        whole = whole.replace(used[0], "")
    if not re.fullmatch("[0-9]*", whole + fraction) or not whole + fraction:
        return "refused"
    value = float(f"{sign}{whole or '0'}.{fraction or '0'}e{power or '0'}")
    return value if abs(value) < float("inf") else "refused"


@st.composite
def written_numbers(draw: st.DrawFn) -> str:
    value = draw(st.decimals(-(10**8), 10**8, places=2, allow_nan=False))
    text = draw(st.sampled_from(["{:,}", "{}", "{:.0f}", "{:e}"])).format(value)
    signs = draw(st.sampled_from([",.", ".,", " ,", "',", "\N{NO-BREAK SPACE},", ", ", "..", ",,"]))
    text = "".join({",": signs[0], ".": signs[1]}.get(char, char) for char in text)
    return draw(
        st.sampled_from(["{}", "{}%", "$ {}", "{} EUR", "EUR{}", "USD {} ", "{}|1"])
    ).format(text)


@pytest.mark.parametrize("name", NUMBERS)
@FEW
@given(
    texts=st.lists(
        st.one_of(
            written_numbers(),
            st.text(alphabet="0123456789.,' %e+-\N{NO-BREAK SPACE}", max_size=9),
            st.sampled_from(["12.5", "1.234", "1.234.56", "1,234,567", "1 234", "12,5", "%", None]),
        ),
        min_size=20,
        max_size=60,
    )
)
def test_numbers_are_read_as_plain_python_reads_them(name: str, texts: list[str | None]):
    """A decimal comma taken for a separator of thousands, or the other way round: 12.5 as 125."""
    notation = NUMBERS[name]
    found = read({"type": "number", **notation}, texts)
    decimal, remove = notation.get("decimal", "."), notation.get("remove", [])
    assert found == [number_in_python(text, decimal, remove) for text in texts]


def test_what_could_be_two_numbers_is_refused():
    comma = {"type": "number", "decimal": ","}
    assert read(comma, ["12.5", "1.2345", "1.234", "1.234,5", "1 234,5", "12,5", "1.234 567"]) == [
        *("refused", "refused", 1234.0, 1234.5, 1234.5, 12.5, "refused")
    ]
    thousands = {"type": "number", "remove": [","]}
    assert read(thousands, ["12,5", "1,234.5", "12,345"]) == ["refused", 1234.5, 12345.0]
    assert read({"type": "number"}, ["12,5", "1,234"]) == ["refused", "refused"]


def date_in_python(text: str | None, notation: str) -> dt.date | str | None:
    text = (text or "").strip(" ")
    if not text:
        return None
    if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) or not text.isascii():
        notation = "%Y-%m-%d"
    if notation == "%Y%m%d" and len(text) != 8:
        return "refused"
    try:
        return dt.datetime.strptime(text, notation).replace(tzinfo=dt.UTC).date()
    except ValueError:
        return "refused"


@pytest.mark.parametrize("notation", DATES)
@FEW
@given(data=st.data())
def test_dates_are_read_as_strptime_reads_them(notation: str, data: st.DataObject):
    """31 February, a month called Mag, days and months swapped, 68 taken for 1968."""
    day = st.dates(dt.date(1000, 1, 1), dt.date(9999, 12, 31))
    said = day.map(lambda day: day.strftime(notation))
    text = st.one_of(
        said,
        said.map(str.upper),
        said.map(lambda text: text.replace("-0", "-").replace("/0", "/")),
        st.text(alphabet="0123456789-/.JanFEBmarx", min_size=1, max_size=11),
        day.map(str),
        st.sampled_from(
            ["2001-02-30", "30-Feb-2001", "30/02/2001", "Feb-0000", "13/13/2001", None]
        ),
    )
    texts = data.draw(st.lists(text, min_size=60, max_size=90))
    found = read({"type": "date", "format": notation}, texts)
    assert found == [date_in_python(text, notation) for text in texts]


def test_an_iso_date_may_carry_a_time_of_its_day():
    texts = ["2001-02-03 00:00:00", "2001-02-03T23:59:59.5Z", "2001-02-03 10:00+00", "2001-02-03 x"]
    texts += ["2001-02-03 10:00+02", "2001-2-3", "2001", "20010203", "2001-02-03\n"]
    assert read({"type": "date"}, texts) == [dt.date(2001, 2, 3)] * 3 + ["refused"] * 6


def test_values_stand_for_what_the_contract_says_and_other_text_for_itself():
    years = {"type": "integer", "values": {"10+ years": 10, "n/a": None, "7": 8}}
    texts = ["10+ years", "n/a", "7", "6", "10+ Years", None]
    assert read(years, texts) == [10, None, 8, 6, "refused", None]
    # The service writes a typed value down: its 7 is a 7, its "R" would be no category.
    assert read(years, ["7", "10"], origin="service") == [7, 10]
    swapped = {"type": "category", "categories": ["a", "b"], "values": {"a": "b", "b": "a"}}
    assert read(swapped, ["a", "b"]) == ["b", "a"]
    assert read(swapped, ["a", "b"], origin="service") == ["a", "b"]


def test_what_the_service_writes_is_not_read_in_the_notation_of_the_book():
    """12.5 of the service's log under decimal: ',' must not be refused, nor a date be swapped."""
    assert read({"type": "number", "decimal": ","}, ["12.5", "1e-05"], "service") == [12.5, 1e-05]
    assert read({"type": "date", "format": "%d/%m/%Y"}, ["2003-10-01"], "service") == [
        dt.date(2003, 10, 1)
    ]


def test_a_made_up_book_in_its_own_notation_is_admitted_whole():
    contract = club_loans.contract()
    pairs = club_loans.rows()
    table = pa.Table.from_pylist([written for written, _ in pairs])
    table = table.append_column("_row", pa.array(range(len(pairs))))
    table = table.append_column("_origin", pa.array(["book"] * len(pairs)))
    found = duck.query(f"SELECT * FROM ({typed_sql(contract, 't')}) ORDER BY _row", t=table)
    for row, (_, typed) in zip(found.to_pylist(), pairs, strict=True):
        assert row["_rules"] == ""
        assert row["_outcome_text"] in ("paid", "charged off")
        for name in ("rate", "amount", "years", "home", "purpose"):
            assert row[name] == typed[name]
        line = row["earliest line"]
        assert (line and line.isoformat()) == typed["earliest line"]
