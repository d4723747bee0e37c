"""Several scorers as one: the weighted sum of their margins.

Here: asking them together. Not here: finding the weights (`training.search`), or storing them: a
bundle keeps each scorer in a file of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loan_platform.model.scorers import Scorer


@dataclass(frozen=True)
class Blend:
    """A weighted sum of log-odds, so its contributions are the same sum of contributions.

    Every weight is above 0: what raises the margin of all scorers raises that of the blend.
    """

    scorers: tuple[Scorer, ...]
    weights: tuple[float, ...]

    kind: ClassVar[str] = "blend"

    def __post_init__(self) -> None:
        if len(self.scorers) != len(self.weights) or not self.scorers:
            raise ValueError("a blend has one weight for each scorer, and at least one of them")
        if min(self.weights) <= 0:
            raise ValueError("a weight of a blend is above 0; leave that scorer out")

    @property
    def libraries(self) -> tuple[str, ...]:
        return tuple(sorted({name for scorer in self.scorers for name in scorer.libraries}))

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        return self._summed([scorer.margin(matrix, threads) for scorer in self.scorers])

    def contributions(self, matrix: np.ndarray) -> np.ndarray | None:
        """None where one of the scorers has none."""
        found = [scorer.contributions(matrix) for scorer in self.scorers]
        known = [part for part in found if part is not None]
        return self._summed(known) if len(known) == len(found) else None

    def importance(self) -> np.ndarray | None:
        """The scorers' shares, weighted; None where one of them has none."""
        found = [scorer.importance() for scorer in self.scorers]
        known = [part for part in found if part is not None]
        return self._summed(known) / sum(self.weights) if len(known) == len(found) else None

    def _summed(self, of_scorers: list[np.ndarray]) -> np.ndarray:
        # One after the other: a matrix product may round otherwise for another number of rows.
        total = np.zeros_like(of_scorers[0])
        for weight, part in zip(self.weights, of_scorers, strict=True):
            total += weight * part
        return total

    def dump(self) -> bytes:
        """Not possible: `Bundle.save` stores the scorers one by one, with their weights."""
        raise TypeError("a blend has no file of its own; dump each of its scorers")
