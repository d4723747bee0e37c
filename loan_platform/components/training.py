"""The assets that find a recipe and make the challenger by it, and their link to an MLflow run.

Here: model_search, trained_model, and what is known by when. Not here: searching, fitting and
measuring (`training` of the library), or what becomes of the challenger (`champion`).
"""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from loan_platform.components.presentation import asset_spec, picture
from loan_platform.contract import Contract
from loan_platform.contract.calendar import partition_key, window
from loan_platform.engine.home import Home

# All pictures are in the model card; the event log, which keeps them for good, gets these.
SHOWN = ("calibration.png", "score_distribution.png", "feature_importance.png", "fairness.png")
TRAINED_BY = "loan-platform/trained_model"
SEARCH_LOG = "loan_platform.search"
"""Python's logger of what a search says while it goes on."""


class TrainingConfig(dg.Config):
    as_of: str | None = None
    """Train on what was known then (ISO 8601 with zone). Default: the end of the newest month, and
    of a book that has ended the day on which that month has matured."""


class SearchConfig(TrainingConfig):
    trials: int | None = None
    """Most trials, those of an earlier search included. Default: training.search.trials."""
    minutes: float | None = None
    """No trial begins after that long. Default: training.search.minutes."""


def model_search(contract: Contract) -> dg.AssetsDefinition:
    """Never materialized by a sensor or schedule: it takes minutes, and its recipe stays good."""
    spec = asset_spec(
        contract,
        "model_search",
        "The recipe of the model: families and settings tried on the rows that fit, the best "
        "alone or blended. Made on request; every later training follows it.",
        kinds={"optuna", "mlflow"},
        deps=["profile", "cleaned_features"],
    )

    @dg.multi_asset(name=f"{contract.name}_model_search", specs=[spec], pool="training")
    def _model_search(
        context: dg.AssetExecutionContext,
        config: SearchConfig,
        home: dg.ResourceParam[Home],
        mlflow: dg.ResourceParam[Any],
    ) -> dg.MaterializeResult[Any]:
        from loan_platform.decisions.outcomes import history_path
        from loan_platform.registry.trials import TrialRuns
        from loan_platform.training.search import search
        from loan_platform.training.search_picture import draw_trials

        cleaned = home.partitions(contract.name, "cleaned_features")
        as_of = _as_of(contract, list(cleaned), config.as_of)
        asked = {"trials": config.trials, "minutes": config.minutes}
        budget = {name: value for name, value in asked.items() if value is not None}
        file = recipe_file(home, contract)
        with (
            _parent_run(mlflow) as parent_run_id,
            TrialRuns(home, contract.name, parent_run_id) as tracker,
        ):
            recipe = search(
                contract,
                cleaned,
                as_of,
                folder=file.parent,
                raw=home.partitions(contract.name, "raw_loans"),
                reported=history_path(home, contract.name),
                settings=type(contract.training.search).model_validate(
                    contract.training.search.model_dump() | budget
                ),
                tracker=tracker,
                progress=partial(_tell, context.log),
            )
            tracker.conclude(recipe)
        recipe.write(file)
        return dg.MaterializeResult(
            metadata={
                "recipe": recipe.words,
                "trials": recipe.trials,
                "as_of": as_of.isoformat(),
                "contract_hash": contract.contract_hash,
                **_figures(recipe.figures),
                **({"left_out": dict(recipe.left_out)} if recipe.left_out else {}),
                "tried": picture(draw_trials(recipe), "trials"),
                "dagster/uri": file.as_uri(),
            }
        )

    return _model_search


def _tell(log: dg.DagsterLogManager, text: str) -> None:
    """To the run's log, and to whoever waits for the search at a terminal."""
    log.info(text)
    logging.getLogger(SEARCH_LOG).info(text)


def recipe_file(home: Home, contract: Contract) -> Path:
    """Where the search of a portfolio leaves what it found."""
    return home.portfolio(contract.name) / "search" / "recipe.json"


def trained_model(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "trained_model",
        "The challenger: fitted on every outcome known by now, judged on rows it never touched, "
        "tracked and registered in MLflow.",
        kinds={"lightgbm", "mlflow"},
        deps=["profile", "cleaned_features", "model_search"],
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
        from loan_platform.registry.ledger import Ledger
        from loan_platform.registry.models import Registry
        from loan_platform.registry.moves import challenge
        from loan_platform.training.pictures import draw
        from loan_platform.training.recipe import to_follow
        from loan_platform.training.train import train

        cleaned = home.partitions(contract.name, "cleaned_features")
        as_of = _as_of(contract, list(cleaned), config.as_of)
        recipe, why = to_follow(contract, recipe_file(home, contract))
        context.log.info(why)
        with _parent_run(mlflow) as parent_run_id:
            trained = train(
                contract,
                cleaned,
                as_of,
                raw=home.partitions(contract.name, "raw_loans"),
                reported=history_path(home, contract.name),
                recipe=recipe,
                progress=context.log.info,
            )
            pictures = draw(trained.bundle, trained.evaluation)
            registry = Registry(home, contract.name)
            version = registry.register(
                trained.bundle,
                trained.evaluation,
                parent_run_id=parent_run_id,
                tags={"dagster_run_id": context.run.run_id},
                pictures=pictures,
            )
        record, accepted = trained.bundle.record, contract.leaks_accepted
        challenge(
            registry,
            Ledger(home, contract.name),
            version,
            by=TRAINED_BY,
            reason=f"trained through {record.trained_through}",
            evidence={
                "recipe": why,
                "dagster_run_id": context.run.run_id,
                "mlflow_run_id": registry.run_id(version),
                "contract_hash": record.contract_hash,
                "data_hash": record.data_hash,
                "as_of": record.as_of.isoformat(),
                "simulated": record.simulated,
                "metrics": _figures(record.metrics),
            },
        )
        return dg.MaterializeResult(
            metadata={
                "model_version": version,
                "model_card": dg.MetadataValue.path(registry.card(version)),
                "trained_through": record.trained_through,
                "recipe": why,
                "as_of": as_of.isoformat(),
                "dagster/row_count": sum(record.rows.values()),
                "partitions": ", ".join(record.partitions),
                "contract_hash": contract.contract_hash,
                "policy_hash": trained.bundle.policy.policy_hash,
                "simulated": record.simulated,
                **({"leaks_accepted": dict(accepted)} if accepted else {}),
                **_figures(
                    {name: value for name, value in record.metrics.items() if _in_short(name)}
                ),
                **{
                    file.removesuffix(".png"): picture(pictures[file], file.removesuffix(".png"))
                    for file in SHOWN
                    if file in pictures
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


def _in_short(name: str) -> bool:
    """Estimates, and the interval of the AUC; the model card has every interval."""
    return not name.endswith(("_low", "_high")) or name.startswith("auc_")


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.items()}
