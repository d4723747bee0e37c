"""The service's request and response models, made from the contract.

Here: what an application may look like, the example shown for it, and what is said about one
that does not. Nothing said ever repeats a value: it may be an applicant's.
Not here: HTTP (`bento`), or the row rules' evaluation (`engine.prepared`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import uuid
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import sqlglot
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import PydanticCustomError
from sqlglot import exp

from loan_platform.contract.portfolio import Column, Contract
from loan_platform.contract.settings import Decision

LARGEST_WHOLE = 2**53  # beyond it a DOUBLE skips whole numbers; `sql` refuses the same ones
AHEAD = dt.timedelta(days=1)  # how far in the future an application may be: clocks differ

LONGEST_TEXT = 1000  # characters of a text in a request

ID_FORM = "1 to 64 of: letters, digits, . _ : -"

APPLIED_AT = "When the application was made; now where it is left out"

Value = float | int | str | None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Application(BaseModel):
    """One loan application as the service takes it; a contract adds its columns and its times.

    Strict: text is never read as a number, nor a number as a category.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    application_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,63}$")] = Field(
        default_factory=lambda: uuid.uuid4().hex,
        description="The lender's own number of the application; made up where it is left out",
    )
    applied_at: AwareDatetime = Field(default_factory=_now, description=APPLIED_AT)

    day_as: ClassVar[str | None] = None
    """Name under which features read the day of the application (UTC), where they do."""

    @property
    def inputs(self) -> dict[str, Value]:
        """What the features read, by name: the columns as sent, dates as ISO 8601 text, and the
        day of the application where the contract's time column is read."""
        sent = self.model_dump(by_alias=True, exclude={"application_id", "applied_at"})
        if self.day_as is not None:
            sent[self.day_as] = self.applied_at.astimezone(dt.UTC).date().isoformat()
        return sent


class Reason(BaseModel):
    """One reason why an application was not approved; see docs/reasons.md for what it promises."""

    model_config = ConfigDict(frozen=True)

    column: str | None = Field(description="The column it is about; null where it is about none")
    value: Value = Field(description="What the application says; null where it says nothing")
    reference: Value = Field(
        description="What approved applications typically say: with it, and all else as it is, "
        "the probability of default would have been lower"
    )
    text: str = Field(description="The reason in words")


class DecisionResponse(BaseModel):
    """A decision of the service, already durable when it is read."""

    model_config = ConfigDict(protected_namespaces=())

    decision_id: str
    application_id: str
    decision: Decision
    probability_default: float = Field(ge=0, le=1)
    label: Literal[0, 1] = Field(description="1 where the probability reaches the threshold")
    model_version: str
    contract_hash: str
    policy_hash: str
    decided_at: dt.datetime
    reasons: list[Reason] = Field(
        description="Of a decision to refer or decline: one to four, the main one first"
    )


class FieldProblem(BaseModel):
    """What is wrong with one field of a request, and what mends it; never its value."""

    field: str
    problem: str
    mend: str


def request_model(contract: Contract) -> type[Application]:
    """The request model of a portfolio's service: `Application` with its input columns.

    `applied_at` lies between the first day of the book and tomorrow, and is given in UTC.
    """
    # A column may be called anything (`copy`, `loan amount`): it lives under an alias.
    fields: dict[str, Any] = {
        f"column_{position}": (_annotation(column), _field(column))
        for position, column in enumerate(contract.request_columns)
    }
    first_day = contract.time.first_day
    fields["applied_at"] = (
        Annotated[AwareDatetime, AfterValidator(_within(first_day))],
        Field(default_factory=_now, description=f"{APPLIED_AT}. Not before {first_day}"),
    )
    model = create_model(
        "Application",
        __base__=Application,
        __doc__=f"One application to: {contract.title}",
        **fields,
    )
    time = contract.time_column
    model.day_as = time.name if time in contract.input_columns and time else None
    return model


def example(contract: Contract) -> dict[str, Value]:
    """A request to try: the usual values where the contract has figures, else mid-range ones."""
    return {column.name: _usual(contract, column) for column in contract.request_columns}


def takes(column: Column) -> str:
    """What a column accepts, in words: 'a whole number from 18 to 100 (years)'."""
    if column.type == "category":
        text = f"one of {', '.join(column.categories or [])}"
    elif column.type == "date":
        text = "a date as 2003-10-31"
    elif column.type == "text":
        text = f"text of at most {LONGEST_TEXT:,} characters"
    else:
        text = "a whole number" if column.type == "integer" else "a number"
        if column.range:
            text += f" from {_plain(column.range[0])} to {_plain(column.range[1])}"
        if column.unit:
            text += f" ({column.unit})"
    return text + (", or null" if column.nulls == "allowed" else "")


def field_problems(contract: Contract, error: ValidationError) -> list[FieldProblem]:
    """What a refused request must mend, one entry a field."""
    columns = {column.name: column for column in contract.request_columns}
    found: dict[str, FieldProblem] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(detail["loc"][0]) if detail["loc"] else ""
        kind = detail["type"]
        if field in columns:
            column = columns[field]
            problem, mend = _problem(column, kind), f"give {takes(column)}"
        elif kind == "extra_forbidden":
            problem, mend = "not a field of this portfolio", _leave_out(contract, field)
        elif field == "application_id":
            problem, mend = "not a valid id", f"give {ID_FORM}; or leave it out"
        elif field == "applied_at":
            problem, mend = _time_problem(contract, kind)
        else:
            problem, mend = "not a JSON object", "send one JSON object with a field for each column"
        found.setdefault(field, FieldProblem(field=field[:120], problem=problem, mend=mend))
    return list(found.values())


def rule_problems(contract: Contract, refusal: str) -> list[FieldProblem]:
    """The columns of the row rules named in a refusal (as `sql.refusal_sql` gives it)."""
    return [
        FieldProblem(
            field=name,
            problem=f"{rule.name}: {rule.reason}",
            mend=f"mend {' and '.join(names)} so that they agree",
        )
        for rule in contract.rules
        if f"{rule.name}: {rule.reason}" in refusal
        for names in [_columns_of(rule.refuse_when)]
        for name in names
        if name in {column.name for column in contract.request_columns}
    ]


def _within(first_day: dt.date) -> Callable[[dt.datetime], dt.datetime]:
    """Gives a moment in UTC; refuses one that no month of the book can hold."""
    begin = dt.datetime(first_day.year, first_day.month, first_day.day, tzinfo=dt.UTC)

    def check(moment: dt.datetime) -> dt.datetime:
        if moment < begin:
            raise PydanticCustomError("too_early", "before the book begins")
        if moment > _now() + AHEAD:
            raise PydanticCustomError("too_late", "in the future")
        return moment.astimezone(dt.UTC)

    return check


def _time_problem(contract: Contract, kind: str) -> tuple[str, str]:
    first = contract.time.first_day
    match kind:
        case "too_early":
            return "before the book begins", f"give a time from {first} on; or leave it out"
        case "too_late":
            return "in the future", "give the time the application was made; or leave it out"
        case _:
            form = f"an ISO 8601 time with its zone, as {first}T12:00:00Z"
            return "not a valid time", f"give {form}; or leave it out"


def _said(text: str) -> str:
    """A text as a book's is read: without the spaces around it."""
    if not (said := text.strip(" ")):
        raise PydanticCustomError("blank", "nothing is said")
    if not said.isprintable():
        raise PydanticCustomError("unprintable", "has a character that cannot be shown")
    return said


def _annotation(column: Column) -> Any:
    match column.type:
        case "date":
            kind: Any = Annotated[dt.date, PlainSerializer(dt.date.isoformat)]
        case "text":
            kind = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_said)]
        case "category":
            kind = Literal[tuple(column.categories or [])]
        case "integer":
            low, high = column.range or (-LARGEST_WHOLE, LARGEST_WHOLE)
            # JSON knows one kind of number: 30.0 is a whole number, 30.5 and "30" are not.
            kind = Annotated[
                float,
                Field(ge=max(low, -LARGEST_WHOLE), le=min(high, LARGEST_WHOLE), multiple_of=1),
                AfterValidator(int),
                WithJsonSchema({"type": "integer", **_bounds(column)}),
            ]
        case _:
            bounds = column.range or (None, None)
            kind = Annotated[float, Field(ge=bounds[0], le=bounds[1])]
    return kind | None if column.nulls == "allowed" else kind


def _field(column: Column) -> Any:
    accepted = takes(column)
    described = ". ".join(filter(None, [column.description, accepted[0].upper() + accepted[1:]]))
    settings: dict[str, Any] = {"alias": column.name, "title": column.name}
    if column.nulls == "allowed":
        settings["default"] = None
    return Field(description=described, **settings)


def _bounds(column: Column) -> dict[str, float]:
    return {"minimum": column.range[0], "maximum": column.range[1]} if column.range else {}


def _usual(contract: Contract, column: Column) -> Value:
    simulation = contract.simulation
    figures = simulation.columns[column.name].good if simulation else None
    if isinstance(figures, dict):
        return max(figures, key=lambda value: figures[value])
    if column.type == "category":
        return column.categories[0] if column.categories else None
    if column.type == "date":
        return contract.time.first_day.isoformat()
    if column.type == "text":
        return "text"
    if isinstance(figures, list) and simulation:
        nearest = min(range(len(figures)), key=lambda at: abs(simulation.probabilities[at] - 0.5))
        value = figures[nearest]
    elif column.range is None:
        value = 1.0
    elif simulation:
        value = column.range[0]  # computed there: perhaps of few values, and none in the middle
    else:
        value = sum(column.range) / 2
    return int(value) if column.type == "integer" else value


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _problem(column: Column, kind: str) -> str:
    match kind:
        case "missing":
            return "missing"
        case "literal_error":
            return "not a listed category"
        case "greater_than_equal":
            return "too small"
        case "less_than_equal":
            return "too large"
        case "finite_number":
            return "not a finite number"
        case "string_too_long":
            return "too long"
        case "blank":
            return "empty"
        case "unprintable":
            return "has a line break, a tab or another character that cannot be shown"
        case _:
            kinds = {
                "integer": "a whole number",
                "number": "a number",
                "date": "a date",
                "text": "text",
            }
            return f"not {kinds.get(column.type, 'a listed category')}"


def _leave_out(contract: Contract, field: str) -> str:
    for column in contract.columns:
        if column.name == field:
            if column.role == "time":
                return "leave it out, and say in applied_at when the application was made"
            why = column.reason or f"its role is {column.role}, so no model sees it"
            return f"leave it out: {why}"
    if reason := contract.ignored_columns.get(field):
        return f"leave it out: {reason}"
    known = [column.name for column in contract.request_columns]
    near = difflib.get_close_matches(field, known, n=1)
    return (
        f"did you mean {near[0]}?" if near else f"leave it out; the fields are {', '.join(known)}"
    )


def _columns_of(condition: str) -> list[str]:
    tree = sqlglot.parse_one(condition, dialect="duckdb")
    return list(dict.fromkeys(reference.name for reference in tree.find_all(exp.Column)))
