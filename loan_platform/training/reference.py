"""What is typical of approved loans: what a reason compares an applicant's value with.

Here: one value for each column an applicant gives. Not here: which loans are approved (`train`),
or the sentences (`model.reasons`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Column
from loan_platform.contract.request import Value
from loan_platform.contract.sql import quoted
from loan_platform.engine import duck

FEWEST_SAY = 10  # loans that say the same words; what fewer say may be one person's


def approved_reference(
    contract: Contract, cleaned: dict[str, Path], application_ids: Iterable[str]
) -> dict[str, Value]:
    """The typical value of each request column among these (approved) loans.

    `cleaned`: month -> Parquet file of cleaned_features. Numbers and dates: the median, always a
    value that a loan has; categories and text: the most frequent. None where it is typical to
    give none. A text that fewer than `FEWEST_SAY` loans say is no key of the result.

    Dates grow older: where features read the contract's time column, its median is there too, and
    a date's reference lies as many days before that as the date of a typical loan lay before its
    application.

    Raises:
        ValueError: none of the loans is in the files.
    """
    ids = pa.table({"application_id": pa.array(list(application_ids), pa.string())})
    time = contract.time_column
    day = time if time in contract.input_columns else None
    wanted = [*contract.request_columns, *([day] if day else [])]
    typical = ", ".join(f"{_typical(column, day)} AS {quoted(column.name)}" for column in wanted)
    found = duck.query(
        f"WITH approved AS (FROM {duck.parquet(*cleaned.values())} SEMI JOIN ids "
        f"USING (application_id)) SELECT count(*) AS _loans, {typical} FROM approved",
        ids=ids,
    ).to_pylist()[0]
    if not found.pop("_loans"):
        raise ValueError(
            f"none of the {len(ids):,} approved loans of {contract.name} is in its "
            "cleaned_features; give the ids of rows these files hold"
        )
    return {
        name: value.isoformat() if isinstance(value, dt.date) else value
        for name, values in found.items()
        for value in values or ()
    }


def _typical(column: Column, day: Column | None) -> str:
    """SQL over `approved`: a list of the typical value, NULL where there is no such value."""
    value = quoted(column.name)
    if column.type in ("category", "text"):
        fewest = FEWEST_SAY if column.type == "text" else 1
        return (
            f"(SELECT list(said) FROM (SELECT {value} AS said FROM approved GROUP BY 1 "
            f"HAVING count(*) >= {fewest} ORDER BY count(*) DESC, said LIMIT 1))"
        )
    median = f"quantile_disc({value}, 0.5)"
    if column.type == "date" and day and column != day:
        its_day = quoted(day.name)
        age = f"CAST(quantile_disc(date_diff('day', {value}, {its_day}), 0.5) AS integer)"
        median = f"quantile_disc({its_day}, 0.5) - {age}"
    return f"[CASE WHEN 2 * count({value}) >= count(*) THEN {median} END]"
