"""A small made-up portfolio whose inputs are continuous, discrete, with gaps, and categorical."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from loan_platform.contract import Contract

INTENTS = ["CAR", "HOME", "BOAT", "STUDY"]


def applications(rows: int, seed: int, income_factor: float = 1.0) -> pa.Table:
    """Model inputs of `rows` made-up applications, as cleaned_features has them."""
    random = np.random.default_rng(seed)
    age = random.geometric(0.12, rows) + 19
    income = np.round(np.exp(random.normal(10.9, 0.55, rows)) * income_factor, 2)
    employed = np.where(random.random(rows) < 0.03, np.nan, random.poisson(5, rows))
    intent = random.choice(INTENTS, rows, p=[0.5, 0.3, 0.19, 0.01])
    amount = np.round(np.exp(random.normal(9, 0.6, rows)), -2)
    return pa.table(
        {
            "age": pa.array(age, pa.int64()),
            "income": pa.array(income),
            "employed": pa.array(employed, from_pandas=True),
            "intent": pa.array(intent),
            "amount": pa.array(amount),
            "burden": pa.array(amount / income),
        }
    )


@pytest.fixture(scope="session")
def contract() -> Contract:
    numbers = [
        {"name": name, "type": "number", "range": [0, 1e9], "nulls": "allowed"}
        for name in ("income", "employed")
    ]
    return Contract.model_validate(
        {
            "name": "made_up",
            "title": "Made up",
            "source": {"path": "made_up.csv"},
            "time": {"replay": {"start": "2024-01-01", "periods": 12}},
            "outcome": {"bad": ["1"], "good": ["0"], "matures_after_days": 30},
            "columns": [
                {"name": "age", "type": "integer", "range": [18, 200]},
                *numbers,
                {"name": "intent", "type": "category", "categories": INTENTS},
                {"name": "amount", "type": "number", "range": [0, 1e9]},
                {
                    "name": "outcome",
                    "type": "category",
                    "categories": ["0", "1"],
                    "role": "outcome",
                },
            ],
            "features": {"burden": {"sql": "amount / nullif(income, 0)"}},
        }
    )


@pytest.fixture(scope="session")
def book() -> pa.Table:
    return applications(13_000, seed=1)
