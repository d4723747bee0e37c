"""Admits the rows of a month: those the contract accepts, and the others with their reasons.

Here: one month's raw_loans and quarantine, from the lender's book and the service's decisions.
Not here: reading the source (`source`), derived features (`cleaning`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.calendar import KEY_FORMAT, partition_key
from loan_platform.contract.portfolio import Column
from loan_platform.contract.sql import literal, outcome_sql, quoted, typed_sql
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.home import Home
from loan_platform.ingest.source import Book


@dataclass(frozen=True)
class Admission:
    """What became of a month's rows. `rows == accepted + quarantined`, always.

    `reasons` counts refusals by reason; a row with two reasons counts under both.
    `also_in_book` applications came from the service as well as in the lender's book;
    the book's row, which has the lender's outcome, is the one counted and kept.
    """

    rows: int
    accepted: int
    quarantined: int
    from_service: int
    also_in_book: int
    with_outcome: int
    reasons: dict[str, int]


def admit(contract: Contract, home: Home, month: str, book: Book) -> Admission:
    """Write raw_loans and quarantine of `month`; a second run writes the same bytes."""
    with duck.connect() as connection:
        connection.register("staged", book.take(month))
        connection.register("unreadable", book.malformed(month))
        served = _stage(contract, home, month, book, connection)
        accepted, quarantine = _decide(contract, book, connection)
    write_parquet(accepted, home.partition(contract.name, "raw_loans", month))
    write_parquet(quarantine, home.partition(contract.name, "quarantine", month))
    from_service = accepted["origin"].to_pylist().count("service")
    refused_from_service = quarantine["_origin"].to_pylist().count("service")
    return Admission(
        rows=len(accepted) + len(quarantine),
        accepted=len(accepted),
        quarantined=len(quarantine),
        from_service=from_service,
        also_in_book=served - from_service - refused_from_service,
        with_outcome=len(accepted) - accepted["outcome"].null_count,
        reasons=_count_reasons(quarantine),
    )


def admissible(contract: Contract, book: Book) -> pa.Table:
    """Every row of the book that its month would accept, as raw_loans has it."""
    with duck.connect() as connection:
        connection.register("staged", book.take())
        connection.execute(
            f"CREATE TABLE month_rows AS {_place_sql(contract, _book_sql(contract, book))}"
        )
        return connection.sql(raw_loans_sql(contract, "month_rows")).to_arrow_table()


def raw_loans_sql(contract: Contract, relation: str) -> str:
    """Accepted rows of `relation`, a staged month: provenance and typed columns."""
    kept = ", ".join(f"typed.{quoted(c.name)}" for c in kept_columns(contract))
    outcome = f"CAST({outcome_sql(contract)} AS bigint)"
    return (
        f"WITH typed AS (\n{typed_sql(contract, relation)}\n)\n"
        "SELECT _application_id AS application_id, _applied_at AS applied_at, _origin AS origin,\n"
        f"  {outcome} AS outcome,\n"
        f"  CASE WHEN {outcome} IS NOT NULL THEN _outcome_known_at END AS outcome_known_at,\n"
        f"  CASE WHEN {outcome} IS NOT NULL THEN _outcome_source END AS outcome_source,\n"
        f"  {kept}\nFROM typed JOIN {relation} AS staged ON staged._row = typed._row\n"
        "WHERE _refused = '' AND _misplaced = ''\nORDER BY staged._row"
    )


def kept_columns(contract: Contract) -> list[Column]:
    """Columns of the book that raw_loans keeps: features and protected ones."""
    return [column for column in contract.columns if column.role in ("feature", "protected")]


def _stage(
    contract: Contract, home: Home, month: str, book: Book, connection: duckdb.DuckDBPyConnection
) -> int:
    """Make `month_rows`: the book's rows and the service's, as text, misplaced ones marked.

    Returns how many decided applications the service's log holds for the month.
    """
    rows = _book_sql(contract, book)
    decisions = home.partition(contract.name, "decisions", month)
    served = 0
    if decisions.is_file():
        connection.execute(f"CREATE TABLE served AS {_served_sql(contract, home, month)}")
        ids = connection.sql("SELECT _application_id FROM served").to_arrow_table()
        served = len(ids)
        connection.register("in_book", book.known(ids))
        rows += (
            " UNION ALL SELECT (SELECT coalesce(max(_row), 0) FROM staged) + row_number() OVER "
            f"(ORDER BY _applied_at, _application_id), _application_id, _applied_at, "
            f"{literal(month)}, NULL, 'service', _outcome_known_at, _outcome_source, "
            f"{_raw_columns(contract)} FROM served ANTI JOIN in_book USING (_application_id)"
        )
    connection.execute(f"CREATE TABLE month_rows AS {_place_sql(contract, rows)}")
    return served


def _raw_columns(contract: Contract) -> str:
    return ", ".join(quoted(column.name) for column in contract.columns)


def _origin(book: Book) -> str:
    return literal("simulated" if book.simulated else "book")


def _book_sql(contract: Contract, book: Book) -> str:
    """The staged rows of the lender's book, with when their outcome became known."""
    known = f"_applied_at + INTERVAL {contract.outcome.matures_after_days} DAY"
    return (
        f"SELECT _row, _application_id, _applied_at, _month, _duplicate, {_origin(book)} AS "
        f"_origin, {known} AS _outcome_known_at, {_origin(book)} AS _outcome_source, "
        f"{_raw_columns(contract)} FROM staged"
    )


def _place_sql(contract: Contract, rows: str) -> str:
    """`rows` with `_misplaced`: why a row has no place in its month whatever it says, or ''."""
    elsewhere = f"strftime(_applied_at, {literal(KEY_FORMAT)}) <> _month"
    if contract.source.one_file_a_partition:
        outside = f"CASE WHEN {elsewhere} THEN 'dated outside ' || _month END"
    else:
        first = contract.time.first_day
        outside = (
            f"CASE WHEN _applied_at < TIMESTAMPTZ '{first} 00:00:00+00' "
            f"THEN {literal(f'dated before {partition_key(first)}')} "
            f"WHEN {elsewhere} THEN 'dated after ' || _month END"
        )
    return f"SELECT *, concat_ws('; ', _duplicate, {outside}) AS _misplaced FROM ({rows})"


def _served_sql(contract: Contract, home: Home, month: str) -> str:
    """Decided applications of a month as a book would bring them, newest decision of each."""
    outcome = contract.outcome
    outcomes = home.partition(contract.name, "outcomes", month)
    labels = (
        duck.parquet(outcomes)
        if outcomes.is_file()
        else "(SELECT NULL::VARCHAR AS application_id, NULL::BIGINT AS outcome, "
        "NULL::TIMESTAMPTZ AS known_at, NULL::VARCHAR AS source)"
    )
    texts = ", ".join(
        f"CASE labels.outcome WHEN 1 THEN {literal(outcome.bad[0])} "
        f"WHEN 0 THEN {literal(outcome.good[0])} END AS {quoted(c.name)}"
        if c.role == "outcome"
        else "strftime(decided.applied_at, '%Y-%m-%d') AS " + quoted(c.name)
        if c.role == "time"
        else f"decided.application_id AS {quoted(c.name)}"
        if c.role == "key"
        else f"json_extract_string(inputs, {literal('$.' + quoted(c.name))}) AS {quoted(c.name)}"
        for c in contract.columns
    )
    return (
        "SELECT decided.application_id AS _application_id, decided.applied_at AS _applied_at, "
        f"labels.known_at AS _outcome_known_at, labels.source AS _outcome_source, {texts} "
        "FROM (SELECT * FROM "
        f"{duck.parquet(home.partition(contract.name, 'decisions', month))} "
        "QUALIFY row_number() OVER (PARTITION BY application_id "
        "ORDER BY decided_at DESC, decision_id DESC) = 1) AS decided "
        f"LEFT JOIN {labels} AS labels ON labels.application_id = decided.application_id"
    )


def _decide(
    contract: Contract, book: Book, connection: duckdb.DuckDBPyConnection
) -> tuple[pa.Table, pa.Table]:
    """The month's raw_loans, and its quarantine.

    Quarantine names a row of the book by `_row`, the record's number in the file, and a malformed
    line by `_line_number`; a row of the service has its `_application_id`.
    """
    accepted = connection.sql(raw_loans_sql(contract, "month_rows")).to_arrow_table()
    raw = ", ".join(f"staged.{quoted(c.name)}" for c in contract.columns)
    no_raw = ", ".join(f"NULL AS {quoted(c.name)}" for c in contract.columns)
    quarantine = connection.sql(
        f"WITH typed AS (\n{typed_sql(contract, 'month_rows')}\n)\n"
        "SELECT CASE WHEN _origin <> 'service' THEN CAST(staged._row AS BIGINT) END AS _row, "
        "NULL::BIGINT AS _line_number, _application_id, _origin, "
        "concat_ws('; ', nullif(_refused, ''), nullif(_misplaced, '')) AS _reason, "
        f"NULL::VARCHAR AS _line, {raw}\n"
        "FROM typed JOIN month_rows AS staged ON staged._row = typed._row\n"
        "WHERE _refused <> '' OR _misplaced <> ''\n"
        f"UNION ALL SELECT NULL, _line_number, NULL, {_origin(book)}, reason, line, {no_raw} "
        "FROM unreadable\nORDER BY _row, _line_number, _application_id"
    ).to_arrow_table()
    return accepted, quarantine


def _count_reasons(quarantine: pa.Table) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for reasons in quarantine["_reason"].to_pylist():
        for reason in reasons.split("; "):
            counted[re.sub(r"^duplicate of row \d+", "duplicate", reason)] += 1
    return dict(counted.most_common())
