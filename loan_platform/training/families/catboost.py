"""CatBoost's symmetric trees, with its own coding of categories; of the extra [families].

Here: settings and growing. Not here: asking the trees (`model.scorers.catboost`).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loan_platform.model.scorers.catboost import MOST_CATEGORIES, CatBoost, features
from loan_platform.training.families import Fit, Fitted, Task, Watched, not_installed
from loan_platform.training.families.growth import MOST_TREES, patience
from loan_platform.training.families.loss import row_weights

if TYPE_CHECKING:
    import optuna

DEFAULTS: dict[str, Any] = {"learning_rate": 0.08, "depth": 6, "l2_leaf_reg": 3.0, "rsm": 0.8}
# Pairs of categories lower the held-out loss where there are many of them (loan_default's, of 21,
# from 0.2939 to 0.2907); of up to five they bring a blend nothing sure and take a quarter longer,
# and larger combinations bring no more. With directions there are none: CatBoost's makers say that
# one may be lost where its input is combined with a category.
MANY_CATEGORIES = 10
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


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    from catboost import CatBoostClassifier, Pool

    task, until = asked.task, asked.until
    directions = {f"x{at}": way for at, way in enumerate(task.monotone) if way}
    categorical = [at for at, name in enumerate(task.names) if name in task.categories]

    def rows(of: Fit | Watched) -> Any:
        weights = row_weights(of.outcome, task.balanced)
        return Pool(features(of.matrix, categorical), of.outcome, weight=weights)

    settings = {
        "seed": task.seed,
        "max_ctr_complexity": _combined(task),
        **DEFAULTS,
        **parameters,
    }
    seed = settings.pop("seed")
    model = CatBoostClassifier(
        **settings,
        iterations=until if isinstance(until, int) else MOST_TREES,
        boosting_type="Plain",
        boost_from_average=True,
        monotone_constraints=directions or None,
        random_seed=seed,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
    )
    if isinstance(until, int):
        model.fit(rows(asked))
    else:
        telling = _Telling(until.report)
        model.fit(
            rows(asked),
            eval_set=rows(until),
            early_stopping_rounds=patience(settings["learning_rate"]),
            use_best_model=True,
            callbacks=[telling],
        )
        if telling.raised is not None:
            raise telling.raised
        if directions:
            # Cut short, trees with directions keep a bias that belongs to those cut off.
            return fit(dataclasses.replace(asked, until=model.tree_count_), parameters)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.cbm"
        model.save_model(str(file), format="cbm")
        return Fitted(CatBoost(file.read_bytes()), model.tree_count_)


def _combined(task: Task) -> int:
    """How many categories CatBoost may combine."""
    return 2 if len(task.categories) >= MANY_CATEGORIES and not any(task.monotone) else 1


class _Telling:
    """CatBoost's callback. It keeps what `report` raises, which CatBoost would wrap in its own."""

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self.report = report
        self.raised: Exception | None = None

    def after_iteration(self, now: Any) -> bool:
        """Whether to go on."""
        if now.iteration % REPORTED_EVERY:
            return True
        try:
            self.report(now.iteration, float(now.metrics["validation"]["Logloss"][-1]))
        except Exception as raised:
            self.raised = raised
        return self.raised is None
