"""The decision log: what the service answered, durable before it is answered.

SQLite: one file a worker (`<state>/decisions/<portfolio>/decisions-<worker>.db`), so workers
never wait for each other; readers unite them. With `LOAN_PLATFORM_DECISIONS_URL`: PostgreSQL.
Not here: outcomes (`outcomes`), or the tables themselves (`database`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import sqlalchemy as sa

from loan_platform.contract.calendar import window
from loan_platform.decisions import database
from loan_platform.decisions.database import UTC_TIME, decisions
from loan_platform.engine.home import Home

FILES = "decisions-*.db"

SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()),
        ("application_id", pa.string()),
        ("applied_at", UTC_TIME),
        ("decided_at", UTC_TIME),
        ("model_version", pa.string()),
        ("contract_hash", pa.string()),
        ("policy_hash", pa.string()),
        ("probability_default", pa.float64()),
        ("label", pa.int64()),
        ("decision", pa.string()),
        ("inputs", pa.string()),
        ("reasons", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Decision:
    """One logged answer of the service. Times are aware; `inputs` is JSON by column name, and
    `reasons` a JSON list of what was said about it (`contract.request.Reason`)."""

    decision_id: str
    application_id: str
    applied_at: dt.datetime
    decided_at: dt.datetime
    model_version: str
    contract_hash: str
    policy_hash: str
    probability_default: float
    label: int
    decision: str
    inputs: str
    reasons: str


class DecisionLog:
    """Where one worker of the service writes; `worker` counts from 1. Used by one thread."""

    def __init__(self, home: Home, portfolio: str, worker: int) -> None:
        self._portfolio = portfolio
        if home.decisions_url:
            self._engine = database.server(home.decisions_url)
        else:
            self._engine = database.file(home.decisions / portfolio / f"decisions-{worker}.db")
        self._insert = sa.insert(decisions)
        self._created = False

    def append(self, batch: Sequence[Decision]) -> None:
        """Write a batch in one transaction; it is durable when this returns.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing can be relied on to be written.
        """
        if not self._created:  # not in __init__: a server that is down may come back
            database.create(self._engine, decisions)
            self._created = True
        rows = [
            {name: getattr(decision, name) for name in SCHEMA.names}
            | {"portfolio": self._portfolio}
            for decision in batch
        ]
        with self._engine.begin() as connection:
            connection.execute(self._insert, rows)

    def close(self) -> None:
        self._engine.dispose()


def read_decisions(home: Home, portfolio: str, key: str | None = None) -> pa.Table:
    """Decisions of a month (by `applied_at`; None: of all months), oldest answer first.

    `reasons` is null for a decision of a version that kept none.
    """
    where: list[database.Condition] = []
    if key is not None:
        start, end = window(key)
        where = [decisions.c.applied_at >= start, decisions.c.applied_at < end]
    table = database.read(home, portfolio, FILES, decisions, SCHEMA, *where)
    return table.sort_by([("decided_at", "ascending"), ("decision_id", "ascending")])
