"""What became of decided loans, as somebody other than a model learned it.

Nothing is overwritten: a second, different word on a loan is kept beside the first, reading
takes the one known last, and says that there was another.
Not here: decisions (`log`), or the tables themselves (`database`).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.dialects import postgresql, sqlite

from loan_platform.decisions import database
from loan_platform.decisions.database import UTC_TIME
from loan_platform.decisions.database import outcomes as table
from loan_platform.engine import duck
from loan_platform.engine.home import Home

logger = logging.getLogger(__name__)

FILE = "outcomes.db"

SCHEMA = pa.schema(
    [
        ("application_id", pa.string()),
        ("outcome", pa.int64()),
        ("known_at", UTC_TIME),
        ("source", pa.string()),
        ("recorded_at", UTC_TIME),
    ]
)


def made_by_model(source: str) -> bool:
    """Whether a source of outcomes is a model's word, whichever: `model`, `service_v2`, ..."""
    return source.split("_")[0] in ("model", "service", "prediction")


class Outcome(BaseModel):
    """What became of one loan: 1 bad, 0 good; when that was known, and who says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    application_id: str = Field(min_length=1, max_length=200)
    outcome: Literal[0, 1]
    known_at: Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(dt.UTC))]
    source: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")

    @field_validator("source")
    @classmethod
    def _refuse_a_model(cls, source: str) -> str:
        if made_by_model(source):
            raise ValueError(
                "an outcome is what was observed, never what a model says: training on it would "
                "teach the model its own opinion; name who observed it, as lender or bureau"
            )
        return source


# The word known last counts; of two known at once, the one recorded last, then the worse.
LATEST_SQL = """
SELECT application_id, outcome, known_at, source, recorded_at,
    min(outcome) OVER loan < max(outcome) OVER loan AS contradicted
FROM history
WINDOW loan AS (PARTITION BY application_id)
QUALIFY row_number() OVER (
    PARTITION BY application_id ORDER BY known_at DESC, recorded_at DESC, outcome DESC
) = 1
ORDER BY known_at, application_id
"""


def record_outcomes(home: Home, portfolio: str, outcomes: Sequence[Outcome]) -> int:
    """Record outcomes durably; give how many were not recorded before. Repeating is harmless."""
    if not outcomes:
        return 0
    now = dt.datetime.now(dt.UTC)
    rows = [
        outcome.model_dump() | {"portfolio": portfolio, "recorded_at": now} for outcome in outcomes
    ]
    if home.decisions_url:
        engine = database.server(home.decisions_url)
        insert: Any = postgresql.insert(table)
    else:
        engine = database.file(home.decisions / portfolio / FILE)
        insert = sqlite.insert(table)
    new_rows = insert.on_conflict_do_nothing().returning(table.c.application_id)
    contradicted = (
        sa.select(table.c.application_id)
        .where(table.c.portfolio == portfolio)
        .group_by(table.c.application_id)
        .having(sa.func.min(table.c.outcome) < sa.func.max(table.c.outcome))
    )
    try:
        database.create(engine, table)
        with engine.begin() as connection:
            recorded = len(connection.execute(new_rows, rows).all())
            disputed = len(connection.execute(contradicted).all())
    finally:
        engine.dispose()
    if recorded and disputed:
        logger.warning(
            "%s: %d loans have outcomes that contradict each other. The one known last counts; "
            "all are kept, see read_outcome_history.",
            portfolio,
            disputed,
        )
    return recorded


def read_outcomes(home: Home, portfolio: str) -> pa.Table:
    """One row a loan: its outcome known last, and whether another word on it was `contradicted`."""
    return duck.query(LATEST_SQL, history=read_outcome_history(home, portfolio))


def read_outcome_history(home: Home, portfolio: str) -> pa.Table:
    """Every outcome ever recorded, in the order it became known."""
    history = database.read(home, portfolio, FILE, table, SCHEMA)
    return history.sort_by([(name, "ascending") for name in ("known_at", "recorded_at")])
