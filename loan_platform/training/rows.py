"""The rows a model may learn from: those whose outcome is known by a moment.

Here: reading them, as the matrix the model sees. Not here: which of them are for what (`split`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loan_platform.contract import Contract
from loan_platform.contract.calendar import window
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.contract.sql import features_sql, literal, matrix_sql, quoted
from loan_platform.decisions.outcomes import labelled_sql, made_by_model
from loan_platform.engine import duck


class TrainingError(ValueError):
    """No model can be trained or judged from these rows: says why, and how to mend it."""


@dataclass(frozen=True)
class Rows:
    """Applications with a known outcome, ordered by `application_id`; n of each array.

    `matrix` is float64 of shape (n, inputs), NaN where missing; `outcome` is 1 for bad, 0 for
    good; `month` is the month of application, YYYY-MM; `applied_at` and `known_at` are
    datetime64[us], UTC. `beside` has the contract's `columns_beside`, which no model sees: numbers
    as float64 with NaN where missing, all else as objects with None.
    `simulated`: they are of a stand-in book.
    """

    application_id: np.ndarray
    month: np.ndarray
    applied_at: np.ndarray
    known_at: np.ndarray
    outcome: np.ndarray
    matrix: np.ndarray
    beside: dict[str, np.ndarray]
    simulated: bool

    def __len__(self) -> int:
        return len(self.outcome)

    def where(self, mask: np.ndarray) -> Rows:
        return Rows(
            self.application_id[mask],
            self.month[mask],
            self.applied_at[mask],
            self.known_at[mask],
            self.outcome[mask],
            self.matrix[mask],
            {name: values[mask] for name, values in self.beside.items()},
            self.simulated,
        )

    @property
    def data_hash(self) -> str:
        """12 hex digits over the ids, outcomes and matrix, in their order."""
        digest = hashlib.sha256("\n".join(self.application_id.tolist()).encode())
        digest.update(self.outcome.tobytes())
        digest.update(np.ascontiguousarray(self.matrix).tobytes())
        return digest.hexdigest()[:12]


def matured_months(contract: Contract, rows: Rows, as_of: dt.datetime) -> list[str]:
    """Months of `rows` of which at least half had matured by `as_of`; the newest one otherwise.

    A month of which a few days are known is not a month a model has learnt.
    """
    months = sorted(set(rows.month))
    maturity = dt.timedelta(days=contract.outcome.matures_after_days)

    def middle(month: str) -> dt.datetime:
        start, end = window(month)
        return start + (end - start) / 2

    return [month for month in months if middle(month) + maturity <= as_of] or months[-1:]


def known_rows(
    contract: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    inputs_of: Contract | None = None,
    raw: dict[str, Path] | None = None,
    reported: Path | None = None,
) -> Rows:
    """Rows of the cleaned layer (month -> Parquet file) matured and known by `as_of`.

    `reported`: every outcome ever reported (`decisions.outcomes.history_path`). Of several on a
    loan the one known last by `as_of` counts, whatever was learnt later; a loan on which nothing
    was known yet has no outcome, even if its cleaned row has one.

    Which rows, `contract` says alone. The matrix is made by `inputs_of` where it is given: by the
    contract of an older model, say, as long as the layer has its input columns; derived
    features are computed anew.

    `raw`: the raw layer of the same months. Protected and measured columns lie only there; without
    it they are missing in `beside`.

    Raises:
        TrainingError: there are no months, a file lacks a column, an outcome was made by a
            model (a model that learns from its own answers confirms its own errors), or some
            rows are of a simulated book and some of a real one.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone; give UTC")
    if not cleaned:
        raise TrainingError(
            f"{contract.name} has no cleaned_features; materialize at least one month of it"
        )
    asked = inputs_of or contract
    needed = [*PLATFORM_COLUMNS, *(column.name for column in asked.input_columns)]
    _refuse_missing_columns(contract, cleaned, needed)
    moment = literal(as_of.astimezone(dt.UTC).isoformat())
    carried = (
        *("application_id", "applied_at", "_month", "origin"),
        *("outcome", "outcome_known_at", "outcome_source"),
    )
    inputs = features_sql(asked, "known", also=carried)
    rows = duck.parquet(*cleaned.values())
    if reported is not None and reported.is_file():
        by = f"known_at <= CAST({moment} AS TIMESTAMPTZ)"
        rows = f"({labelled_sql(rows, needed, duck.parquet(reported), by)})"
    table = duck.query(
        f"WITH known AS (\n  SELECT *, strftime(applied_at, '%Y-%m') AS _month\n"
        f"  FROM {rows} AS loans\n"
        f"  WHERE outcome IS NOT NULL AND outcome_known_at <= CAST({moment} AS TIMESTAMPTZ)\n"
        # Of younger loans only what went wrong early is known: they would all look bad.
        f"  AND applied_at + INTERVAL {contract.outcome.matures_after_days} DAY\n"
        f"    <= CAST({moment} AS TIMESTAMPTZ)\n"
        f"), inputs AS (\n{inputs}\n), matrix AS (\n{matrix_sql(asked, 'inputs', carried)}\n)\n"
        "SELECT * FROM matrix ORDER BY application_id, outcome_known_at"
    )
    month = np.array(table["_month"].to_pylist(), dtype=object)
    _refuse_outcomes_of_a_model(contract, table["outcome_source"].to_pylist())
    simulated = _of_one_book(contract, np.array(table["origin"].to_pylist(), dtype=object), month)
    columns = [np.asarray(table[name], dtype=np.float64) for name in asked.model_inputs]
    return Rows(
        application_id=np.array(table["application_id"].to_pylist(), dtype=object),
        month=month,
        applied_at=np.asarray(table["applied_at"].cast("timestamp[us]"), "datetime64[us]"),
        known_at=np.asarray(table["outcome_known_at"].cast("timestamp[us]"), "datetime64[us]"),
        outcome=np.asarray(table["outcome"], dtype=np.int64),
        matrix=np.column_stack(columns),
        beside=_beside(contract, table, cleaned, raw or {}),
        simulated=simulated,
    )


def _beside(
    contract: Contract, known: pa.Table, cleaned: dict[str, Path], raw: dict[str, Path]
) -> dict[str, np.ndarray]:
    """The columns beside the matrix of the rows `known`, in their order."""
    names = contract.columns_beside
    if not names:
        return {}
    inputs = {column.name for column in contract.input_columns}
    layers = (
        (cleaned, [name for name in names if name in inputs]),
        ({key: raw[key] for key in cleaned if key in raw}, [n for n in names if n not in inputs]),
    )
    keys, joined, chosen = ("application_id", "applied_at"), "", []
    for number, (files, columns) in enumerate(layers):
        if not columns or not files:
            chosen += [f"NULL AS {quoted(name)}" for name in columns]
            continue
        _refuse_missing_columns(contract, files, [*keys, *columns])
        layer = f"layer_{number}"
        read = ", ".join(quoted(name) for name in (*keys, *columns))
        joined += (
            f"\nLEFT JOIN (SELECT {read} FROM {duck.parquet(*files.values())}) AS {layer}\n  ON "
            + " AND ".join(f"{layer}.{key} = known.{key}" for key in keys)
        )
        chosen += [f"{layer}.{quoted(name)}" for name in columns]
    table = duck.query(
        f"SELECT {', '.join(chosen)}\nFROM known{joined}\nORDER BY known._row",
        known=known.select(keys).append_column("_row", pa.array(range(len(known)))),
    )
    numeric = {c.name for c in contract.columns if c.type in ("number", "integer")}
    return {
        name: np.asarray(table[name].cast("double"), dtype=np.float64)
        if name in numeric
        else table[name].cast("string").to_numpy()
        for name in names
    }


def _refuse_outcomes_of_a_model(contract: Contract, sources: list[str]) -> None:
    by_model = {source: sources.count(source) for source in set(sources) if made_by_model(source)}
    if by_model:
        named = ", ".join(repr(source) for source in sorted(by_model))
        raise TrainingError(
            f"{sum(by_model.values())} rows of {contract.name} have an outcome made by a model "
            f"(outcome_source {named}); remove these outcomes, only observed ones are learnt from"
        )


def _of_one_book(contract: Contract, origin: np.ndarray, month: np.ndarray) -> bool:
    """Whether the rows are of a simulated book; a model of both would be of neither."""
    drawn, real = origin == "simulated", origin == "book"
    if drawn.any() and real.any():
        raise TrainingError(
            f"{int(drawn.sum()):,} rows of {contract.name} are of a simulated book "
            f"({_span(month[drawn])}) and {int(real.sum()):,} of a real one "
            f"({_span(month[real])}); set LOAN_DATA_DIR to the folder of the real book and "
            f"materialize raw_loans and cleaned_features of {_span(month[drawn])} again"
        )
    return bool(drawn.any())


def _span(months: np.ndarray) -> str:
    first, last = min(months), max(months)
    return first if first == last else f"{first} to {last}"


def _refuse_missing_columns(contract: Contract, files: dict[str, Path], needed: list[str]) -> None:
    for key, file in files.items():
        found = set(pq.read_schema(file).names)
        if lacking := [name for name in needed if name not in found]:
            raise TrainingError(
                f"{file} lacks {', '.join(lacking)}, which the contract of {contract.name} needs; "
                f"materialize raw_loans and cleaned_features of {key} again"
            )
