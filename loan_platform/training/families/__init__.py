"""The families of models, one module each: settings, their range for a search, and fitting.

Here: what is particular to a library. Not here: which rows are for what (`train`), choosing among
families (`search`), or scoring (`model.scorers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.settings import Family
from loan_platform.model.scorers import Scorer

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Task:
    """What every family is told about the book. `names` are the contract's model inputs.

    `categories`: input -> number of its categories (codes 0..k-1, NaN missing). `monotone`: -1, 0
    or 1 for each input. `balanced`: both classes weigh the same.
    """

    names: tuple[str, ...]
    categories: dict[str, int]
    monotone: tuple[int, ...]
    balanced: bool
    seed: int


@dataclass(frozen=True)
class Watched:
    """Rows on which growth is watched: it ends at the size of least log loss on them.

    `report(step, log_loss)` is called while it grows, and may raise `optuna.TrialPruned`.
    """

    matrix: np.ndarray
    outcome: np.ndarray
    report: Callable[[int, float], None] = lambda _step, _loss: None


@dataclass(frozen=True)
class Fit:
    """What a family is asked for: to fit `matrix`, (n, inputs), to `outcome`, (n,).

    `until`: the size to grow to, or the rows that show it.
    """

    task: Task
    matrix: np.ndarray
    outcome: np.ndarray
    until: int | Watched


@dataclass(frozen=True)
class Fitted:
    """A scorer and the size (trees, rounds, iterations) it was grown to; 1 where there is none."""

    scorer: Scorer
    size: int


class FamilyModule(Protocol):
    """What a module of this package offers."""

    def defaults(self) -> dict[str, Any]:
        """Good settings without a search."""
        ...

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Settings of one trial, from the range worth trying."""
        ...

    def unable(self, task: Task) -> str | None:
        """Why this family cannot serve the book ('keeps no monotone direction', ...), or None."""
        ...

    def fit(self, asked: Fit, parameters: dict[str, Any]) -> Fitted:
        """Fit with `parameters` over `defaults()`.

        The same rows in the same order give the same scorer.
        """
        ...


def task_of(contract: Contract) -> Task:
    """What a family has to know of a portfolio."""
    training = contract.training
    return Task(
        names=tuple(contract.model_inputs),
        categories={name: len(of) for name, of in contract.categorical_inputs.items()},
        monotone=tuple(contract.monotone_directions),
        balanced=training.class_weight == "balanced",
        seed=training.seed,
    )


def module(name: Family) -> FamilyModule:
    """The module of a family."""
    from loan_platform.training.families import (
        catboost,
        gradient_boosting,
        hist_gradient_boosting,
        lightgbm,
        logistic,
        neural_net,
        random_forest,
        xgboost,
    )

    modules: dict[str, FamilyModule] = {
        "lightgbm": lightgbm,
        "random_forest": random_forest,
        "gradient_boosting": gradient_boosting,
        "hist_gradient_boosting": hist_gradient_boosting,
        "logistic": logistic,
        "neural_net": neural_net,
        "xgboost": xgboost,
        "catboost": catboost,
    }
    return modules[name]


def not_installed(library: str) -> str | None:
    """Why a family of the extra cannot be used, or None where its library is there."""
    if find_spec(library):
        return None
    return f"{library} is not installed; pip install 'loan-platform[families]'"
