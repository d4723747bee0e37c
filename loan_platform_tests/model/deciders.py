"""Bundles that decide as a test wants: of scorers written down here, or trained on a book.

Here: what the tests of reasons need of a model. Not here: any test.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.request import Value
from loan_platform.contract.sql import matrix_sql
from loan_platform.engine import duck
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import Bundle, TrainingRecord
from loan_platform.model.calibrator import Sigmoid
from loan_platform.model.policy import Policy
from loan_platform.model.reasons import Reasons
from loan_platform.training.families import Fit, module, task_of
from loan_platform.training.reference import approved_reference

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Written:
    """A scorer that is two functions: rows to margins, and rows to contributions (or None)."""

    of: Callable[[np.ndarray], np.ndarray]
    adds: Callable[[np.ndarray], np.ndarray] | None = None

    kind: ClassVar[str] = "written"
    libraries: ClassVar[tuple[str, ...]] = ()

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:  # noqa: ARG002
        return np.asarray(self.of(matrix), dtype=np.float64)

    def contributions(self, matrix: np.ndarray) -> np.ndarray | None:
        return None if self.adds is None else self.adds(matrix)

    def importance(self) -> None:
        return None

    def dump(self) -> bytes:
        raise NotImplementedError


def linear(weights: list[float], at: list[float] | None = None) -> Written:
    """Log-odds of `weights @ (row - at)`, missing as `at`; each input adds its own term."""
    middle = np.zeros(len(weights)) if at is None else np.array(at)

    def adds(matrix: np.ndarray) -> np.ndarray:
        terms = np.array(weights) * np.where(np.isnan(matrix), 0, matrix - middle)
        return np.column_stack([terms, np.zeros(len(matrix))])

    return Written(lambda matrix: adds(matrix).sum(axis=1), adds)


def bundle_of(contract: Contract, scorer: object, reference: dict[str, Value]) -> Bundle:
    """Approves below log-odds of 0 and declines from 0 on."""
    record = TrainingRecord(
        portfolio=contract.name,
        trained_at=NOW,
        as_of=NOW,
        trained_through="2025-12",
        partitions=["2025-12"],
        rows={},
        metrics={},
        parameters={},
        contract_hash=contract.contract_hash,
        data_hash="0" * 12,
        environment={},
        simulated=True,
        seed=0,
    )
    return Bundle(
        contract=contract,
        policy=Policy.banded(0.5, 0.5, 0.5),
        calibrator=Sigmoid(slope=1.0, intercept=0.0),
        record=record,
        scorer=scorer,  # type: ignore[arg-type] # any class that keeps the protocol
        golden=np.zeros((1, len(contract.model_inputs))),
        reference=reference,
    )


def reasons_of(bundle: Bundle, rows: list[dict[str, Value]]) -> list[list[str | None]]:
    """The columns named for each application, in their order."""
    features = PreparedFeatures(bundle.contract)
    matrix, _ = features.evaluate(rows)
    return [
        [reason.column for reason in found] for found in Reasons(bundle, features).of(rows, matrix)
    ]


def trained_on(contract: Contract, months: dict[str, Path], size: int) -> Bundle:
    """One LightGBM of `size` trees on every known row; declines a third and refers a tenth."""
    cleaned = duck.query(
        f"WITH cleaned AS (FROM {duck.parquet(*months.values())} WHERE outcome IS NOT NULL) "
        f"{matrix_sql(contract, 'cleaned', ('application_id', 'outcome'))} ORDER BY application_id"
    )
    matrix = np.column_stack([np.asarray(cleaned[name]) for name in contract.model_inputs])
    outcome = np.asarray(cleaned["outcome"])
    scorer = module("lightgbm").fit(Fit(task_of(contract), matrix, outcome, until=size), {}).scorer
    bundle = bundle_of(contract, scorer, {})
    low, high = np.quantile(bundle.probability(matrix), [0.57, 0.67]).tolist()
    bundle = replace(bundle, policy=Policy.banded(high, low, high))
    approved = bundle.policy.decide(bundle.probability(matrix)) == "approve"
    ids = np.array(cleaned["application_id"].to_pylist(), dtype=object)[approved]
    return replace(bundle, reference=approved_reference(contract, months, ids))


def applications_of(
    contract: Contract, months: dict[str, Path], count: int
) -> list[dict[str, Value]]:
    """The last `count` applications of a cleaned layer, as a request gives them."""
    names = [column.name for column in contract.input_columns]
    table: pa.Table = duck.query(
        f"FROM {duck.parquet(*months.values())} ORDER BY applied_at DESC, application_id "
        f"LIMIT {count}"
    ).select(names)
    return [
        {k: v.isoformat() if isinstance(v, dt.date) else v for k, v in row.items()}
        for row in table.to_pylist()
    ]
