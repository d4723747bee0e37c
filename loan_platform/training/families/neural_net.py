"""scikit-learn's multi-layer perceptron over inputs brought to a normal distribution.

Here: settings. Not here: encoding (`pipelines`), asking it (`model.scorers.sklearn`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.pipelines import encoder, filled, fitted, keeps_no_direction

if TYPE_CHECKING:
    import optuna

# `width` and `depth` of the hidden layers; each layer is half as wide as the one before.
DEFAULTS: dict[str, Any] = {
    "width": 64,
    "depth": 2,
    "alpha": 1e-3,
    "learning_rate_init": 2e-3,
    "batch_size": 256,
}
SIZES = range(1, 61)  # passes over the rows


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "width": trial.suggest_int("width", 16, 128, log=True),
        "depth": trial.suggest_int("depth", 1, 3),
        "alpha": trial.suggest_float("alpha", 1e-5, 1.0, log=True),
        "learning_rate_init": trial.suggest_float("learning_rate_init", 5e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [128, 256, 512]),
    }


def unable(task: Task) -> str | None:
    return keeps_no_direction(task, "a neural net")


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import QuantileTransformer

    seed, settings = asked.task.seed, {**DEFAULTS, **parameters}
    width, depth = settings.pop("width"), settings.pop("depth")

    def model_of(columns: int) -> Any:
        del columns
        layers = tuple(max(2, width // 2**layer) for layer in range(depth))
        settings["batch_size"] = min(settings["batch_size"], len(asked.outcome))
        return MLPClassifier(layers, **settings, random_state=seed)

    # Money has long tails, which a net follows where a scaler by deviation leaves them.
    normal = QuantileTransformer(
        n_quantiles=min(256, len(asked.matrix)), output_distribution="normal", random_state=seed
    )
    return fitted(
        asked, encoder(asked, normal, filled()), model_of, _extend, sizes=SIZES, patience=5
    )


def _extend(
    model: Any, size: int, encoded: np.ndarray, outcome: np.ndarray, weights: np.ndarray | None
) -> None:
    while getattr(model, "passes_", 0) < size:
        model.partial_fit(encoded, outcome, sample_weight=weights, classes=[0, 1])
        model.passes_ = getattr(model, "passes_", 0) + 1
