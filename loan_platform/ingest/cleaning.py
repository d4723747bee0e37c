"""Cleans a month: the features of every accepted row, and what is known of its outcome.

Here: cleaned_features. Not here: admission, or the feature SQL itself (`contract.sql`).
"""

from __future__ import annotations

from pathlib import Path

from loan_platform import engine
from loan_platform.contract import Contract
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.contract.sql import features_sql
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import write_admissible
from loan_platform.ingest.staging import Book


def clean(contract: Contract, home: Home, month: str) -> int:
    """Write cleaned_features of `month` from its raw_loans; return its rows."""
    return engine.of(contract).write(
        features_sql(contract, "raw_loans", also=PLATFORM_COLUMNS),
        home.partition(contract.name, "cleaned_features", month),
        raw_loans=[home.partition(contract.name, "raw_loans", month)],
    )


def write_book_features(contract: Contract, book: Book, path: Path) -> int:
    """Write the features of every admissible row of the book, whatever its month, in no order."""
    return write_admissible(contract, book, path, lambda rows: features_sql(contract, rows))
