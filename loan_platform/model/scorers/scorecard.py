"""Scorecards, as JSON: for each input the points of its bins, which add up to the margin.

Here: adding up points. Not here: finding them (`training.families.logistic`).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loan_platform.model.scorers import ScorerError, refuse_other_width, shares


class Card(BaseModel):
    """Points of one input: `points[b]` where its value is from `edges[b - 1]` to below `edges[b]`.

    Of a categorical input `points[code]`, the edges lying between the codes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    edges: list[float]
    points: list[float] = Field(description="Log-odds, mean 0 over the rows fitted on")
    missing: float = Field(description="Log-odds where there is no value")
    spread: float = Field(ge=0, description="Standard deviation of the points of those rows")

    @model_validator(mode="after")
    def _fit_together(self) -> Card:
        if len(self.points) != len(self.edges) + 1 or sorted(set(self.edges)) != self.edges:
            raise ValueError("edges rise strictly and are one fewer than the points")
        return self

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        # NaN sorts behind everything, so behind this last edge: it finds the last points.
        return np.array([*self.edges, np.nan]), np.array([*self.points, self.missing])

    def of(self, values: np.ndarray) -> np.ndarray:
        """Points of each value, shape (n,)."""
        edges, points = self._table
        return np.asarray(points[edges.searchsorted(values, side="right")])


class Scorecard(BaseModel):
    """A logistic regression over bins. As points have mean 0, they are the contributions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[str] = "scorecard"
    libraries: ClassVar[tuple[str, ...]] = ()

    cards: list[Card]
    intercept: float

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        del threads
        # Column by column: a sum along a row may round otherwise for another number of rows.
        total = np.full(len(matrix), self.intercept)
        for column, card in enumerate(self.cards):
            total += card.of(matrix[:, column])
        return total

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        columns = [card.of(matrix[:, column]) for column, card in enumerate(self.cards)]
        return np.column_stack([*columns, np.full(len(matrix), self.intercept)])

    def importance(self) -> np.ndarray:
        """Share of each input in the sum of the standard deviations of points."""
        return shares(np.array([card.spread for card in self.cards]))

    def dump(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def read(cls, content: bytes, inputs: int) -> Scorecard:
        try:
            scorer = cls.model_validate_json(content)
        except ValidationError as error:
            raise ScorerError(f"it is no scorecard ({error.error_count()} problems)") from None
        refuse_other_width(len(scorer.cards), inputs)
        return scorer
