"""Cleaned months to train on, made by the real ingestion from a file.

Here: what the tests of training and of the registry need of a book. Not here: any test.
"""

from __future__ import annotations

from pathlib import Path

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


def cleaned_table(contract: Contract, file: Path, simulated: bool = False) -> pa.Table:
    """The cleaned layer of every month of a book, in one table."""
    with open_book(contract, Location.of_file(file, simulated=simulated)) as book:
        accepted = admissible(contract, book)
    return duck.query(features_sql(contract, "accepted", also=PLATFORM_COLUMNS), accepted=accepted)


def write_months(table: pa.Table, folder: Path) -> dict[str, Path]:
    """One Parquet file a month, as the cleaned layer lies."""
    months = pc.strftime(table["applied_at"], format="%Y-%m")
    files = {}
    for month in sorted(set(months.to_pylist())):
        files[month] = folder / f"{month}.parquet"
        write_parquet(table.filter(pc.equal(months, month)), files[month])
    return files
