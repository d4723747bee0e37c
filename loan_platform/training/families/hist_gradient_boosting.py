"""scikit-learn's gradient boosting over bins, with gaps and monotone directions as they are.

Its own handling of categories puts functions into the model's file, which no bundle may hold, so
they are columns of their own here as well.

Here: settings. Not here: encoding (`pipelines`), asking it (`model.scorers.sklearn`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.pipelines import directions, encoder, fitted, grow

if TYPE_CHECKING:
    import optuna

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.07,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "max_features": 0.8,
}
SIZES = range(40, 1201, 40)


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.2, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 7, 63, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 200, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-3, 30.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.3, 1.0),
    }


def unable(task: Task) -> str | None:
    del task
    return None


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.preprocessing import StandardScaler

    def model_of(columns: int) -> Any:
        return HistGradientBoostingClassifier(
            **{**DEFAULTS, **parameters},
            monotonic_cst=directions(asked, columns),
            early_stopping=False,
            random_state=asked.task.seed,
            warm_start=True,
        )

    # A scaler that does not scale: it leaves gaps where they are, which an imputer would not.
    as_it_is = StandardScaler(with_mean=False, with_std=False)
    return fitted(
        asked, encoder(asked, as_it_is), model_of, grow("max_iter"), sizes=SIZES, patience=2
    )
