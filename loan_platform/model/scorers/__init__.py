"""What turns a matrix row into log-odds of default, one module per kind of model.

Every kind is stored in a form that runs no code when it is read: a library's own text or binary
format, JSON, or skops with an explicit list of trusted types.

Here: scoring, exact contributions, and reading and writing them. Not here: fitting
(`training.families`), calibration and policy (`model.calibrator`, `model.policy`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np


class ScorerError(ValueError):
    """A scorer's file is damaged, of another shape, or holds what is not trusted."""


class Scorer(Protocol):
    """A fitted model over `contract.model_inputs`; the same rows give the same margins."""

    kind: ClassVar[str]
    """Name under which a bundle stores it, and the ending of its file."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions that compute its margins, besides numpy."""
        ...

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Log-odds of default before calibration, shape (n,).

        `matrix` is float64 of shape (n, inputs), NaN where missing, categories as codes.
        """
        ...

    def contributions(self, matrix: np.ndarray) -> np.ndarray | None:
        """What each input adds to the margin, shape (n, inputs + 1); the last column is the rest.

        A row sums to its margin. None where the kind has no exact decomposition.
        """
        ...

    def importance(self) -> np.ndarray | None:
        """Share of each input in what the model does, shape (inputs,), sums to 1.

        All 0 where the model uses no input; None where unknown.
        """
        ...

    def dump(self) -> bytes:
        """The file of this scorer; `read` takes it back."""
        ...


def read(kind: str, content: bytes, inputs: int) -> Scorer:
    """The scorer of a file that `dump` gave; it takes `inputs` columns.

    Raises:
        ScorerError: the file is damaged, takes another number of columns, holds a type that is not
            trusted, is of an unknown kind, or needs a library that is not installed.
    """
    from loan_platform.model.scorers.catboost import CatBoost
    from loan_platform.model.scorers.lightgbm import LightGBM
    from loan_platform.model.scorers.scorecard import Scorecard
    from loan_platform.model.scorers.sklearn import Sklearn
    from loan_platform.model.scorers.xgboost import XGBoost

    readers: dict[str, Callable[[bytes, int], Scorer]] = {
        "lightgbm": LightGBM.read,
        "scorecard": Scorecard.read,
        "sklearn": Sklearn.read,
        "xgboost": XGBoost.read,
        "catboost": CatBoost.read,
    }
    if kind not in readers:
        known = ", ".join(readers)
        raise ScorerError(f"{kind} is no kind of scorer of this version, which knows {known}")
    try:
        return readers[kind](content, inputs)
    except ModuleNotFoundError as error:
        raise ScorerError(
            f"it needs {error.name}, which is not installed; pip install 'loan-platform[families]'"
        ) from None


def refuse_other_width(found: int, inputs: int) -> None:
    """A scorer of `found` columns cannot serve a contract of `inputs`."""
    if found != inputs:
        raise ScorerError(f"it takes {found} columns, and the contract has {inputs} model inputs")


def shares(weight: np.ndarray) -> np.ndarray:
    """Weights of 0 and above as shares of their sum."""
    return weight / max(float(weight.sum()), 1e-300)
