"""XGBoost's boosted trees, with native categories and missing values; of the extra [families].

Here: settings and growing. Not here: asking the trees (`model.scorers.xgboost`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loan_platform.model.scorers.xgboost import XGBoost
from loan_platform.training.families import Fit, Fitted, Task, Watched, not_installed
from loan_platform.training.families.growth import MOST_TREES, patience
from loan_platform.training.families.loss import row_weights

if TYPE_CHECKING:
    import optuna

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_depth": 5,
    "min_child_weight": 5.0,
    "max_bin": 1024,
    "colsample_bytree": 0.8,
    "subsample": 0.9,
    "reg_lambda": 1.0,
}
REPORTED_EVERY = 20  # trees


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
        "max_depth": trial.suggest_int("max_depth", 3, 8),
        "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 50.0, log=True),
        "max_bin": trial.suggest_categorical("max_bin", [256, 512, 1024]),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
        "subsample": trial.suggest_float("subsample", 0.6, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 30.0, log=True),
    }


def unable(task: Task) -> str | None:
    del task
    return not_installed("xgboost")


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    import xgboost

    task, until = asked.task, asked.until
    settings = {
        "seed": task.seed,
        **DEFAULTS,
        **parameters,
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "monotone_constraints": task.monotone,
        "nthread": 1,
    }

    def rows(of: Fit | Watched) -> xgboost.DMatrix:
        return xgboost.DMatrix(
            of.matrix,
            of.outcome,
            weight=row_weights(of.outcome, task.balanced),
            feature_types=["c" if name in task.categories else "q" for name in task.names],
            enable_categorical=True,
            nthread=1,
        )

    if isinstance(until, int):
        return _fitted(xgboost.train(settings, rows(asked), until), until)
    report = until.report

    class Telling(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            del model
            if epoch % REPORTED_EVERY == REPORTED_EVERY - 1:
                report(epoch + 1, float(evals_log["watched"]["logloss"][-1]))
            return False

    booster = xgboost.train(
        settings,
        rows(asked),
        MOST_TREES,
        evals=[(rows(until), "watched")],
        early_stopping_rounds=patience(settings["learning_rate"]),
        verbose_eval=False,
        callbacks=[Telling()],
    )
    return _fitted(booster, booster.best_iteration + 1)


def _fitted(booster: Any, trees: int) -> Fitted:
    return Fitted(XGBoost(bytes(booster[:trees].save_raw("ubj"))), trees)
