"""A small made-up book, cleaned, and one model trained on it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from loan_platform_tests import home_loans
from loan_platform_tests.training.books import cleaned_table, write_months

AS_OF = dt.datetime(2024, 12, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def months(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("home_loans")
    file = home_loans.write_csv(folder / "home_loans.csv", home_loans.rows(3000))
    return write_months(
        cleaned_table(home_loans.contract(), file, simulated=True), folder / "cleaned"
    )
