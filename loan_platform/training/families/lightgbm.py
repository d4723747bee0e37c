"""LightGBM's boosted trees, with native categories and missing values.

Here: settings and growing. Not here: asking the trees (`model.scorers.lightgbm`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loan_platform.model.scorers.lightgbm import LightGBM
from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.growth import MOST_TREES, patience
from loan_platform.training.families.loss import row_weights

if TYPE_CHECKING:
    import optuna
    from lightgbm.callback import CallbackEnv

# Chosen on credit_risk's real book, on the rows that do not judge (fit, calibrate, threshold) and
# no others: five-fold cross-validation over max_bin 255, 511, 1023 x learning_rate 0.03, 0.05, 0.1
# x num_leaves 15, 31, 63. Of those within one standard error of the least log loss (0.2709), this
# one grows the smallest model: 770 trees of 15 leaves, log loss 0.2713. Fine bins matter most: 1023
# instead of 255 takes 0.006 off the log loss. The other settings are usual ones, not searched.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "max_bin": 1023,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
}
REPORTED_EVERY = 20  # trees
# A second thread saves a third of the time on an idle machine and multiplies it on a busy one,
# where LightGBM's threads wait for each other at every split: 1.3 s became 10 s.
THREADS = 1


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 7, 63, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, 200, log=True),
        "max_bin": trial.suggest_categorical("max_bin", [255, 1023, 4095]),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.6, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 30.0, log=True),
        "path_smooth": trial.suggest_float("path_smooth", 0.0, 20.0),
        "cat_smooth": trial.suggest_float("cat_smooth", 1.0, 100.0, log=True),
    }


def unable(task: Task) -> str | None:
    del task
    return None


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    import lightgbm

    task, until = asked.task, asked.until
    settings = {
        "seed": task.seed,
        **DEFAULTS,
        **parameters,
        "objective": "binary",
        "metric": "binary_logloss",
        "monotone_constraints": list(task.monotone),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    dataset = lightgbm.Dataset(
        asked.matrix,
        asked.outcome,
        weight=row_weights(asked.outcome, task.balanced),
        categorical_feature=[task.names.index(name) for name in task.categories],
        params=settings,
    )
    if isinstance(until, int):
        return _fitted(lightgbm.train(settings, dataset, until), until)
    waits = patience(settings["learning_rate"])
    weights = row_weights(until.outcome, task.balanced)
    booster = lightgbm.train(
        settings,
        dataset,
        MOST_TREES,
        valid_sets=[dataset.create_valid(until.matrix, until.outcome, weight=weights)],
        callbacks=[lightgbm.early_stopping(waits, verbose=False), _telling(until.report)],
    )
    return _fitted(booster, max(1, booster.best_iteration))


def _fitted(booster: Any, trees: int) -> Fitted:
    return Fitted(LightGBM(booster.model_to_string(num_iteration=trees)), trees)


def _telling(report: Callable[[int, float], None]) -> Callable[[CallbackEnv], None]:
    def tell(now: CallbackEnv) -> None:
        found = now.evaluation_result_list
        if found and now.iteration % REPORTED_EVERY == REPORTED_EVERY - 1:
            report(now.iteration + 1, float(found[0][2]))

    return tell
