"""The generated SQL against plain Python, on whatever text and numbers there are."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from loan_platform.contract import Contract
from loan_platform.contract.spark import to_spark
from loan_platform.contract.sql import (
    features_sql,
    matrix_sql,
    outcome_sql,
    quoted,
    reasons,
    refusal_sql,
    typed_sql,
)
from loan_platform.drift.counts import count_sql, fit_bins
from loan_platform.engine import duck
from loan_platform.ingest.admission import accepted_sql, quarantine_sql, refused_sql
from loan_platform.ingest.staging import STAGED
from loan_platform_tests import club_loans, home_loans

# The same examples everywhere: a test run is no place to meet a new one.
FEW = settings(max_examples=15, deadline=None, derandomize=True)

BOUNDED = Contract.model_validate(
    {
        "name": "bounded",
        "title": "One column of each kind",
        "source": {"path": "bounded.csv"},
        "time": {"replay": {"start": "2024-01-01", "periods": 2}},
        "outcome": {"bad": ["bad"], "good": ["good", "it's good"], "matures_after_days": 1},
        "columns": [
            {"name": "select", "type": "number", "range": [-10, 1000.5]},
            {"name": "any number", "type": "number", "nulls": "allowed"},
            {"name": "whole", "type": "integer", "range": [0, 99], "nulls": "allowed"},
            {"name": "any.whole", "type": "integer"},
            {"name": "kind", "type": "category", "categories": ["it's", 'a "b"', "; DROP --", "ü"]},
            {"name": "sex", "type": "category", "categories": ["f"], "role": "protected"},
            {"name": "end", "type": "category", "categories": ["bad", "open"], "role": "outcome"},
        ],
    }
)

TEXTS = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.text(alphabet="0123456789+-.eE_ \t", max_size=8),
    st.floats().map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-20, 1200).map(str),
    st.sampled_from(
        [
            *("it's", 'a "b"', "; DROP --", "ü", " it's ", "bad", "good", "it's good", "open"),
            *(
                "f",
                "F",
                "",
                "   ",
                "\xa0",
                " it's\xa0",
                "nan",
                "NaN",
                "inf",
                "-Infinity",
                "1e400",
                "-0.0",
                "1000.5",
            ),
            *("1000.51", "0x1", "1_000", "+-0", "5d", "5.0", "5.5"),
            *("9007199254740992", "9007199254740993", "9007199254740994"),
        ]
    ),
)
ROWS = st.lists(
    st.fixed_dictionaries({column.name: TEXTS for column in BOUNDED.columns}),
    min_size=1,
    max_size=20,
)


def as_number(text: str | None) -> float | None:
    if text is None or not text.isascii() or "_" in text or text != text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def judged(row: dict[str, str | None]) -> tuple[dict[str, Any], set[str]]:
    """Typed values and reasons to refuse a row of BOUNDED: the rules in plain Python."""
    values: dict[str, Any] = {}
    reasons = set()
    for column in BOUNDED.columns:
        text = (row[column.name] or "").strip(" ") or None
        if column.role == "outcome":
            if text not in (None, "bad", "good", "it's good", "open"):
                reasons.add(f"{column.name}: neither a good nor a bad outcome")
            continue
        value: Any = text
        if column.type in ("number", "integer"):
            value = as_number(text)
            if column.type == "integer" and value is not None:
                whole = value == math.floor(value) and abs(value) <= 2**53
                value = int(value) if whole else None
            if text is not None and value is None:
                kind = "a finite number" if column.type == "number" else "a whole number"
                reasons.add(f"{column.name}: not {kind}")
        if text is None and column.nulls == "refused" and column.role != "protected":
            reasons.add(f"{column.name}: missing")
        if value is not None and column.range and value < column.range[0]:
            reasons.add(f"{column.name}: below {column.range[0]:g}")
        if value is not None and column.range and value > column.range[1]:
            reasons.add(f"{column.name}: above {column.range[1]:g}")
        if value is not None and column.categories and value not in column.categories:
            reasons.add(f"{column.name}: not a listed category")
        values[column.name] = value
    return values, reasons


def staged(rows: list[dict[str, Any]], contract: Contract) -> pa.Table:
    columns = {
        c.name: pa.array([row[c.name] for row in rows], pa.string()) for c in contract.columns
    }
    origin = pa.array([row.get("_origin", "book") for row in rows], pa.string())
    return pa.table({"_row": pa.array(range(len(rows)), pa.int64()), "_origin": origin, **columns})


@FEW
@given(rows=ROWS)
def test_typing_and_refusing_agree_with_plain_python(rows: list[dict[str, str | None]]):
    sql = f"SELECT * FROM ({typed_sql(BOUNDED, 'staged')}) ORDER BY _row"
    found = duck.query(sql, staged=staged(rows, BOUNDED)).to_pylist()
    assert len(found) == len(rows)
    for row, typed in zip(rows, found, strict=True):
        values, told = judged(row)
        assert {reasons(BOUNDED)[rule] for rule in typed["_rules"].split()} == told
        assert {name: typed[name] for name in values} == values


DATES = st.one_of(TEXTS, st.dates().map(str), st.sampled_from(["infinity", "epoch", "10000-01-01"]))


@settings(FEW, max_examples=10)
@given(texts=st.lists(DATES, min_size=10, max_size=50))
def test_a_date_is_one_a_calendar_has(texts: list[str | None]):
    row = home_loans.rows(1)[0]
    rows = [{**row, "applied_at": text} for text in texts]
    contract = home_loans.contract()
    for found in duck.query(
        typed_sql(contract, "staged"), staged=staged(rows, contract)
    ).to_pylist():
        day = found["applied_at"]
        assert day is None or dt.date.min <= day <= dt.date.max
        assert ("columns.applied_at." in found["_rules"]) == (day is None)


DOUBLES = st.one_of(
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 1.0]),
)


@pytest.fixture(scope="module", params=["credit_risk", "home_loans", "club_loans"])
def contract(request: pytest.FixtureRequest, credit_risk: Contract) -> Contract:
    made_up = {"home_loans": home_loans, "club_loans": club_loans}.get(request.param)
    return made_up.contract() if made_up else credit_risk


@FEW
@given(data=st.data())
def test_features_and_matrix_are_total_and_finite(contract: Contract, data: st.DataObject):
    kinds = {
        "number": (DOUBLES, pa.float64()),
        "integer": (st.one_of(st.none(), st.integers(-(2**53), 2**53)), pa.int64()),
        "category": (st.one_of(st.none(), st.text(max_size=5)), pa.string()),
        "text": (st.one_of(st.none(), st.text(max_size=5)), pa.string()),
        "date": (st.one_of(st.none(), st.dates()), pa.date32()),
    }
    size = data.draw(st.integers(1, 8))
    rows = {}
    for column in contract.input_columns:
        values, kind = kinds[column.type]
        if column.categories:
            values = st.one_of(values, st.sampled_from(column.categories))
        drawn = data.draw(st.lists(values, min_size=size, max_size=size))
        rows[column.name] = pa.array(drawn, kind)
    cleaned = duck.query(features_sql(contract, "typed"), typed=pa.table(rows))
    matrix = duck.query(matrix_sql(contract, "cleaned"), cleaned=cleaned)
    carried = [column.name for column in contract.input_columns]
    assert cleaned.column_names == [*carried, *contract.features]
    assert matrix.column_names == contract.model_inputs
    assert len(matrix) == size
    for name in contract.model_inputs:
        assert matrix.schema.field(name).type == pa.float64()
        seen = matrix[name].to_pylist()
        assert all(value is None or math.isfinite(value) for value in seen)
        if name in contract.categorical_inputs:
            codes = {value: code for code, value in enumerate(contract.categorical_inputs[name])}
            assert seen == [codes.get(value) for value in cleaned[name].to_pylist()]
        elif name in rows:
            assert seen == rows[name].to_pylist()


def test_features_are_the_arithmetic_the_contract_says(credit_risk: Contract):
    row = {
        "person_age": 40, "person_income": 50_000.0, "person_home_ownership": "OWN",
        "person_emp_length": 10.0, "loan_intent": "MEDICAL", "loan_amnt": 12_500.0,
        "cb_person_default_on_file": "N", "cb_person_cred_hist_length": 3,
    }  # fmt: skip
    nobody = {**row, "person_income": 0.0}
    typed = pa.Table.from_pylist([row, nobody])
    full, empty = duck.query(features_sql(credit_risk, "typed"), typed=typed).to_pylist()
    assert full["loan_to_income"] == 0.25
    assert empty["loan_to_income"] is None


def test_columns_carried_along_keep_their_place_before_the_inputs(credit_risk: Contract):
    inputs = features_sql(credit_risk, "rows", also=("id",))
    sql = matrix_sql(credit_risk, f"({inputs})", also=("id",))
    assert selected(sql, "duckdb") == ["id", *credit_risk.model_inputs]


def test_refusal_says_which_rules_a_row_breaks_and_asks_only_what_a_request_has():
    contract = home_loans.contract()
    sql = f"SELECT {refusal_sql(contract)} AS refused FROM rows"
    assert "sex" not in sql
    rows = pa.table({"order": [1, 2, None], "loan amount": [1500.0, 1500.0, None]})
    refused = duck.query(sql, rows=rows)["refused"].to_pylist()
    assert refused == ["first_lien_large: a first lien is never that small", "", ""]


def test_outcome_is_bad_good_or_not_known():
    rows = pa.table({"_outcome_text": ["defaulted", "written off", "paid", "open", None]})
    sql = f"SELECT {outcome_sql(home_loans.contract())} AS outcome FROM rows"
    assert duck.query(sql, rows=rows)["outcome"].to_pylist() == [1, 1, 0, None, None]


@pytest.mark.parametrize("name", ["plain", 'say "a"', "it's", "select", "a b"])
def test_any_name_can_be_quoted(name: str):
    found = duck.query(f"SELECT 1 AS {quoted(name)}")
    assert found.column_names == [name]


def test_every_statement_is_spark_sql_too(contract: Contract):
    inputs = features_sql(contract, "raw_loans", also=("application_id",))
    judged = typed_sql(contract, "staged", STAGED[1:])
    empty = duck.query(
        f"WITH judged AS ({judged}) {accepted_sql(contract, 'judged')}", staged=_no_rows(contract)
    )
    bins = fit_bins(contract, duck.query(features_sql(contract, "raw_loans"), raw_loans=empty))
    statements = [
        judged,
        accepted_sql(contract, "judged"),
        accepted_sql(contract, "judged", "reported"),
        refused_sql(contract, "staged"),
        quarantine_sql(contract, "book", 24_000),
        f"SELECT {outcome_sql(contract)} AS outcome FROM typed",
        f"SELECT {refusal_sql(contract)} AS refused FROM typed",
        inputs,
        matrix_sql(contract, f"({inputs})", also=("application_id",)),
        count_sql(contract, bins, "cleaned_features"),
    ]
    for statement in statements:
        assert selected(to_spark(statement), "spark") == selected(statement, "duckdb")


def selected(sql: str, dialect: str) -> list[str]:
    """Names of the columns a statement gives."""
    parsed = sqlglot.parse_one(sql, dialect=dialect)
    assert isinstance(parsed, sqlglot.exp.Query)
    return list(parsed.named_selects)


def _no_rows(contract: Contract) -> pa.Table:
    """A staged month as admission has it, without rows."""
    platform = {
        "_row": pa.int64(), "_place": pa.int32(), "_application_id": pa.string(),
        "_origin": pa.string(), "_applied_at": pa.timestamp("us", "UTC"),
        "_duplicate": pa.string(), "_outside": pa.string(),
    }  # fmt: skip
    texts = {column.name: pa.string() for column in contract.columns}
    return pa.schema([*platform.items(), *texts.items()]).empty_table()
