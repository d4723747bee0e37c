"""Keeps every trained bundle as a version in MLflow, and points an alias to one.

Each training is one MLflow run in the experiment named after the portfolio; its bundle is a logged
model and a version of the registered model of the same name, with a model card.

Here: writing versions and aliases. Not here: what else the run is told (`records`), reading
versions (`versions`), deciding on them (`promotion`), or the record of every move (`moves`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from loan_platform.contract.expression import SQL_TYPES
from loan_platform.contract.request import example
from loan_platform.contract.sql import features_sql, matrix_sql, quoted
from loan_platform.engine import duck
from loan_platform.engine.files import write_text
from loan_platform.evaluation.sections.origin import environment_hash
from loan_platform.model.bundle import Bundle, bundle_hash
from loan_platform.registry.records import log_metrics, log_training, parameters
from loan_platform.registry.versions import BUNDLE_HASH_TAG, Alias, Versions
from loan_platform.training.card import Card, protected_accepted
from loan_platform.training.evaluate import Evaluation
from loan_platform.training.pictures import draw

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CARD, CARD_FIGURES = "model_card.html", "model_card.json"
ACCEPTED = ("leaks_accepted", "protected_accepted")


@dataclass(frozen=True)
class Registry(Versions):
    """The versions of one portfolio in the MLflow store that `home` names, to read and write."""

    def register(
        self,
        bundle: Bundle,
        evaluation: Evaluation,
        parent_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        """Log a training as an MLflow run and its bundle as the newest version.

        The version is made only after all its files are stored, so none is half a model; no alias
        names it yet (`moves.challenge`). `parent_run_id` nests the run; `tags` are set on run and
        version; `pictures` are those of `training.pictures`, drawn where not given. Gives the
        version.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

        record = bundle.record
        described = {
            "portfolio": self.portfolio,
            "contract_hash": record.contract_hash,
            "policy_hash": bundle.policy.policy_hash,
            "data_hash": record.data_hash,
            "trained_through": record.trained_through,
            "simulated": str(record.simulated).lower(),
            "environment_hash": environment_hash(record),
            **_accepted(bundle),
            **(tags or {}),
        }
        nested = {MLFLOW_PARENT_RUN_ID: parent_run_id} if parent_run_id else {}
        name = f"{self.portfolio} through {record.trained_through}"
        run = self.client.create_run(
            self.experiment_id(), tags={**described, **nested, MLFLOW_RUN_NAME: name}
        )
        run_id = run.info.run_id
        try:
            drawn = draw(bundle, evaluation) if pictures is None else pictures
            log_training(self.client, run_id, bundle, evaluation, drawn)
            with tempfile.TemporaryDirectory() as folder:
                saved = Path(folder) / "bundle"
                bundle.save(saved)
                model = self._log_model(run.info.experiment_id, run_id, bundle, saved)
                proof = {BUNDLE_HASH_TAG: bundle_hash(saved)}
            log_metrics(self.client, run_id, model.model_id, bundle, evaluation)
            version = self._create_version(run_id, model, {**described, **proof})
            runs = {"MLflow run": run_id}
            if "dagster_run_id" in described:
                runs["Dagster run"] = described["dagster_run_id"]
            card = Card.of(bundle, evaluation, version=version, runs=runs)
            page = card.page(drawn)
            self.client.log_text(run_id, card.json, CARD_FIGURES)
            self.client.log_text(run_id, page, CARD)
            write_text(page, self.card(version))
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id, "FINISHED")
        return version

    def card(self, version: str) -> Path:
        """Where this machine keeps the model card of a version that was registered here."""
        return self.home.portfolio(self.portfolio) / "cards" / f"version-{version}.html"

    def promote(self, version: str, to: Alias = "champion") -> None:
        """Make a version champion (or `to`), after loading it once to be sure it can be served.

        The ledger is not told: that is what `moves` is for.
        """
        self.load(version)
        self.client.set_registered_model_alias(self.portfolio, to, version)

    def experiment_id(self) -> str:
        """The experiment named after the portfolio, made where there is none."""
        from mlflow.exceptions import MlflowException

        if found := self.client.get_experiment_by_name(self.portfolio):
            return str(found.experiment_id)
        # A server knows where its files go; without one they would go to the working directory.
        served = self.home.tracking_uri.startswith("http")
        folder = self.home.mlflow_artifacts / self.portfolio
        try:
            return self.client.create_experiment(
                self.portfolio, artifact_location=None if served else folder.as_uri()
            )
        except MlflowException:  # another process made it meanwhile
            if found := self.client.get_experiment_by_name(self.portfolio):
                return str(found.experiment_id)
            raise

    def _log_model(
        self, experiment_id: str, run_id: str, bundle: Bundle, saved: Path
    ) -> LoggedModel:
        import mlflow
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        logged = self.client.create_logged_model(
            experiment_id,
            name=self.portfolio,
            source_run_id=run_id,
            model_type="loan_platform",
            params=parameters(bundle),
        )
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            mlflow.pyfunc.save_model(
                path=str(model),
                python_model=str(Path(__file__).with_name("served.py")),
                artifacts={"bundle": str(saved)},
                signature=_signature(bundle),
                input_example=example_frame(bundle).to_pandas(),
                pip_requirements=_requirements(bundle),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_id=logged.model_id,
                    model_uuid=logged.model_id,
                ),
            )
            self.client.log_model_artifacts(logged.model_id, str(model))
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged

    def _create_version(self, run_id: str, model: LoggedModel, tags: dict[str, str]) -> str:
        from mlflow.exceptions import MlflowException
        from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

        try:
            self.client.create_registered_model(self.portfolio)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # By place, not as models:/<id>: MLflow would look such an id up in the global store.
        made = self.client.create_model_version(
            self.portfolio,
            model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags=tags,
            description="; ".join(tags[name] for name in ACCEPTED if name in tags) or None,
        )
        link = [{"name": self.portfolio, "version": made.version}]
        self.client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(link)})
        return str(made.version)


def _accepted(bundle: Bundle) -> dict[str, str]:
    """Tags that name columns used although they leak or are protected, where there are any."""
    contract = bundle.contract
    used = {
        "leaks_accepted": ("used although it leaks", contract.leaks_accepted),
        "protected_accepted": ("used although it is protected", protected_accepted(contract)),
    }
    return {
        tag: f"{what}: {'; '.join(f'{name}: {why}' for name, why in columns.items())}"[:5000]
        for tag, (what, columns) in used.items()
        if columns
    }


def predict_frame(bundle: Bundle, frame: pa.Table) -> pa.Table:
    """Decide a table of the contract's input columns: probability_default, label, decision.

    Columns are cast to the contract's types; a value that cannot be is missing to the model.
    """
    import numpy as np

    contract = bundle.contract
    lacking = [c.name for c in contract.input_columns if c.name not in frame.column_names]
    if lacking:
        raise ValueError(
            f"the table lacks {', '.join(lacking)}; {contract.name} needs "
            f"{', '.join(c.name for c in contract.input_columns)}"
        )
    typed = ", ".join(
        f"TRY_CAST({quoted(c.name)} AS {SQL_TYPES[c.type]}) AS {quoted(c.name)}"
        for c in contract.input_columns
    )
    numbered = frame.append_column("_row", pa.array(range(len(frame)), pa.int64()))
    matrix = duck.query(
        f"WITH typed AS (SELECT _row, {typed} FROM frame), "
        f"inputs AS ({features_sql(contract, 'typed', ('_row',))}), "
        f"matrix AS ({matrix_sql(contract, 'inputs', ('_row',))}) "
        "SELECT * FROM matrix ORDER BY _row",
        frame=numbered,
    )
    columns = [np.asarray(matrix[name], dtype=np.float64) for name in contract.model_inputs]
    probability = bundle.probability(np.column_stack(columns), threads=duck.THREADS)
    return pa.table(
        {
            "probability_default": probability,
            "label": bundle.policy.label(probability),
            "decision": pa.array(bundle.policy.decide(probability).tolist(), pa.string()),
        }
    )


def example_frame(bundle: Bundle) -> pa.Table:
    """Made-up applications, one a golden row, as the contract's input columns.

    What only derived features read is not in a golden row: it has the value of the example.
    """
    contract = bundle.contract
    usual = example(contract)
    columns: dict[str, list[Any]] = {}
    for column in contract.input_columns:
        if column.name not in contract.model_inputs:
            value = usual.get(column.name, contract.time.first_day.isoformat())
            if column.type in ("number", "integer") and value is not None:
                value = float(value)
            columns[column.name] = [value] * len(bundle.golden[:5])
            continue
        index = contract.model_inputs.index(column.name)
        values = [None if value != value else float(value) for value in bundle.golden[:5, index]]
        listed = contract.categorical_inputs.get(column.name)
        columns[column.name] = (
            [None if value is None else listed[int(value)] for value in values]
            if listed
            else values
        )
    return pa.table(columns)


def _signature(bundle: Bundle) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    # Whole numbers are doubles here: pandas has no missing whole number. Dates are ISO text.
    kinds = dict.fromkeys(("category", "text", "date"), DataType.string)
    inputs = [
        ColSpec(kinds.get(c.type, DataType.double), c.name, required=c.nulls == "refused")
        for c in bundle.contract.input_columns
    ]
    outputs = [
        ColSpec(DataType.double, "probability_default"),
        ColSpec(DataType.long, "label"),
        ColSpec(DataType.string, "decision"),
    ]
    return ModelSignature(inputs=Schema(list(inputs)), outputs=Schema(list(outputs)))


def _requirements(bundle: Bundle) -> list[str]:
    """The versions that computed the golden rows; given, since MLflow's own search is slow."""
    from importlib.metadata import version

    versions = {k: v for k, v in bundle.record.environment.items() if k != "python"}
    return [f"{name}=={v}" for name, v in {**versions, "mlflow": version("mlflow")}.items()]
