"""What turns a matrix row into log-odds of default, one module per kind of model.

Every kind is stored in a form that runs no code when it is read: a library's own text or binary
format, JSON, or skops with an explicit list of trusted types.

Here: scoring, exact contributions, and reading and writing them. Not here: fitting
(`training.families`), calibration and policy (`model.bundle`, `model.policy`).
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np


class Scorer(Protocol):
    """A fitted model over `contract.model_inputs`; the same rows give the same margins."""

    kind: ClassVar[str]
    """Name under which a bundle stores it, and the ending of its file."""

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
        """How much each input matters over all, shape (inputs,), above 0; None where unknown."""
        ...

    def dump(self) -> bytes:
        """The file of this scorer; `read` takes it back."""
        ...
