"""Cleans a month: the features of every accepted row, and what is known of its outcome.

Here: cleaned_features. Not here: admission, or the feature SQL itself (`contract.sql`).
"""

from __future__ import annotations

import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.contract.sql import features_sql
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import admissible
from loan_platform.ingest.source import Book


def clean(contract: Contract, home: Home, month: str) -> pa.Table:
    """Write and return cleaned_features of `month`, from its raw_loans."""
    raw = home.partition(contract.name, "raw_loans", month)
    cleaned = duck.query(features_sql(contract, duck.parquet(raw), also=PLATFORM_COLUMNS))
    write_parquet(cleaned, home.partition(contract.name, "cleaned_features", month))
    return cleaned


def book_features(contract: Contract, book: Book) -> pa.Table:
    """Features of every admissible row of the book, whatever its month."""
    return duck.query(features_sql(contract, "admissible"), admissible=admissible(contract, book))
