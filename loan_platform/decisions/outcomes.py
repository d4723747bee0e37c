"""What became of loans, as somebody other than a model learned it.

Nothing is overwritten: a second, different word on a loan is kept beside the first. Reading
takes the word known last, or known last by some moment, and says that there was another.
Not here: decisions (`log`), the tables themselves (`database`), reports of outcomes that arrive
as files and tables (`ingest.reports`).
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import sqlalchemy as sa
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError
from sqlalchemy.dialects import postgresql, sqlite

from loan_platform.decisions import database
from loan_platform.decisions.database import UTC_TIME
from loan_platform.decisions.database import outcomes as table
from loan_platform.engine import duck
from loan_platform.engine.home import Home

logger = logging.getLogger(__name__)

FILE = "outcomes.db"
IDS_AT_ONCE = 5_000  # in one statement; SQLite takes some 32,000

SCHEMA = pa.schema(
    [
        ("application_id", pa.string()),
        ("outcome", pa.int64()),
        ("known_at", UTC_TIME),
        ("source", pa.string()),
        ("recorded_at", UTC_TIME),
    ]
)


LONGEST_ID = 200
SOURCE_FORM = r"^[a-z][a-z0-9_]{0,39}$"
TIME_FORM = re.compile(r"^\d{4}-\d{2}-\d{2}([T ]|$)")
EARLIEST = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)  # before it a year is a mistyped one
CLOCKS_DIFFER = dt.timedelta(minutes=5)
DAY = dt.timedelta(days=1)

# In the syntax Python's `re` and DuckDB share.
BY_A_MODEL = "^service(_|$)|(^|_)(models?|predictions?|predicted|champion|challenger)(_|$)"


def made_by_model(source: str) -> bool:
    """Whether a source of outcomes is a model's word, whichever: `model_v2`, `service`, ..."""
    return re.search(BY_A_MODEL, source.lower()) is not None


def end_of(day: dt.date) -> dt.datetime:
    """The moment a day is over in UTC: what became known on a day is known from then on.

    A day says no hour, and an outcome must never be used before it was known.
    """
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) + DAY


def _moment(value: object) -> object:
    """A day as its end, a time as it is; a bare number is no time."""
    if isinstance(value, dt.datetime):
        return value
    if not isinstance(value, str) or not TIME_FORM.match(value):
        raise PydanticCustomError("no_time", "an ISO date, or a time with its zone")
    if len(value) > len("2025-06-30"):
        return value
    try:
        return end_of(dt.date.fromisoformat(value))
    except (ValueError, OverflowError):
        raise PydanticCustomError("no_time", "no day of the calendar") from None


def _known_already(moment: dt.datetime) -> dt.datetime:
    now = dt.datetime.now(dt.UTC)
    if moment < EARLIEST:
        raise PydanticCustomError("no_time", "long before any loan")
    if moment > now + CLOCKS_DIFFER and moment != end_of(now.date()):
        raise PydanticCustomError("in_the_future", "in the future")
    return moment.astimezone(dt.UTC)


KnownAt = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    AfterValidator(_known_already),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}),
]


class Outcome(BaseModel):
    """What became of one loan: 1 bad, 0 good; when that was known, and who says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    application_id: str = Field(
        min_length=1, max_length=LONGEST_ID, description="The application, as the lender numbers it"
    )
    outcome: Literal[0, 1] = Field(description="1 bad, 0 good")
    known_at: KnownAt = Field(
        description="Since when this is known: a time with its zone, or a day, which counts from "
        "its end (UTC)"
    )
    source: str = Field(
        pattern=SOURCE_FORM, description="Who observed it: lender, bureau, ...; never a model"
    )

    @field_validator("outcome", mode="before")
    @classmethod
    def _refuse_a_yes(cls, outcome: object) -> object:
        if isinstance(outcome, bool):
            raise PydanticCustomError("no_outcome", "1 or 0: yes may mean repaid or defaulted")
        return outcome

    @field_validator("source")
    @classmethod
    def _refuse_a_model(cls, source: str) -> str:
        if made_by_model(source):
            raise PydanticCustomError(
                "by_a_model",
                "an outcome is what was observed, never what a model says: training on it would "
                "teach the model its own opinion; name who observed it, as lender or bureau",
            )
        return source


def newest_words_sql(history: str, by: str = "TRUE") -> str:
    """One row a loan of `history`: the word on it that counts among those `by` a condition.

    The word known last counts; of two known at once, the one recorded last, then the worse.
    `contradicted`: there is a different one among them.
    """
    return (
        "SELECT application_id, outcome, known_at, source, recorded_at, contradicted FROM (\n"
        "  SELECT *, min(outcome) OVER (PARTITION BY application_id)\n"
        "      < max(outcome) OVER (PARTITION BY application_id) AS contradicted,\n"
        "    row_number() OVER (PARTITION BY application_id\n"
        "      ORDER BY known_at DESC, recorded_at DESC, outcome DESC, source) AS _turn\n"
        f"  FROM {history} WHERE {by}\n) AS words WHERE _turn = 1"
    )


def labelled_sql(rows: str, columns: Sequence[str], history: str, by: str = "TRUE") -> str:
    """`columns` of `rows`, where a loan that was ever reported on has the word that counts.

    `rows` has application_id, outcome, outcome_known_at and outcome_source of its own. These stand
    where nothing was reported. Elsewhere reports alone count: of the words in `history` the one
    known last `by` a condition, and none where none meets it. What a book's column says is
    the state of the day it was written, and the moment it became known is only assumed.
    """
    words = {"outcome": "outcome", "outcome_known_at": "known_at", "outcome_source": "source"}
    chosen = ", ".join(
        f'CASE WHEN reported.application_id IS NULL THEN loans."{name}" '
        f'ELSE words.{words[name]} END AS "{name}"'
        if name in words
        else 'loans."' + name.replace('"', '""') + '"'
        for name in columns
    )
    return (
        f"SELECT {chosen}\nFROM {rows} AS loans\n"
        f"LEFT JOIN (SELECT DISTINCT application_id FROM {history}) AS reported\n"
        "  ON reported.application_id = loans.application_id\n"
        f"LEFT JOIN (\n{newest_words_sql(history, by)}\n) AS words\n"
        "  ON words.application_id = loans.application_id"
    )


def record_outcomes(home: Home, portfolio: str, outcomes: Sequence[Outcome]) -> int:
    """Record outcomes durably; give how many were not recorded before. Repeating is harmless."""
    if not outcomes:
        return 0
    now = dt.datetime.now(dt.UTC)
    # In the order of the key: two who insert the same rows in different orders would each wait for
    # the other.
    in_order = sorted(outcomes, key=lambda one: (one.application_id, one.known_at, one.source))
    rows = [{**vars(one), "portfolio": portfolio, "recorded_at": now} for one in in_order]
    if home.decisions_url:
        engine = database.server(home.decisions_url)
        insert: Any = postgresql.insert(table)
    else:
        engine = database.file(home.decisions / portfolio / FILE)
        insert = sqlite.insert(table)
    new_rows = insert.on_conflict_do_nothing().returning(table.c.application_id)
    try:
        database.create(engine, table)
        with engine.begin() as connection:
            recorded = connection.execute(new_rows, rows).scalars().all()
            disputed = _disputed(connection, portfolio, recorded)
    finally:
        engine.dispose()
    if disputed:
        logger.warning(
            "%s: %d loans have outcomes that contradict each other. The one known last counts; "
            "all are kept, see read_outcome_history.",
            portfolio,
            disputed,
        )
    return len(recorded)


def _disputed(connection: sa.Connection, portfolio: str, applications: Sequence[str]) -> int:
    """How many of `applications` have words on them that contradict each other."""
    ids = sorted(set(applications))
    found = 0
    for first in range(0, len(ids), IDS_AT_ONCE):
        several = (
            sa.select(table.c.application_id)
            .where(
                table.c.portfolio == portfolio,
                table.c.application_id.in_(ids[first : first + IDS_AT_ONCE]),
            )
            .group_by(table.c.application_id)
            .having(sa.func.min(table.c.outcome) < sa.func.max(table.c.outcome))
        )
        found += len(connection.execute(several).all())
    return found


def history_path(home: Home, portfolio: str) -> Path:
    """Where the asset outcomes keeps every word on every loan of a portfolio, for its readers."""
    return home.portfolio(portfolio) / "outcome_history.parquet"


def read_outcomes(home: Home, portfolio: str) -> pa.Table:
    """One row a loan: its outcome known last, and whether another word on it was `contradicted`."""
    return newest_words(read_outcome_history(home, portfolio))


def newest_words(history: pa.Table) -> pa.Table:
    """Of every loan in `history` the word that counts, in the order it became known."""
    newest = f"{newest_words_sql('history')} ORDER BY known_at, application_id"
    return duck.query(newest, history=history)


def read_outcome_history(home: Home, portfolio: str) -> pa.Table:
    """Every word ever recorded, in the order it became known."""
    history = database.read(home, portfolio, FILE, table, SCHEMA)
    order = ("known_at", "recorded_at", "application_id", "source", "outcome")
    return history.sort_by([(name, "ascending") for name in order])
