"""The request model takes every valid application and tells of the others without their values."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loan_platform.contract import Contract, read_contract
from loan_platform.contract.portfolio import Column
from loan_platform.contract.request import example, field_problems, request_model, rule_problems
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform_tests import club_loans
from loan_platform_tests.conftest import CREDIT_RISK

CONTRACT = read_contract(CREDIT_RISK)
REQUEST = request_model(CONTRACT)


def values(column: Column) -> st.SearchStrategy[Any]:
    """What a contract's own words allow for a column."""
    if column.categories:
        allowed: st.SearchStrategy[Any] = st.sampled_from(column.categories)
    else:
        assert column.range is not None
        low, high = column.range
        whole = st.integers(math.ceil(low), math.floor(high))
        real = st.floats(low, high, allow_nan=False)
        allowed = whole if column.type == "integer" else whole | real
    return st.none() | allowed if column.nulls == "allowed" else allowed


VALID = st.fixed_dictionaries({c.name: values(c) for c in CONTRACT.feature_columns})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def problems_of(body: object) -> dict[str, str]:
    """Problem by field of a request that must be refused."""
    with pytest.raises(ValidationError) as refused:
        REQUEST.model_validate_json(json.dumps(body))
    found = field_problems(CONTRACT, refused.value)
    assert found
    return {problem.field: problem.problem for problem in found}


def with_change(**change: object) -> dict[str, object]:
    return {**example(CONTRACT), **change}


@given(VALID)
def test_every_valid_application_is_taken_as_it_is(row: dict[str, Any]) -> None:
    application = REQUEST.model_validate_json(json.dumps(row))
    assert application.inputs == row
    assert list(application.inputs) == [column.name for column in CONTRACT.feature_columns]
    integers = [c.name for c in CONTRACT.feature_columns if c.type == "integer"]
    assert all(type(application.inputs[name]) is int for name in integers)


@given(VALID, st.sampled_from([c.name for c in CONTRACT.feature_columns]), JSON)
def test_any_value_is_taken_or_refused_with_its_field_named(
    row: dict[str, Any], name: str, value: object
) -> None:
    try:
        REQUEST.model_validate_json(json.dumps({**row, name: value}))
    except ValidationError as refused:
        problems = field_problems(CONTRACT, refused)
        assert [problem.field for problem in problems] == [name]


def test_the_example_is_a_valid_application() -> None:
    assert REQUEST.model_validate_json(json.dumps(example(CONTRACT))).inputs == example(CONTRACT)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("person_age", "31", "not a whole number"),
        ("person_age", 31.5, "not a whole number"),
        ("person_age", True, "not a whole number"),
        ("person_age", None, "not a whole number"),
        ("person_age", 17, "too small"),
        ("person_age", 101, "too large"),
        ("person_income", "60000", "not a number"),
        ("person_income", [60000], "not a number"),
        ("person_income", math.nan, "not a finite number"),
        ("person_income", math.inf, "not a finite number"),
        ("person_income", 10**400, "not a finite number"),
        ("person_income", -0.01, "too small"),
        ("loan_intent", "BOAT", "not a listed category"),
        ("loan_intent", "medical", "not a listed category"),
        ("loan_intent", 3, "not a listed category"),
        ("loan_grade", "A", "not a field of this portfolio"),
        ("person_agee", 31, "not a field of this portfolio"),
        ("column_0", 31, "not a field of this portfolio"),
        ("application_id", "no spaces", "not a valid id"),
        ("application_id", "x" * 65, "not a valid id"),
        ("application_id", 7, "not a valid id"),
        ("applied_at", "2025-01-31", "not a valid time"),
        ("applied_at", "2025-01-31T12:00:00", "not a valid time"),
        ("applied_at", 1738324800, "not a valid time"),
        ("applied_at", "2023-12-31T23:59:59Z", "before the book begins"),
        ("applied_at", "2024-01-01T00:30:00+01:00", "before the book begins"),
        ("applied_at", "0001-01-01T00:00:00+14:00", "before the book begins"),
        ("applied_at", "9999-12-31T23:59:59-12:00", "in the future"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: object, problem: str) -> None:
    assert problems_of(with_change(**{field: value})) == {field: problem}


def test_everything_missing_is_told_at_once() -> None:
    needed = {c.name for c in CONTRACT.feature_columns if c.nulls == "refused"}
    assert problems_of({}) == dict.fromkeys(needed, "missing")
    assert problems_of([1, 2]) == {"": "not a JSON object"}


@given(st.text(min_size=12, alphabet="abcdefgh"), st.integers(10**14, 10**15))
def test_no_problem_repeats_a_value(text: str, number: int) -> None:
    body = with_change(
        loan_intent=text, person_age=number, application_id=text + " ", applied_at=text
    )
    with pytest.raises(ValidationError) as refused:
        REQUEST.model_validate_json(json.dumps(body))
    said = " ".join(
        problem.model_dump_json() for problem in field_problems(CONTRACT, refused.value)
    )
    assert text not in said
    assert str(number) not in said


def test_a_number_may_be_written_either_way() -> None:
    application = REQUEST.model_validate_json(json.dumps(with_change(person_age=31.0)))
    assert application.inputs["person_age"] == 31
    application = REQUEST.model_validate_json(json.dumps(with_change(person_income=60000)))
    assert type(application.inputs["person_income"]) is float


def test_id_and_time_are_kept_or_made() -> None:
    given_both = REQUEST.model_validate_json(
        json.dumps(with_change(application_id="A-7", applied_at="2025-02-01T01:30:00+02:00"))
    )
    assert given_both.application_id == "A-7"
    assert given_both.applied_at == dt.datetime(2025, 1, 31, 23, 30, tzinfo=dt.UTC)
    assert given_both.applied_at.utcoffset() == dt.timedelta(0)
    first, second = (REQUEST.model_validate_json(json.dumps(with_change())) for _ in range(2))
    assert first.application_id != second.application_id
    assert abs(dt.datetime.now(dt.UTC) - first.applied_at) < dt.timedelta(minutes=1)


def test_a_time_lies_between_the_first_day_of_the_book_and_tomorrow() -> None:
    first = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    now = dt.datetime.now(dt.UTC)
    for moment in (first, now, now + dt.timedelta(hours=23)):
        body = with_change(applied_at=moment.isoformat())
        assert REQUEST.model_validate_json(json.dumps(body)).applied_at == moment
    for moment, what in ((first, "before the book begins"), (now, "in the future")):
        away = dt.timedelta(seconds=-1) if moment is first else dt.timedelta(hours=25)
        body = with_change(applied_at=(moment + away).isoformat())
        assert problems_of(body) == {"applied_at": what}
    described = REQUEST.model_json_schema()["properties"]["applied_at"]["description"]
    assert "Not before 2024-01-01" in described


def test_a_column_may_have_any_name() -> None:
    contract = Contract.model_validate(
        {
            "name": "cars",
            "title": "Car loans",
            "source": {"path": "cars.csv"},
            "time": {"replay": {"start": "2024-01-01", "periods": 12}},
            "outcome": {"bad": ["1"], "good": ["0"], "matures_after_days": 30},
            "columns": [
                {"name": "copy", "type": "number"},
                {"name": "model_dump", "type": "number", "nulls": "allowed"},
                {"name": "Loan amount", "type": "integer", "range": [1, 9]},
                {"name": "class", "type": "category", "categories": ["a", "b;'\""]},
                {"name": "bad", "type": "category", "categories": ["0", "1"], "role": "outcome"},
            ],
        }
    )
    row = {"copy": 1.5, "model_dump": None, "Loan amount": 3, "class": "b;'\""}
    assert request_model(contract).model_validate_json(json.dumps(row)).inputs == row
    assert set(example(contract)) == set(row)
    request_model(contract).model_validate_json(json.dumps(example(contract)))


def test_the_schema_carries_what_the_contract_says() -> None:
    properties = REQUEST.model_json_schema()["properties"]
    assert properties["person_age"]["type"] == "integer"
    assert (properties["person_age"]["minimum"], properties["person_age"]["maximum"]) == (18, 100)
    assert properties["loan_intent"]["enum"][0] == "EDUCATION"
    assert "USD a year" in properties["person_income"]["description"]
    assert REQUEST.model_json_schema()["additionalProperties"] is False


def test_a_broken_rule_names_its_columns() -> None:
    refusal = "employed_longer_than_alive: employment is longer than life"
    problems = rule_problems(CONTRACT, refusal)
    assert {problem.field for problem in problems} == {"person_emp_length", "person_age"}
    assert all(problem.problem == refusal for problem in problems)
    assert rule_problems(CONTRACT, "") == []


CLUB = club_loans.contract()


@given(
    st.fixed_dictionaries(
        {
            "earliest line": st.none() | st.dates().map(str),
            "purpose": st.none() | st.text(st.characters(codec="utf-8"), max_size=40),
        }
    )
)
def test_dates_and_texts_are_taken_as_a_book_would_be_read(row: dict[str, Any]) -> None:
    body = example(CLUB) | row
    purpose = (row["purpose"] or "").strip(" ")
    try:
        inputs = request_model(CLUB).model_validate_json(json.dumps(body)).inputs
    except ValidationError:
        assert row["purpose"] is not None
        assert not purpose or not purpose.isprintable()
        return
    assert inputs["earliest line"] == row["earliest line"]
    assert inputs["purpose"] == (purpose or None)
    assert json.loads(json.dumps(inputs)) == inputs


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("earliest line", "Aug-2001", "not a date"),
        ("earliest line", "2001-08-01T00:00:00", "not a date"),
        ("earliest line", "2001-02-30", "not a date"),
        ("earliest line", 7, "not a date"),
        ("purpose", "x" * 1001, "too long"),
        ("purpose", "  ", "empty"),
        ("purpose", "a\nb", "has a line break, a tab or another character that cannot be shown"),
        ("purpose", 7, "not text"),
        ("home", "O", "not a listed category"),
        ("years", "10+ years", "not a whole number"),
        ("issue_d", "2009-11-01", "not a field of this portfolio"),
        ("recoveries", 1, "not a field of this portfolio"),
    ],
)
def test_a_request_carries_typed_values(field: str, value: object, problem: str) -> None:
    """The book's own notation in a request, or a field that no request has."""
    with pytest.raises(ValidationError) as refused:
        request_model(CLUB).model_validate_json(json.dumps(example(CLUB) | {field: value}))
    (told,) = field_problems(CLUB, refused.value)
    assert (told.field, told.problem) == (field, problem)
    reasons = {"issue_d": "say in applied_at", "recoveries": "known only afterwards"}
    assert reasons.get(field, "give ") in told.mend


def test_the_day_of_the_application_is_filled_in_and_never_asked() -> None:
    body = example(CLUB) | {"applied_at": "2009-12-01T00:30:00+01:00"}
    application = request_model(CLUB).model_validate_json(json.dumps(body))
    assert application.inputs["issue_d"] == "2009-11-30"
    properties = request_model(CLUB).model_json_schema()["properties"]
    assert "issue_d" not in properties
    assert properties["earliest line"]["anyOf"][0] == {"type": "string", "format": "date"}
    refusal = "older_than_the_loan: the first line of credit comes after the application"
    assert [problem.field for problem in rule_problems(CLUB, refusal)] == ["earliest line"]


@pytest.mark.parametrize(
    "defs", sorted(CREDIT_RISK.parents[1].glob("*/defs.yaml")), ids=lambda defs: defs.parent.name
)
def test_the_example_of_a_bundled_portfolio_would_be_decided(defs: Path) -> None:
    """A page whose own example is refused for breaking a rule of the portfolio."""
    contract = read_contract(defs)
    application = request_model(contract).model_validate_json(json.dumps(example(contract)))
    _, refusals = PreparedFeatures(contract).evaluate([application.inputs])
    assert refusals == [""]
