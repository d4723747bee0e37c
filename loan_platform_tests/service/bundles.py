"""Bundles to serve: small real models of the credit_risk contract, and applications to send.

Here: what the service's tests need of a model, drawn from a seed, and a cleaned layer to train
one properly from. Not here: whether training is right (`loan_platform_tests.training`).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Feature
from loan_platform.contract.request import Value
from loan_platform.contract.sql import features_sql
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.prepared import ARROW_TYPES, PreparedFeatures
from loan_platform.model.bundle import Bundle, TrainingRecord, environment
from loan_platform.model.calibrator import Sigmoid
from loan_platform.model.policy import Policy
from loan_platform.model.scorers.lightgbm import LightGBM


def applications(contract: Contract, rows: int, seed: int) -> list[dict[str, Value]]:
    """Valid applications that break no rule of the contract, some with missing values."""
    random = np.random.default_rng(seed)

    def draw(column: Any) -> Value:
        if column.nulls == "allowed" and random.random() < 0.2:
            return None
        if column.categories:
            return str(random.choice(column.categories))
        low, high = column.range
        value = float(low + (high - low) * random.beta(1, 6))
        if column.name == "person_emp_length":
            value = float(random.integers(0, 18))
        return int(value) if column.type == "integer" else value

    return [{c.name: draw(c) for c in contract.feature_columns} for _ in range(rows)]


def overflowing(contract: Contract) -> Contract:
    """The contract with one more feature, which raises for a credit history over a year."""
    fragile = Feature(sql="cb_person_cred_hist_length * 9223372036854775807")
    return contract.model_copy(update={"features": {**contract.features, "fragile": fragile}})


def bundle(contract: Contract, seed: int = 0, trees: int = 20) -> Bundle:
    """A model of the contract; another seed gives another model."""
    random = np.random.default_rng(seed)
    matrix, _ = PreparedFeatures(contract).evaluate(applications(contract, 600, seed))
    label = (random.random(600) < 0.2 + 0.5 * (matrix[:, 0] < 30)).astype(int)
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": seed, "num_leaves": 15},
        lightgbm.Dataset(matrix, label),
        num_boost_round=trees,
    )
    scorer = LightGBM(booster.model_to_string())
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    record = TrainingRecord(
        portfolio=contract.name,
        trained_at=now,
        as_of=now,
        trained_through="2025-12",
        partitions=["2025-12"],
        rows={"fit": 600},
        metrics={},
        parameters={},
        contract_hash=contract.contract_hash,
        data_hash="0" * 12,
        environment=environment(scorer),
        simulated=True,
        seed=seed,
    )
    return Bundle(
        contract=contract,
        policy=Policy.banded(0.3 + seed / 1000, 0.2, 0.4),
        calibrator=Sigmoid(slope=1.0 + seed / 100, intercept=0.0),
        record=record,
        scorer=scorer,
        golden=matrix[:5],
        reference={},
    )


AS_OF = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def cleaned_layer(
    contract: Contract, rows: list[dict[str, Value]], folder: Path
) -> dict[str, Path]:
    """`rows` with made-up outcomes as two months of the cleaned layer; `a-<n>` is row n's id."""
    random = np.random.default_rng(len(rows))
    kinds = [(column.name, ARROW_TYPES[column.type]) for column in contract.feature_columns]
    schema = pa.schema(
        [
            ("application_id", pa.string()),
            ("applied_at", pa.timestamp("us", tz="UTC")),
            ("origin", pa.string()),
            ("outcome", pa.int64()),
            ("outcome_known_at", pa.timestamp("us", tz="UTC")),
            ("outcome_source", pa.string()),
        ]
    )
    files = {}
    for month in (1, 2):
        moment = dt.datetime(2025, month, 15, tzinfo=dt.UTC)
        mine = range(month - 1, len(rows), 2)
        platform = [
            {
                "application_id": f"a-{n}",
                "applied_at": moment,
                "origin": "simulated",
                "outcome": int(
                    random.random() < (0.5 if rows[n]["loan_intent"] == "MEDICAL" else 0.1)
                ),
                "outcome_known_at": moment + dt.timedelta(days=30),
                "outcome_source": "lender",
            }
            for n in mine
        ]
        typed = pa.Table.from_pylist(
            [row | rows[n] for row, n in zip(platform, mine, strict=True)],
            schema=pa.unify_schemas([schema, pa.schema(kinds)]),
        )
        cleaned = duck.query(features_sql(contract, "typed", also=tuple(schema.names)), typed=typed)
        files[f"2025-{month:02d}"] = folder / f"2025-{month:02d}.parquet"
        write_parquet(cleaned, files[f"2025-{month:02d}"])
    return files
