"""Takes in a report of outcomes: rows that say what became of a loan, since when, and who says so.

A report is a `Source` with the columns application_id, outcome, known_at and, where they differ,
source. What it says is recorded once, however often it is read; a row that cannot be recorded is
kept beside, with the reason.
Not here: how outcomes are kept (`decisions.outcomes`), or which rows they reach (`admission`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source
from loan_platform.contract.sql import literal, outcome_sql, quoted, received
from loan_platform.decisions.outcomes import (
    BY_A_MODEL,
    CLOCKS_DIFFER,
    EARLIEST,
    LONGEST_ID,
    SOURCE_FORM,
    Outcome,
    end_of,
    record_outcomes,
)
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.home import Home
from loan_platform.ingest.fetch import fetched
from loan_platform.ingest.reading import TextRelation, stage
from loan_platform.ingest.source import SourceError

REQUIRED = ("application_id", "outcome", "known_at")
ROWS_AT_ONCE = 20_000
OBSERVED_BY = "lender"  # who observed an outcome where a report does not say so

DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
ZONED = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    "(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
)


# What a row must not be: rule, condition over `compared`, and how it is told.
RULES = (
    ("application_id", "_id IS NULL", "application_id: missing"),
    (
        "application_id",
        f"length(_id) > {LONGEST_ID}",
        f"application_id: longer than {LONGEST_ID} characters",
    ),
    ("outcome", "_outcome_text IS NULL", "outcome: missing"),
    (
        "outcome",
        "_outcome_text IS NOT NULL AND _outcome IS NULL",
        "outcome: neither a good nor a bad outcome",
    ),
    ("known_at", "_known_text IS NULL", "known_at: missing"),
    (
        "known_at",
        "_known_text IS NOT NULL AND _known_at IS NULL",
        "known_at: neither an ISO date nor a time with its zone",
    ),
    ("known_at", "_known_at < _earliest", f"known_at: before {EARLIEST.year}"),
    ("known_at", "_known_at > _latest AND _known_at <> _today", "known_at: in the future"),
    (
        "source",
        f"regexp_matches(_source, {literal(BY_A_MODEL)})",
        "source: a model, but an outcome is what was observed",
    ),
    (
        "source",
        f"NOT regexp_matches(_source, {literal(SOURCE_FORM)})",
        "source: not a name of at most 40 letters and digits",
    ),
    (
        "contradictory",
        "_contradictory",
        "contradictory: another row of the report says the opposite of the same moment",
    ),
)


@dataclass(frozen=True)
class Taken:
    """What came of a report. `rows == recorded + already_known + refused`, always.

    `reasons`: refusals by reason; a row with two reasons counts under both. `refused_file`: where
    the refused rows lie, None where there are none.
    """

    rows: int
    recorded: int
    already_known: int
    refused: int
    reasons: dict[str, int]
    refused_file: Path | None


def take_in(
    contract: Contract, home: Home, source: Source, observed_by: str = OBSERVED_BY
) -> Taken:
    """Record what a report says; `observed_by` is the source of rows that name none.

    An outcome is one of the contract's own words for bad and good, or 1 (bad) and 0 (good) where
    the contract gives these no meaning. A day in `known_at` counts from its end: no label is used
    before it was known. Rows of one report that say the opposite of the same moment, by the same
    source, are all refused; of two moments the later is a correction.

    Raises:
        SourceError: the report cannot be read, or lacks a column.
    """
    with (
        tempfile.TemporaryDirectory(prefix="loan_platform_") as spill,
        duck.connect(spill=Path(spill)) as connection,
    ):
        header = _stage(contract, connection, source, observed_by)
        refused = _count(connection, "judged WHERE _rule <> ''")
        malformed = _count(connection, "rejected")
        accepted = _count(connection, "judged") - refused
        kept = None
        if refused + malformed:
            kept = _keep_refused(contract, home, source, header, connection)
        recorded = sum(
            record_outcomes(home, contract.name, batch) for batch in _accepted(connection)
        )
        reasons = connection.execute(
            "SELECT reason, count(*) FROM ("
            "SELECT unnest(string_split(_reason, '; ')) AS reason FROM judged WHERE _rule <> '' "
            "UNION ALL SELECT reason FROM rejected) GROUP BY ALL ORDER BY 2 DESC, 1"
        ).fetchall()
    return Taken(
        rows=accepted + refused + malformed,
        recorded=recorded,
        already_known=accepted - recorded,
        refused=refused + malformed,
        reasons=dict(reasons),
        refused_file=kept,
    )


def _stage(
    contract: Contract, connection: duckdb.DuckDBPyConnection, source: Source, observed_by: str
) -> list[str]:
    """Make `judged`, the report's rows with what they mean and break, and `rejected`, its lines
    that no row could be read from."""

    def as_it_is(text: TextRelation) -> str:
        _require_columns(source, text.header)
        return (
            "CREATE OR REPLACE TABLE report AS "
            f"SELECT row_number() OVER () AS _row, * FROM {text.sql} AS rows"
        )

    if source.one_file_a_partition:
        raise SourceError(
            f"the report {source.name} has {{partition}} in its path, but reports do not lie by "
            "month of application; give all of them by a glob (outcomes/*.csv)."
        )
    with fetched(source) as files:
        header, rejected = stage(connection, source, files, as_it_is)
    connection.register("lines", rejected)
    connection.execute("CREATE TABLE rejected AS FROM lines")
    connection.execute(f"CREATE TABLE judged AS {_judged_sql(contract, header, observed_by)}")
    connection.execute("DROP TABLE report")
    return header


def _require_columns(source: Source, header: list[str]) -> None:
    found = {name.lower() for name in header}
    for name in REQUIRED:
        if name not in found:
            near = difflib.get_close_matches(name, header, n=1)
            hint = f"; {near[0]} looks like it" if near else ""
            raise SourceError(
                f"the report {source.name} has no column {name}{hint}. A report of outcomes has "
                f"the columns {', '.join(REQUIRED)} and perhaps source; rename its columns so."
            )


def _judged_sql(contract: Contract, header: list[str], observed_by: str) -> str:
    """Rows of `report` with `_outcome`, `_known_at`, `_source`, and the `_rule`s each breaks."""
    named = {name.lower(): name for name in header}
    text = {name: received(named[name]) for name in REQUIRED}
    source = received(named["source"]) if "source" in named else "NULL"
    now = dt.datetime.now(dt.UTC)
    known = (
        f"CASE WHEN regexp_matches(_known_text, {literal(DAY)}) "
        "THEN CAST(TRY_CAST(_known_text AS date) + INTERVAL 1 DAY AS TIMESTAMPTZ) "
        f"WHEN regexp_matches(_known_text, {literal(ZONED)}) "
        "THEN TRY_CAST(_known_text AS TIMESTAMPTZ) END"
    )
    rules = ", ".join(f"CASE WHEN {broken} THEN {literal(rule)} END" for rule, broken, _ in RULES)
    reasons = ", ".join(f"CASE WHEN {broken} THEN {literal(why)} END" for _, broken, why in RULES)
    earliest, latest, today = (
        f"TIMESTAMPTZ {literal(moment.isoformat())}"
        for moment in (EARLIEST, now + CLOCKS_DIFFER, end_of(now.date()))
    )
    return (
        "WITH texts AS (\n"
        f"  SELECT *, {text['application_id']} AS _id, {text['outcome']} AS _outcome_text,\n"
        f"    {text['known_at']} AS _known_text,\n"
        f"    trim(regexp_replace(lower(coalesce({source}, {literal(observed_by)})),\n"
        "      '[^a-z0-9]+', '_', 'g'), '_') AS _source\n"
        "  FROM report\n), meant AS (\n"
        f"  SELECT *, {_meaning_sql(contract)} AS _outcome, {known} AS _known_at,\n"
        f"    {earliest} AS _earliest, {latest} AS _latest, {today} AS _today FROM texts\n"
        "), compared AS (\n"
        "  SELECT *, coalesce(min(_outcome) OVER word < max(_outcome) OVER word\n"
        "    AND _id IS NOT NULL AND _known_at IS NOT NULL, false) AS _contradictory\n"
        "  FROM meant WINDOW word AS (PARTITION BY _id, _known_at, _source)\n)\n"
        f"SELECT *, concat_ws(' ', {rules}) AS _rule,\n"
        f"  concat_ws('; ', {reasons}) AS _reason FROM compared"
    )


def _meaning_sql(contract: Contract) -> str:
    """1 bad, 0 good, NULL neither. The contract's own words go first: to it 1 may be good."""
    return (
        f"coalesce({outcome_sql(contract)}, CASE _outcome_text WHEN '1' THEN 1 WHEN '0' THEN 0 END)"
    )


def _accepted(connection: duckdb.DuckDBPyConnection) -> Iterator[list[Outcome]]:
    """The outcomes of a report in batches; `judged` has asked of each what `Outcome` asks."""
    found = connection.sql(
        "SELECT _id, _outcome, _known_at, _source FROM judged WHERE _rule = '' ORDER BY _row"
    )
    for batch in found.to_arrow_reader(ROWS_AT_ONCE):
        columns = (column.to_pylist() for column in batch.columns)
        yield [
            Outcome.model_construct(
                application_id=application, outcome=outcome, known_at=known_at, source=source
            )
            for application, outcome, known_at, source in zip(*columns, strict=True)
        ]


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(connection.sql(f"SELECT count(*) FROM {rows}").fetchall()[0][0])


def _keep_refused(
    contract: Contract,
    home: Home,
    source: Source,
    header: list[str],
    connection: duckdb.DuckDBPyConnection,
) -> Path:
    """Write the refused rows as they arrived, each with reason and rule; give the file.

    It is named by what is in it: another delivery under the same name takes nothing away.
    """
    refused = (
        "SELECT _row, NULL::BIGINT AS _line_number, _reason, _rule, NULL::VARCHAR AS _line, "
        f"{', '.join(quoted(name) for name in header)} FROM judged WHERE _rule <> '' UNION ALL "
        "SELECT NULL, _line_number, reason, 'malformed', line, "
        f"{', '.join('NULL' for _ in header)} FROM rejected"
    )
    digest = connection.execute(
        "SELECT md5(string_agg(md5(row::VARCHAR), '' ORDER BY _row, _line_number)) "
        f"FROM ({refused}) AS row"
    ).fetchall()[0][0]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(source.name).name.split(".")[0]).strip("-")
    folder = home.portfolio(contract.name) / "outcomes_refused"
    path = folder / f"{readable or 'report'}-{digest[:12]}.parquet"
    write_parquet(connection.sql(f"{refused} ORDER BY _row, _line_number").to_arrow_table(), path)
    return path
