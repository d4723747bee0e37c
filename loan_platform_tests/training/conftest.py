"""A small made-up book, cleaned, and a model with its evaluation."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from loan_platform.contract.portfolios import contract_of
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation, evaluate_rows
from loan_platform_tests import home_loans
from loan_platform_tests.service import bundles
from loan_platform_tests.training.books import cleaned_table, made_rows, write_months

AS_OF = dt.datetime(2024, 12, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def months(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("home_loans")
    file = home_loans.write_csv(folder / "home_loans.csv", home_loans.rows(3000))
    return write_months(
        cleaned_table(home_loans.contract(), file, simulated=True), folder / "cleaned"
    )


@pytest.fixture(scope="session")
def judged() -> tuple[Bundle, Evaluation]:
    """A model of credit_risk's contract, and how it did on made-up rows of two months."""
    contract = contract_of("credit_risk")
    bundle = bundles.bundle(contract)
    inputs = bundles.applications(contract, 2000, seed=5)
    matrix, _ = PreparedFeatures(contract).evaluate(inputs)
    probability = bundle.probability(matrix)
    random = np.random.default_rng(2)
    rows = made_rows(
        [f"a-{number:05d}" for number in range(len(inputs))],
        matrix=matrix,
        applied_at=np.where(np.arange(len(inputs)) % 2, "2025-11-03", "2025-12-04"),
        outcome=(random.random(len(inputs)) < probability).astype(np.int64),
        beside={
            column.name: np.array(
                [row[column.name] for row in inputs],
                dtype=object if column.categories else np.float64,
            )
            for column in contract.columns
            if column.name in contract.columns_beside
        },
    )
    return bundle, evaluate_rows(contract, rows, probability, bundle.policy)
