"""CatBoost's symmetric trees, with its own coding of categories; of the extra [families].

Here: settings and growing. Not here: asking the trees (`model.scorers.catboost`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_platform.model.scorers.catboost import MOST_CATEGORIES, CatBoost, features
from loan_platform.training.families import Fitted, Task, Watched, not_installed
from loan_platform.training.families.growth import MOST_TREES, patience
from loan_platform.training.families.loss import row_weights

if TYPE_CHECKING:
    import optuna

DEFAULTS: dict[str, Any] = {"learning_rate": 0.08, "depth": 6, "l2_leaf_reg": 3.0, "rsm": 0.8}
REPORTED_EVERY = 20  # trees


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.2, log=True),
        "depth": trial.suggest_int("depth", 4, 8),
        "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1.0, 30.0, log=True),
        "rsm": trial.suggest_float("rsm", 0.4, 1.0),
    }


def unable(task: Task) -> str | None:
    large = [name for name, count in task.categories.items() if count > MOST_CATEGORIES]
    if large:
        return f"{', '.join(large)} has more than {MOST_CATEGORIES:,} categories"
    return not_installed("catboost")


def fit(
    task: Task,
    matrix: np.ndarray,
    outcome: np.ndarray,
    parameters: dict[str, Any],
    *,
    size: int | None = None,
    watch: Watched | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Fitted:
    from catboost import CatBoostClassifier, Pool

    directions = {f"x{at}": way for at, way in enumerate(task.monotone) if way}
    categorical = [at for at, name in enumerate(task.names) if name in task.categories]

    def rows(matrix: np.ndarray, outcome: np.ndarray) -> Any:
        weights = row_weights(outcome, task.balanced)
        return Pool(features(matrix, categorical), outcome, weight=weights)

    telling = _Telling(report)
    settings = {**DEFAULTS, **parameters}
    model = CatBoostClassifier(
        **settings,
        iterations=MOST_TREES if size is None else size,
        boosting_type="Plain",
        boost_from_average=True,
        monotone_constraints=directions or None,
        random_seed=task.seed,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
    )
    if size is not None:
        model.fit(rows(matrix, outcome))
    elif watch is not None:
        model.fit(
            rows(matrix, outcome),
            eval_set=rows(*watch),
            early_stopping_rounds=patience(settings["learning_rate"]),
            use_best_model=True,
            callbacks=[telling],
        )
        if telling.raised is not None:
            raise telling.raised
    else:
        raise ValueError("give size, or rows to watch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.cbm"
        model.save_model(str(file), format="cbm")
        return Fitted(CatBoost(file.read_bytes()), model.tree_count_)


class _Telling:
    """CatBoost's callback. It keeps what `report` raises, which CatBoost would wrap in its own."""

    def __init__(self, report: Callable[[int, float], None] | None) -> None:
        self.report = report
        self.raised: Exception | None = None

    def after_iteration(self, now: Any) -> bool:
        """Whether to go on."""
        if self.report is None or now.iteration % REPORTED_EVERY:
            return True
        try:
            self.report(now.iteration, float(now.metrics["validation"]["Logloss"][-1]))
        except Exception as raised:
            self.raised = raised
        return self.raised is None
