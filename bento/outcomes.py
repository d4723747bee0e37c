"""Takes what became of loans: read whole, recorded durably, then answered.

An application the service never decided is no mistake: the lender's own book may hold it.
Not here: HTTP (`app`), or how outcomes are kept (`loan_platform.decisions.outcomes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json
from sqlalchemy.exc import SQLAlchemyError

from bento.refusal import Refused
from loan_platform.contract.request import FieldProblem
from loan_platform.decisions.outcomes import Outcome, record_outcomes
from loan_platform.engine.home import Home

logger = logging.getLogger("bentoml.loan_service")

MOST_OUTCOMES = 5_000  # in one request
MOST_WAITING = 64  # requests
MOST_TOLD = 20  # problems in one refusal

MENDS = {
    "application_id": "give the lender's number of the application as text, 1 to 200 characters",
    "outcome": "give 1 for bad or 0 for good",
    "known_at": "give since when it is known: a time with its zone, as 2025-06-30T12:00:00Z, or a "
    "day, as 2025-06-30; neither in the future",
    "source": "name who observed it in a-z, 0-9 and _, as lender or bureau; a model observes "
    "nothing",
}


class Receipt(BaseModel):
    """What came of a request: `received == recorded + already_known`; all of it is durable."""

    received: int = Field(ge=0)
    recorded: int = Field(ge=0)
    already_known: int = Field(ge=0, description="The very same word was recorded before")


class OutcomeDesk:
    """Records outcomes on a thread of its own: no decision waits for them."""

    def __init__(self, home: Home, portfolio: str) -> None:
        self._home = home
        self._portfolio = portfolio
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        self._waiting = 0

    async def take(self, body: bytes) -> Receipt:
        """Record the outcomes of a request: all of them, or none.

        Raises:
            Refused: they cannot be read or recorded.
        """
        if self._waiting >= MOST_WAITING:
            message = "More requests wait than can be answered in good time; try again"
            raise Refused(503, "overloaded", message)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._take, body)
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)

    def _take(self, body: bytes) -> Receipt:
        outcomes = _read(body)
        try:
            recorded = record_outcomes(self._home, self._portfolio, outcomes)
        except SQLAlchemyError as error:
            # From None: a database's message may repeat a row.
            logger.error("outcomes could not be recorded (%s)", type(error).__name__)
            message = "The outcomes could not be recorded; send them again, that is harmless"
            raise Refused(503, "not_recorded", message) from None
        return Receipt(
            received=len(outcomes), recorded=recorded, already_known=len(outcomes) - recorded
        )


OUTCOMES = TypeAdapter(list[Outcome])


def _read(body: bytes) -> list[Outcome]:
    try:
        sent = from_json(body)
    except ValueError:
        message = "The body is not valid JSON; check quotes, commas and braces"
        raise Refused(400, "malformed_json", message) from None
    if isinstance(sent, dict):
        sent = [sent]
    if not isinstance(sent, list):
        raise _unreadable([_problem("", "not a list of outcomes", "send a JSON list of objects")])
    if len(sent) > MOST_OUTCOMES:
        message = f"A request has at most {MOST_OUTCOMES} outcomes; send the rest in another one"
        raise Refused(413, "too_many", message)
    try:
        outcomes = OUTCOMES.validate_python(sent)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise _unreadable([_told(detail) for detail in details]) from None
    if contradictory := _contradictions(outcomes):
        raise _unreadable(contradictory)
    return outcomes


def _unreadable(problems: list[FieldProblem]) -> Refused:
    told = problems[:MOST_TOLD]
    named = ", ".join(problem.field for problem in told if problem.field) or "the body"
    more = f" and {len(problems) - len(told)} more places" if len(problems) > len(told) else ""
    message = f"The outcomes cannot be read, so none was recorded: {named}{more}"
    return Refused(422, "invalid_outcomes", message, told)


def _told(detail: ErrorDetails) -> FieldProblem:
    """What is wrong in one place, by its number in the list (from 0) and its field."""
    number, *rest = detail["loc"]
    field = str(rest[0]) if rest else ""
    mend = MENDS.get(field, f"leave it out; the fields are {', '.join(MENDS)}")
    match detail["type"]:
        case "missing":
            problem = "missing"
        case "extra_forbidden":
            problem = "not a field of an outcome"
        case "in_the_future":
            problem = "in the future"
        case "by_a_model":
            problem = "a model, but an outcome is what was observed"
        case _ if not field:
            problem, mend = "not a JSON object", f"send an object with {', '.join(MENDS)}"
        case _:
            problem = "not valid"
    return _problem(f"[{number}].{field[:120]}" if field else f"[{number}]", problem, mend)


def _contradictions(outcomes: Sequence[Outcome]) -> list[FieldProblem]:
    """Places that say the opposite of an earlier one: of the same moment, by the same source."""
    first: dict[tuple[Any, ...], int] = {}
    found = []
    for number, one in enumerate(outcomes):
        before = first.setdefault((one.application_id, one.known_at, one.source), number)
        if outcomes[before].outcome != one.outcome:
            problem = f"says the opposite of [{before}] of the same moment"
            mend = "leave the wrong one out; a correction is known later than what it corrects"
            found.append(_problem(f"[{number}].outcome", problem, mend))
    return found


def _problem(field: str, problem: str, mend: str) -> FieldProblem:
    return FieldProblem(field=field, problem=problem, mend=mend)


EXAMPLE = [
    {
        "application_id": "A-1",
        "outcome": 1,
        "known_at": "2025-06-30T12:00:00Z",
        "source": "lender",
    },
    {"application_id": "A-2", "outcome": 0, "known_at": "2025-06-30", "source": "bureau"},
]

SCHEMAS: dict[str, Any] = {
    "Outcome": Outcome.model_json_schema(),
    "Receipt": Receipt.model_json_schema(mode="serialization"),
}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


ONE: dict[str, Any] = _json("Outcome")["application/json"]["schema"]
SEVERAL = {"type": "array", "items": ONE, "maxItems": MOST_OUTCOMES}
REFUSALS = {
    "400": "The body is not JSON",
    "413": f"The body is too large, or has more than {MOST_OUTCOMES} outcomes",
    "415": "The body is not declared as JSON",
    "422": "An outcome is wrong; each place is named by its number in the list, from 0",
    "503": "No room, or no durable record; send it again",
}

# POST /outcomes as OpenAPI describes it.
OPERATION: dict[str, Any] = {
    "summary": "Tell what became of loans",
    "description": (
        "One outcome or a list of them, recorded durably before the answer: all or none. Sending "
        "the same again is harmless. A later word on a loan is kept beside the earlier one; the "
        "one known last counts, and none is learnt from as of a time before it was known. An "
        "application the service never decided is accepted: the lender's own book may hold it. "
        "No champion is needed."
    ),
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [ONE, SEVERAL]}, "example": EXAMPLE},
        },
    },
    "responses": {
        "200": {"description": "All of it is recorded", "content": _json("Receipt")},
        **{
            status: {"description": meaning, "content": _json("Refusal")}
            for status, meaning in REFUSALS.items()
        },
    },
}
