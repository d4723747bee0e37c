"""Cleaned months to train on, made by the real ingestion from a file, and rows made up.

Here: what the tests of training and of the registry need of a book. Not here: any test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.contract.sql import features_sql
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.ingest.admission import admissible
from loan_platform.ingest.source import Location
from loan_platform.ingest.staging import open_book
from loan_platform.training.recipe import Ingredient, Recipe
from loan_platform.training.rows import Rows

# A few trees are enough where a test is not about how good a model is.
FEW_TREES = Recipe(ingredients=[Ingredient(family="lightgbm", size=20)])


def raw_table(contract: Contract, file: Path, simulated: bool = False) -> pa.Table:
    """The raw layer of every month of a book, in one table."""
    with open_book(contract, Location.of_file(file, simulated=simulated)) as book:
        return admissible(contract, book)


def cleaned_table(contract: Contract, file: Path, simulated: bool = False) -> pa.Table:
    """The cleaned layer of every month of a book, in one table."""
    return cleaned_of(contract, raw_table(contract, file, simulated))


def cleaned_of(contract: Contract, raw: pa.Table) -> pa.Table:
    """The cleaned layer of a raw one."""
    return duck.query(features_sql(contract, "accepted", also=PLATFORM_COLUMNS), accepted=raw)


def write_months(table: pa.Table, folder: Path) -> dict[str, Path]:
    """One Parquet file a month, as the cleaned layer lies."""
    months = pc.strftime(table["applied_at"], format="%Y-%m")
    files = {}
    for month in sorted(set(months.to_pylist())):
        files[month] = folder / f"{month}.parquet"
        write_parquet(table.filter(pc.equal(months, month)), files[month])
    return files


def with_column(table: pa.Table, name: str, values: Sequence[Any] | np.ndarray) -> pa.Table:
    """The table with other values in one of its columns, of the same type."""
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def made_rows(
    ids: Sequence[str],
    *,
    matrix: np.ndarray | None = None,
    applied_at: Sequence[str] | np.ndarray | None = None,
    outcome: np.ndarray | None = None,
    beside: dict[str, np.ndarray] | None = None,
) -> Rows:
    """Rows with these ids, in their order; else every matrix row is another, on one day."""
    count = len(ids)
    days = np.array(["2024-01-01"] * count if applied_at is None else applied_at, "datetime64[us]")
    every = np.arange(count, dtype=np.float64)[:, None]
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    return Rows(
        application_id=np.array(ids, dtype=object),
        month=days.astype("datetime64[M]").astype(str).astype(object),
        applied_at=days,
        known_at=days + np.timedelta64(90, "D"),
        outcome=np.arange(count) % 2 if outcome is None else outcome,
        matrix=every if matrix is None else matrix,
        beside=beside or {},
        simulated=True,
    ).where(order)
