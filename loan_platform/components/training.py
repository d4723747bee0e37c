"""The asset that makes the challenger, and its link to an MLflow run.

Here: trained_model, and what is known by when. Not here: fitting and measuring (`training` of the
library), or what becomes of the challenger (`champion`).
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from loan_platform.components.presentation import asset_spec, picture
from loan_platform.contract import Contract
from loan_platform.contract.calendar import partition_key, window
from loan_platform.engine.home import Home


class TrainingConfig(dg.Config):
    as_of: str | None = None
    """Train on what was known then (ISO 8601 with zone). Default: the end of the newest month, and
    of a book that has ended the day on which that month has matured."""


def trained_model(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "trained_model",
        "The challenger: fitted on every outcome known by now, judged on rows it never touched, "
        "tracked and registered in MLflow.",
        kinds={"lightgbm", "mlflow"},
        deps=["profile", "cleaned_features"],
    )

    @dg.multi_asset(
        name=f"{contract.name}_trained_model",
        specs=[spec],
        pool="training",
    )
    def _trained_model(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        home: dg.ResourceParam[Home],
        mlflow: dg.ResourceParam[Any],
    ) -> dg.MaterializeResult[Any]:
        from loan_platform.decisions.outcomes import history_path
        from loan_platform.registry.models import Registry
        from loan_platform.training.pictures import draw
        from loan_platform.training.train import train

        cleaned = home.partitions(contract.name, "cleaned_features")
        as_of = _as_of(contract, list(cleaned), config.as_of)
        with _parent_run(mlflow) as parent_run_id:
            trained = train(
                contract,
                cleaned,
                as_of,
                reported=history_path(home, contract.name),
                progress=context.log.info,
            )
            version = Registry(home, contract.name).register(
                trained.bundle,
                trained.evaluation,
                parent_run_id=parent_run_id,
                tags={"dagster_run_id": context.run.run_id},
            )
        record, accepted = trained.bundle.record, contract.leaks_accepted
        return dg.MaterializeResult(
            metadata={
                "model_version": version,
                "trained_through": record.trained_through,
                "as_of": as_of.isoformat(),
                "dagster/row_count": sum(record.rows.values()),
                "partitions": ", ".join(record.partitions),
                "contract_hash": contract.contract_hash,
                "policy_hash": trained.bundle.policy.policy_hash,
                "simulated": record.simulated,
                **({"leaks_accepted": dict(accepted)} if accepted else {}),
                **_figures(record.metrics),
                **{
                    file.removesuffix(".png"): picture(png, file.removesuffix(".png"))
                    for file, png in draw(trained.bundle, trained.evaluation).items()
                },
            }
        )

    return _trained_model


def _as_of(contract: Contract, months: list[str], asked: str | None) -> dt.datetime:
    """The moment up to which outcomes are known to the training."""
    if asked:
        moment = dt.datetime.fromisoformat(asked)
        if moment.tzinfo is None:
            raise dg.Failure(f"as_of {asked} has no time zone; write {asked}+00:00 for UTC")
        return moment
    if not months:
        raise dg.Failure(
            f"{contract.name} has no cleaned_features yet; materialize its months first.",
            allow_retries=False,
        )
    known_by = window(months[-1])[1]
    if contract.time.end and months[-1] == partition_key(contract.time.end):
        # Nothing follows the last month of a book that has ended, but its outcomes still come in.
        known_by += dt.timedelta(days=contract.outcome.matures_after_days)
    return min(known_by, dt.datetime.now(dt.UTC))


@contextmanager
def _parent_run(mlflow: Any) -> Iterator[str]:
    """The MLflow run dagster-mlflow keeps for this Dagster run, ended as it deserves.

    dagster-mlflow leaves it RUNNING in asset jobs; its hook ends it only in a job's last step.
    """
    try:
        yield mlflow.active_run().info.run_id
    except BaseException:
        mlflow.end_run(status="FAILED")
        raise
    mlflow.end_run()


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.items()}
