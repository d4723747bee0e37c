"""From a probability of default to a decision.

Here: the threshold and the bands, as they travel with a bundle. Not here: choosing them
(`training.threshold`).
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from loan_platform.contract.settings import Interval

DECISIONS = np.array(["approve", "refer", "decline"])


class Policy(BaseModel):
    """Threshold and bands over the probability of default.

    Each band holds its lower end and not its upper one, except that `decline` holds 1. A band
    may be empty: no refer band, say, where the two ends of `refer` are the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: Annotated[float, Field(ge=0, le=1)]
    approve: Interval
    refer: Interval
    decline: Interval

    @model_validator(mode="after")
    def _cover_the_unit_interval(self) -> Policy:
        edges = [*self.approve, *self.refer, *self.decline]
        meet = edges[1] == edges[2] and edges[3] == edges[4]
        if edges[0] != 0 or edges[-1] != 1 or not meet or edges != sorted(edges):
            raise ValueError(
                f"the bands {self.approve}, {self.refer}, {self.decline} do not cover 0 to 1 in "
                "turn; begin approve at 0, each band where the one before ends, end decline at 1"
            )
        return self

    @classmethod
    def banded(cls, threshold: float, low: float, high: float) -> Policy:
        """Approve below `low`, refer from there to below `high`, decline from `high`."""
        return cls(threshold=threshold, approve=(0, low), refer=(low, high), decline=(high, 1))

    def decide(self, probability: np.ndarray) -> np.ndarray:
        """'approve', 'refer' or 'decline' for each probability, shape (n,)."""
        edges = [self.refer[0], self.decline[0]]
        return DECISIONS[np.searchsorted(edges, probability, side="right")]

    def label(self, probability: np.ndarray) -> np.ndarray:
        """1 where default is predicted (probability at or above the threshold), else 0."""
        return (np.asarray(probability) >= self.threshold).astype(np.int64)

    @property
    def policy_hash(self) -> str:
        """12 hex digits over the threshold and the bands."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]
