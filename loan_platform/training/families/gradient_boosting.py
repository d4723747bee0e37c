"""scikit-learn's gradient boosting over exact splits; slow on large books.

Here: settings. Not here: encoding (`pipelines`), asking it (`model.scorers.sklearn`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.pipelines import (
    encoder,
    filled,
    fitted,
    grow,
    keeps_no_direction,
)

if TYPE_CHECKING:
    import optuna

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_depth": 4,
    "min_samples_leaf": 20,
    "max_features": 0.3,
    "subsample": 0.5,
}
SIZES = range(25, 501, 25)


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.05, 0.3, log=True),
        "max_depth": trial.suggest_int("max_depth", 3, 7),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 100, log=True),
        "max_features": trial.suggest_float("max_features", 0.15, 0.6),
        "subsample": trial.suggest_float("subsample", 0.3, 0.9),
    }


def unable(task: Task) -> str | None:
    return keeps_no_direction(task, "gradient boosting")


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    from sklearn.ensemble import GradientBoostingClassifier

    def model_of(columns: int) -> Any:
        del columns
        return GradientBoostingClassifier(
            **{**DEFAULTS, **parameters}, random_state=asked.task.seed, warm_start=True
        )

    return fitted(
        asked, encoder(asked, filled()), model_of, grow("n_estimators"), sizes=SIZES, patience=2
    )
