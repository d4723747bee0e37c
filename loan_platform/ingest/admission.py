"""Admits the rows of a month: those the contract accepts, and the others with their reasons.

Here: one month's raw_loans and quarantine, from the lender's book and the service's decisions.
Not here: reading the source (`reading`), months and repeated rows (`staging`), derived features
(`cleaning`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from loan_platform import engine
from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Column
from loan_platform.contract.sql import literal, outcome_sql, quoted, reasons, typed_sql
from loan_platform.decisions.outcomes import history_path, newest_words_sql
from loan_platform.engine import Engine, duck
from loan_platform.engine.home import Home
from loan_platform.ingest.staging import STAGED, Book, place_of, raw_columns

DUPLICATES, TIME, MALFORMED = "duplicates", "time", "malformed"
"""Ids of the rules that are not the contract's own: repeated rows, no place in time, no record."""

OWN_REASONS = {
    DUPLICATES: "the same application as an earlier row",
    TIME: "dated outside the book, or outside its month's file",
    MALFORMED: "a line no row can be read from",
}
"""These rules in words, as `contract.sql.reasons` has the contract's."""

Statement = Callable[[str], str]
"""Makes a statement over a relation."""


class AdmissionError(Exception):
    """Rows were lost or doubled on the way; says how many."""


@dataclass(frozen=True)
class Admission:
    """What became of a month's rows. `rows == accepted + quarantined`, always.

    `reasons` counts refusals by reason, `rules` by the id of the rule; a row with two reasons
    counts under both. `also_in_book` applications came from the service as well as in the lender's
    book; the book's row, which has the lender's outcome, is the one counted and kept.
    """

    rows: int
    accepted: int
    quarantined: int
    from_service: int
    also_in_book: int
    with_outcome: int
    reasons: dict[str, int]
    rules: dict[str, int]


def admit(contract: Contract, home: Home, month: str, book: Book) -> Admission:
    """Write raw_loans and quarantine of `month`; a second run writes the same bytes.

    Raises:
        AdmissionError: accepted and quarantined rows are not the rows that were staged.
    """
    runs = engine.of(contract)
    if contract.source.one_file_a_partition:
        loans = home.partitions(contract.name, "raw_loans")
        book.refuse_repeated({key: path for key, path in loans.items() if key < month})
    judged, refused = _judge_book(contract, runs, book)
    files = {"judged": [judged], "refused": [refused]}
    served, also_in_book = 0, 0
    if home.partition(contract.name, "decisions", month).is_file():
        path, served, also_in_book = _stage_served(contract, home, month, book)
        judged, refused = _judge(contract, runs, book, f"served-{month}", "staged", [path])
        files = {"judged": [*files["judged"], judged], "refused": [*files["refused"], refused]}
    rows = book.months().get(month, 0) + served
    place = place_of(month)
    raw_loans = home.partition(contract.name, "raw_loans", month)
    quarantine = home.partition(contract.name, "quarantine", month)
    reported = _stage_reported(contract, home, book)
    accepted = runs.write(
        accepted_sql(
            contract,
            f"(SELECT * FROM judged WHERE _place = {place}) AS judged",
            "reported" if reported else None,
        )
        + "\nORDER BY _row",
        raw_loans,
        judged=files["judged"],
        **({"reported": [reported]} if reported else {}),
    )
    quarantined = runs.write(
        quarantine_sql(contract, book.origin, place),
        quarantine,
        refused=files["refused"],
        unreadable=[book.malformed(month)],
    )
    if accepted + quarantined != rows:
        raise AdmissionError(
            f"{contract.name}: {month} has {rows:,} rows, and {accepted:,} were accepted, "
            f"{quarantined:,} quarantined. Materialize the month again; if it stays so, a rule of "
            "the contract gives another answer each time it is asked."
        )
    counted = runs.query(
        "SELECT count(outcome) AS with_outcome, "
        "count(CASE WHEN origin = 'service' THEN 1 END) AS from_service FROM raw_loans",
        raw_loans=[raw_loans],
    ).to_pylist()[0]
    why, rules = _count_refusals(runs, quarantine) if quarantined else ({}, {})
    return Admission(
        rows=rows,
        accepted=accepted,
        quarantined=quarantined,
        from_service=counted["from_service"],
        also_in_book=also_in_book,
        with_outcome=counted["with_outcome"],
        reasons=why,
        rules=rules,
    )


def _judge_book(contract: Contract, runs: Engine, book: Book) -> tuple[Path, Path]:
    """Type every row of the book, once for all months."""
    if contract.engine == "duckdb":
        return _judge(contract, runs, book, "book", f"{book.relation()} AS staged")
    return _judge(contract, runs, book, "book", "staged", [book.staged()])


def _judge(
    contract: Contract,
    runs: Engine,
    book: Book,
    name: str,
    staged: str,
    files: Sequence[Path] = (),
) -> tuple[Path, Path]:
    """Two files: the rows of `staged` typed, and those refused, as they came and with reasons."""
    judged = book.folder / f"judged-{name}.parquet"
    refused = book.folder / f"refused-{name}.parquet"
    read = {"staged": list(files)} if files else {}
    if not refused.is_file():
        runs.write(typed_sql(contract, staged, STAGED[1:]), judged, **read)
        runs.write(refused_sql(contract, staged), refused, judged=[judged], **read)
    return judged, refused


_REPEATED = "duplicate of (row [0-9]+|an application of [0-9-]+)"


def admissible(contract: Contract, book: Book) -> pa.Table:
    """Every row of the book that its month would accept, as raw_loans has it."""
    runs = engine.of(contract)
    judged, _ = _judge_book(contract, runs, book)
    return runs.query(accepted_sql(contract, "judged") + "\nORDER BY _row", judged=[judged])


def write_admissible(contract: Contract, book: Book, path: Path, statement: Statement) -> int:
    """Write what a statement makes of all those rows, in no order; return its rows."""
    runs = engine.of(contract)
    judged, _ = _judge_book(contract, runs, book)
    sql = statement(f"({accepted_sql(contract, 'judged')}) AS accepted")
    return runs.write(sql, path, judged=[judged])


def accepted_sql(contract: Contract, judged: str, reported: str | None = None) -> str:
    """Accepted rows of `judged`, rows of `typed_sql`, as raw_loans has them, in no order.

    `reported`: a relation with the word that counts on each loan that was reported on, which
    stands in place of what the book's column says.
    """
    kept = ",\n  ".join(quoted(column.name) for column in kept_columns(contract))
    outcome = f"CAST({outcome_sql(contract)} AS bigint)"
    known = f"_applied_at + INTERVAL {contract.outcome.matures_after_days} DAY"
    source, words = "_origin", ""
    if reported is not None:
        outcome = f"coalesce(_reported, {outcome})"
        known, source = f"coalesce(_reported_at, {known})", f"coalesce(_reported_by, {source})"
        words = (
            "LEFT JOIN (SELECT application_id AS _reported_on, outcome AS _reported, "
            f"known_at AS _reported_at, source AS _reported_by FROM {reported}) AS words "
            "ON _reported_on = _application_id\n"
        )
    return (
        "SELECT _application_id AS application_id, _applied_at AS applied_at, _origin AS origin,\n"
        f"  {outcome} AS outcome,\n"
        f"  CASE WHEN {outcome} IS NOT NULL THEN {known} END AS outcome_known_at,\n"
        f"  CASE WHEN {outcome} IS NOT NULL THEN {source} END AS outcome_source,\n"
        f"  {kept}\nFROM {judged}\n{words}"
        "WHERE _duplicate IS NULL AND _outside IS NULL AND _rules = ''"
    )


def kept_columns(contract: Contract) -> list[Column]:
    """Columns of the book that raw_loans keeps: what an application carries, and those beside."""
    inputs = contract.input_columns
    return [c for c in contract.columns if c in inputs or c.role in ("protected", "measure")]


def refused_sql(contract: Contract, staged: str) -> str:
    """Refused rows of `staged`, by the verdicts of `judged`, as they came and with their reasons.

    `_rule`: ids of the rules a row breaks, joined by a space; `_reason`: the same in words, joined
    by '; '.
    """
    raw = ", ".join(f"staged.{quoted(name)}" for name in raw_columns(contract))
    words = ", ".join(
        f"CASE WHEN position({literal(f' {rule} ')} IN _padded) > 0 THEN {literal(reason)} END"
        for rule, reason in reasons(contract).items()
    )
    return (
        "WITH refused AS (\nSELECT _row AS _at, ' ' || _rules || ' ' AS _padded, "
        "concat_ws(' ', nullif(_rules, ''), "
        f"CASE WHEN _duplicate IS NOT NULL THEN '{DUPLICATES}' END, "
        f"CASE WHEN _outside IS NOT NULL THEN '{TIME}' END) AS _rule FROM judged\n"
        "WHERE _rules <> '' OR _duplicate IS NOT NULL OR _outside IS NOT NULL\n)\n"
        "SELECT _place, _row, _application_id, _origin, "
        f"concat_ws('; ', {words}, _duplicate, _outside) AS _reason, _rule, {raw}\n"
        f"FROM refused JOIN {staged} ON staged._row = refused._at"
    )


def quarantine_sql(contract: Contract, origin: str, place: int) -> str:
    """A month's rows of `refused`, and the lines of `unreadable`.

    Names a row of the book by `_row`, the record's number, and a malformed line by `_line_number`;
    a row of the service has its `_application_id`.
    """
    raw = ", ".join(quoted(name) for name in raw_columns(contract))
    no_raw = ", ".join("CAST(NULL AS VARCHAR)" for _ in raw_columns(contract))
    return (
        "SELECT CASE WHEN _origin <> 'service' THEN _row END AS _row, "
        "CAST(NULL AS BIGINT) AS _line_number, _application_id, _origin, _reason, _rule, "
        f"CAST(NULL AS VARCHAR) AS _line, {raw}\nFROM refused WHERE _place = {place}\n"
        "UNION ALL SELECT CAST(NULL AS BIGINT), _line_number, CAST(NULL AS VARCHAR), "
        f"{literal(origin)}, reason, '{MALFORMED}', line, {no_raw} FROM unreadable\n"
        "ORDER BY _row, _line_number, _application_id"
    )


def _stage_served(contract: Contract, home: Home, month: str, book: Book) -> tuple[Path, int, int]:
    """Stage the applications the service decided in the month and the book does not have.

    Returns their file, how many they are, and how many more the book has too.
    """
    path = book.folder / f"served-{month}.parquet"
    with duck.bounded() as connection:
        connection.execute(f"CREATE TEMP TABLE served AS {_served_sql(contract, home, month)}")
        ids = connection.sql("SELECT _application_id FROM served").to_arrow_table()
        connection.register("in_book", book.known(ids))
        raw = ", ".join(quoted(name) for name in raw_columns(contract))
        # Numbered after every row of the book: they come last in raw_loans.
        written = duck.copy(
            connection,
            f"SELECT {sum(book.months().values())} + row_number() OVER "
            f"(ORDER BY _applied_at, _application_id) AS _row, {place_of(month)} AS _place, "
            "_application_id, "
            "_applied_at, 'service' AS _origin, CAST(NULL AS VARCHAR) AS _duplicate, "
            "CAST(NULL AS VARCHAR) AS _outside, "
            f"{raw} FROM served ANTI JOIN in_book USING (_application_id)",
            path,
            duck.PASSING,
        )
    return path, written, len(ids) - written


def _stage_reported(contract: Contract, home: Home, book: Book) -> Path | None:
    """Stage the word that counts on each loan that was reported on, once for all months."""
    path = book.folder / "reported.parquet"
    history = history_path(home, contract.name)
    if not history.is_file():
        return None
    if not path.is_file():
        with duck.bounded() as connection:
            duck.copy(connection, newest_words_sql(duck.parquet(history)), path, duck.PASSING)
    return path


def _served_sql(contract: Contract, home: Home, month: str) -> str:
    """Decided applications of a month as a book would bring them, newest decision of each."""
    roles = {column.name: column.role for column in contract.columns}
    said = {
        "outcome": "CAST(NULL AS VARCHAR)",  # what is known of it comes from the reports
        "time": "strftime(decided.applied_at, '%Y-%m-%d')",
        "key": "decided.application_id",
    }
    texts = ", ".join(
        said.get(
            roles.get(name, ""), f"json_extract_string(inputs, {literal('$.' + quoted(name))})"
        )
        + f" AS {quoted(name)}"
        for name in raw_columns(contract)
    )
    return (
        "SELECT decided.application_id AS _application_id, decided.applied_at AS _applied_at, "
        f"{texts} "
        "FROM (SELECT * FROM "
        f"{duck.parquet(home.partition(contract.name, 'decisions', month))} "
        "QUALIFY row_number() OVER (PARTITION BY application_id "
        "ORDER BY decided_at DESC, decision_id DESC) = 1) AS decided"
    )


def _count_refusals(runs: Engine, quarantine: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Rows refused for each reason, and under each rule id, most frequent first."""
    refused = runs.query(
        "SELECT _rule, _reason, count(*) AS n FROM (SELECT _rule, "
        f"regexp_replace(_reason, {literal(_REPEATED)}, 'duplicate', 'g') AS _reason "
        "FROM quarantine) AS refused GROUP BY _rule, _reason ORDER BY _rule, _reason",
        quarantine=[quarantine],
    )
    why: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for row in refused.to_pylist():
        for reason in row["_reason"].split("; "):
            why[reason] += row["n"]
        for rule in row["_rule"].split(" "):
            rules[rule] += row["n"]
    return dict(why.most_common()), dict(rules.most_common())
