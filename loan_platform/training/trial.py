"""One trial of a search: its rows and folds, a fit on the other folds, and what is measured.

Here: what a trial is. Not here: which trials there are, and the choice among them (`search`).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from loan_platform.contract.settings import Family, Search
from loan_platform.model.scorers import Scorer
from loan_platform.training.blending import held_out_losses
from loan_platform.training.families import Fit, Task, Watched, module
from loan_platform.training.split import folds
from loan_platform.training.study import Plan

MOST_ROW_MS = 1.0
"""CPU milliseconds that one row may cost in a model that is chosen."""
TIMED_ROWS = 15
GROWN: tuple[Family, ...] = (
    *("lightgbm", "xgboost", "catboost"),
    *("hist_gradient_boosting", "gradient_boosting"),
)
"""Families that add trees one after the other: more rows bear more of them."""
GROWTH = 0.4
"""Trees grow with the rows to this power. With twice the rows of four real books, two draws each,
LightGBM's best number of trees grew with a power of -0.3 to 1.8, half of the time above 0.5."""


@dataclass(frozen=True)
class Question:
    """What the trials are tried on: rows (n, inputs), outcome (n,), fold of each row (n,).

    `given`: what is tried before anything is proposed. `refit_rows`: on how many rows the model
    will be fitted. `stopped`: fits under way are to end.
    """

    task: Task
    matrix: np.ndarray
    outcome: np.ndarray
    fold: np.ndarray
    settings: Search
    families: tuple[Family, ...]
    given: tuple[tuple[Family, dict[str, Any]], ...]
    refit_rows: int
    stopped: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def key(self) -> str:
        """16 hex digits; the same for a search that may go on with the trials of another."""
        asked = {
            "task": asdict(self.task),
            "families": self.families,
            "metric": self.settings.metric,
            "given": self.given,
            "versions": _versions(),
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        for array in (self.matrix, self.outcome, self.fold):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def half(self) -> np.ndarray:
        """0 or 1 for each row (n,): the halves that calibrate each other."""
        return folds(self.outcome, np.arange(len(self.outcome)), 2, self.task.seed + 1)

    def figures(self, rows: np.ndarray, margin: np.ndarray) -> dict[str, float]:
        """Log loss and AUC of a model on some rows (a mask), calibrated on others of them.

        Every model is calibrated before it decides, and with balanced classes a margin is nowhere
        near log-odds.
        """
        from loan_platform.training.evaluate import auc

        outcome = self.outcome[rows]
        losses = held_out_losses(margin[:, None], outcome, self.half[rows])
        return {"log_loss": float(losses.mean()), "auc": auc(outcome, margin)}

    def loss(self, figures: dict[str, float]) -> float:
        """What is to be least."""
        if self.settings.metric == "log_loss":
            return figures["log_loss"]
        return 1 - figures["auc"]

    def refit_size(self, family: Family, sizes: Sequence[int]) -> int:
        """Size of a model fitted on `refit_rows`, from those that suited the folds."""
        fitted = len(self.outcome) * (1 - 1 / self.settings.folds)
        return grown_size(family, sizes, self.refit_rows / fitted)


@dataclass(frozen=True)
class Fold:
    """What one fold of a trial gave: the margins of its rows; times are epoch seconds.

    `row_ms` and `exact` are those of the trial's first fold.
    """

    margin: np.ndarray
    size: int
    began: float
    ended: float
    row_ms: float = 0.0
    exact: bool = False

    @property
    def may_serve(self) -> bool:
        return may_serve(self.exact, self.row_ms)


class Stopped(Exception):
    """The search ends before this fit."""


def measure(question: Question, plan: Plan, number: int) -> Fold:
    """Fit on the other folds, watched by this one, and ask for its margins.

    Watching and measuring on the same rows flatters a family that grows a little, and all of them
    alike: the least of a flat curve.
    """

    def go_on(step: int, loss: float) -> None:
        del step, loss
        if question.stopped.is_set():
            raise Stopped

    go_on(0, 0)
    began = time.time()
    held = question.fold == number
    rows, outcome = question.matrix[held], question.outcome[held]
    watched = Watched(rows, outcome, go_on)
    asked = Fit(question.task, question.matrix[~held], question.outcome[~held], until=watched)
    fitted = module(plan.family).fit(asked, plan.parameters)
    margin = fitted.scorer.margin(rows)
    if not np.isfinite(margin).all():
        raise ValueError("some of its margins are not numbers")
    ended = time.time()
    if number > 0:
        return Fold(margin, fitted.size, began, ended)
    exact = fitted.scorer.contributions(rows[:1]) is not None
    return Fold(margin, fitted.size, began, ended, row_ms(fitted.scorer, rows), exact)


def row_ms(scorer: Scorer, matrix: np.ndarray) -> float:
    """CPU milliseconds of this thread for the margin of one row: the median of some."""
    scorer.margin(matrix[:1])  # the first call may unpack the model
    spent = []
    for place in range(min(TIMED_ROWS, len(matrix))):
        before = time.thread_time()
        scorer.margin(matrix[place : place + 1])
        spent.append(time.thread_time() - before)
    return 1000 * float(np.median(spent))


def may_serve(exact: bool, row_ms: float) -> bool:
    """Whether a model's reasons would be exact, and a row cheap enough."""
    return exact and row_ms <= MOST_ROW_MS


def grown_size(family: Family, sizes: Sequence[int], growth: float) -> int:
    """Trees to grow on `growth` times as many rows as those whose best sizes are given.

    The middle one, since a flat curve has its least anywhere; then a little more (`GROWTH`).
    """
    middle = float(np.median(sizes))
    return max(1, round(middle * growth**GROWTH if family in GROWN else middle))


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("optuna", "lightgbm", "scikit-learn", "xgboost-cpu", "xgboost", "catboost"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
