"""Plays a book against the running platform: applications over HTTP, outcomes as they mature.

Here: what a lender's front end and collections would do. Not here: the story told with it (`demo`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import httpx

from loan_platform.contract import Contract
from loan_platform.contract.sql import literal, outcome_sql, quoted, typed_sql
from loan_platform.decisions.outcomes import Outcome, record_outcomes
from loan_platform.engine import duck
from loan_platform.engine.files import replacing
from loan_platform.engine.home import Home
from loan_platform.ingest.staging import Book

CLIENTS = 16


@dataclass(frozen=True)
class Application:
    """One application to send, and what will become of the loan (1 bad, 0 good, None unknown)."""

    application_id: str
    applied_at: dt.datetime
    inputs: dict[str, Any]
    outcome: Literal[0, 1] | None

    def body(self) -> dict[str, Any]:
        return {
            **{
                name: value.isoformat() if isinstance(value, dt.date) else value
                for name, value in self.inputs.items()
            },
            "application_id": self.application_id,
            "applied_at": self.applied_at.isoformat(),
        }


@dataclass
class Answers:
    """What the service answered. `refused`: told what is wrong with the application (422).

    `failed`: anything else that is not a decision.
    """

    decided: int = 0
    refused: int = 0
    failed: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.decided + other.decided,
            self.refused + other.refused,
            self.failed + other.failed,
            self.decisions + other.decisions,
            self.versions + other.versions,
        )


def applications(contract: Contract, book: Book, month: str) -> list[Application]:
    """The month's applications in the order in which they were made, repeated rows once."""
    names = [column.name for column in contract.request_columns]
    written = "(SELECT *, 'book' AS _origin FROM staged)"
    with duck.connect() as connection:
        connection.register("staged", book.take(month))
        rows = connection.execute(
            f"WITH typed AS ({typed_sql(contract, written)}) "
            f"SELECT _application_id, _applied_at, {outcome_sql(contract)}, "
            f"{', '.join(f'typed.{quoted(name)}' for name in names)} "
            "FROM typed JOIN staged ON staged._row = typed._row WHERE _duplicate IS NULL "
            "ORDER BY _applied_at, _application_id"
        ).fetchall()
    return [
        Application(identity, applied_at, dict(zip(names, values, strict=True)), outcome)
        for identity, applied_at, outcome, *values in rows
    ]


def write_months(contract: Contract, book: Book, months: Iterable[str], path: Path) -> int:
    """Write some months of a book as a book of its own; return how many rows and other lines.

    A line that no row could be read from comes after the rows, as it is.
    """
    columns = ", ".join(quoted(column.name) for column in contract.columns)
    chosen = ", ".join(literal(month) for month in months)
    lines = book.connection.execute(
        f"SELECT line FROM malformed WHERE _month IN ({chosen}) ORDER BY _line_number"
    ).fetchall()
    with replacing(path) as temporary:
        written = book.connection.execute(
            f"COPY (SELECT {columns} FROM book WHERE _month IN ({chosen}) ORDER BY _row) "
            f"TO {literal(str(temporary))} (FORMAT csv, HEADER, COMPRESSION gzip)"
        ).fetchone()
        with gzip.open(temporary, "at", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for (line,) in lines)
    return (int(written[0]) if written else 0) + len(lines)


def scaled(asked: Sequence[Application], column: str, factor: float) -> list[Application]:
    """The same applications with `column` multiplied by `factor`, where it has a value."""
    return [
        one
        if one.inputs[column] is None
        else dataclasses.replace(
            one, inputs={**one.inputs, column: round(one.inputs[column] * factor, 2)}
        )
        for one in asked
    ]


def send(url: str, asked: Sequence[Application], progress: Callable[[int], None]) -> Answers:
    """Post applications to a service, `CLIENTS` at a time, calling `progress(1)` after each."""
    answers, noting = Answers(), Lock()
    trusted = httpx.create_ssl_context(trust_env=False)  # read from a file, so once for all

    def client(mine: Sequence[Application]) -> None:
        # Threads with a connection each: httpx's asynchronous client takes four times the work.
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=trusted) as connection:
            for application in mine:
                try:
                    response = connection.post("/predict", json=application.body())
                except httpx.HTTPError:
                    response = None
                with noting:
                    _note(answers, response)
                progress(1)

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(client, (asked[first::CLIENTS] for first in range(CLIENTS))))
    return answers


def _note(answers: Answers, response: httpx.Response | None) -> None:
    if response is None:
        answers.failed += 1
    elif response.status_code == 200:
        decision = response.json()
        answers.decided += 1
        answers.decisions[decision["decision"]] += 1
        answers.versions[decision["model_version"]] += 1
    elif response.status_code == 422:
        answers.refused += 1
    else:
        answers.failed += 1


def report_outcomes(
    contract: Contract, home: Home, asked: Sequence[Application], now: dt.datetime
) -> int:
    """Record the outcomes of the loans that have matured by `now`; return how many are new."""
    matures = dt.timedelta(days=contract.outcome.matures_after_days)
    known = [
        Outcome(
            application_id=one.application_id,
            outcome=one.outcome,
            known_at=one.applied_at + matures,
            source="lender",
        )
        for one in asked
        if one.outcome is not None and one.applied_at + matures <= now
    ]
    return record_outcomes(home, contract.name, known)
