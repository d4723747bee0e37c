"""From a scorer's margin to a probability that means what it says.

Here: the calibrators as they travel with a bundle. Every one rises strictly with the margin, so
calibration never changes how applications rank nor which direction a reason has.
Not here: fitting and choosing one (`training.calibrate`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Sigmoid(BaseModel):
    """Platt's sigmoid on the margin: 1 / (1 + exp(-(slope * margin + intercept))).

    (J. Platt, "Probabilistic outputs for support vector machines", 1999.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sigmoid"] = "sigmoid"
    slope: float = Field(gt=0)
    intercept: float

    def probability(self, margin: np.ndarray) -> np.ndarray:
        """Probability of default for margins of any shape."""
        return _logistic(self.slope * margin + self.intercept)


class Isotonic(BaseModel):
    """Log-odds drawn by straight lines through `points`, and on by the sigmoid's slope outside.

    `points` are (margin, log-odds), at least one, both strictly rising.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["isotonic"] = "isotonic"
    points: list[tuple[float, float]] = Field(min_length=1)
    slope: float = Field(gt=0, description="Log-odds per margin outside the points")

    @model_validator(mode="after")
    def _rise(self) -> Isotonic:
        steps = np.diff(np.array(self.points), axis=0)
        if (steps <= 0).any():
            raise ValueError("the points of an isotonic calibrator rise strictly in both; fit anew")
        return self

    def probability(self, margin: np.ndarray) -> np.ndarray:
        """Probability of default for margins of any shape."""
        at, log_odds = np.array(self.points).T
        outside = margin - np.clip(margin, at[0], at[-1])
        return _logistic(np.interp(margin, at, log_odds) + self.slope * outside)


Calibrator = Annotated[Sigmoid | Isotonic, Field(discriminator="kind")]


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    # exp overflows to infinity for log-odds below -700, and 1 / infinity is the right answer.
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))
