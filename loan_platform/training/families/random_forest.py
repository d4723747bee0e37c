"""scikit-learn's random forest. Its monotone constraints allow no gaps, so these are filled.

Here: settings. Not here: encoding (`pipelines`), asking it (`model.scorers.sklearn`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.pipelines import directions, encoder, filled, fitted, grow

if TYPE_CHECKING:
    import optuna

# Each tree sees a part of the rows, as trees of all rows cost much and add little.
DEFAULTS: dict[str, Any] = {"min_samples_leaf": 5, "max_features": 0.3, "max_samples": 0.5}
SIZES = range(40, 241, 40)


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 2, 50, log=True),
        "max_features": trial.suggest_float("max_features", 0.15, 0.6),
        "max_samples": trial.suggest_float("max_samples", 0.3, 0.8),
    }


def unable(task: Task) -> str | None:
    del task
    return None


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    from sklearn.ensemble import RandomForestClassifier

    def model_of(columns: int) -> Any:
        return RandomForestClassifier(
            **{**DEFAULTS, **parameters},
            monotonic_cst=directions(asked, columns),
            random_state=asked.task.seed,
            n_jobs=1,
            warm_start=True,
        )

    return fitted(
        asked, encoder(asked, filled()), model_of, grow("n_estimators"), sizes=SIZES, patience=1
    )
