"""What an MLflow run is told of a training, where people look for it in MLflow's pages.

Here: parameters, metrics, the data set, tables and pictures. Not here: the model and its versions
(`models`), or the figures themselves (`training`).
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loan_platform.evaluation.sections.origin import environment_hash
from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

# MLflow's own limits: it refuses more at once, and longer ones.
AT_ONCE = 100
LONGEST = 6000

TABLES = ("by_month.json", "by_segment.json", "fairness.json")


def parameters(bundle: Bundle) -> dict[str, str]:
    """How the model was made, name -> text, none longer than MLflow takes."""
    record = bundle.record
    told = {
        **record.parameters,
        "calibrator": bundle.calibrator.kind,
        "class_weight": bundle.contract.training.class_weight,
        "seed": record.seed,
        "as_of": record.as_of.isoformat(),
        "months": f"{record.partitions[0]} to {record.partitions[-1]}",
        "partitions": ", ".join(record.partitions),
        "inputs": ", ".join(bundle.contract.model_inputs),
        **{f"rows_{name}": count for name, count in record.rows.items()},
        "environment_hash": environment_hash(record),
        **{f"version_{name}": version for name, version in record.environment.items()},
    }
    return {name: _shortened(str(value)) for name, value in told.items()}


def log_training(
    client: MlflowClient,
    run_id: str,
    bundle: Bundle,
    evaluation: Evaluation,
    pictures: Mapping[str, bytes],
) -> None:
    """Parameters, data set, tables (`TABLES`) and pictures of a training."""
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in parameters(bundle).items()]
    for begin in range(0, len(params), AT_ONCE):
        client.log_batch(run_id, params=params[begin : begin + AT_ONCE])
    client.log_inputs(run_id, [_data_set(bundle)])
    for name, rows in _tables(evaluation).items():
        if rows:
            columns = {column: [row[column] for row in rows] for column in rows[0]}
            client.log_table(run_id, columns, name)
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures.items():
            (Path(folder) / name).write_bytes(picture)
        client.log_artifacts(run_id, folder, "pictures")


def log_metrics(
    client: MlflowClient, run_id: str, model_id: str, bundle: Bundle, evaluation: Evaluation
) -> None:
    """Every metric with the ends of its interval, at the run and at the model made in it.

    Those of the newest months alone are named `out_of_time/NAME`.
    """
    from mlflow.entities import Metric

    at = int(time.time() * 1000)
    newest = {f"out_of_time/{name}": value for name, value in bundle.record.out_of_time.items()}
    told = {**evaluation.metrics, **newest}
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, at, 0, model_id=model_id) for name, value in told.items()],
    )


def _tables(evaluation: Evaluation) -> dict[str, Sequence[Mapping[str, Any]]]:
    return {
        "by_month.json": [dataclasses.asdict(one) for one in evaluation.by_month],
        "by_segment.json": [
            {"column": column, **dataclasses.asdict(one)}
            for column, slices in evaluation.by_segment.items()
            for one in slices
        ],
        "fairness.json": [
            {"column": one.column, "best": one.best, **dataclasses.asdict(group)}
            for one in evaluation.fairness
            for group in one.groups
        ],
    }


def _data_set(bundle: Bundle) -> DatasetInput:
    """The rows learnt from and judged on, by their hash; none of them is stored here."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    record = bundle.record
    return DatasetInput(
        Dataset(
            name=f"{record.portfolio} {record.partitions[0]} to {record.partitions[-1]}",
            digest=record.data_hash,
            source_type="loan_platform",
            source=json.dumps({"portfolio": record.portfolio, "contract": record.contract_hash}),
            profile=json.dumps(record.rows),
        ),
        [InputTag("mlflow.data.context", "training")],
    )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
