"""Who would be decided otherwise if the challenger were champion: the swap set.

Each application of the judging rows is decided by both models, each with its own policy, and
counted in the cell of the two decisions. Outcomes exist only of loans that were granted, whatever
the two say today; where nobody of a cell ever had one, its bad rate is unknown, and not 0.

Here: the table. Not here: which applications (`promotion`), or how it is shown (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from loan_platform.model.policy import DECISIONS


@dataclass(frozen=True)
class Group:
    """Applications that the two models decide in the same way.

    `known` of them have an outcome, `bad` of these are bad; `low` and `high` are the ends of the
    exact interval of their bad rate (C. Clopper, E. Pearson, 1934), None where nothing is known.
    `profit_change`: money that the loans with an outcome would have brought more, had the
    challenger decided; None where the contract has no terms for it, or nothing is known.
    """

    applications: int
    share: float
    known: int
    bad: int
    low: float | None
    high: float | None
    profit_change: float | None

    @property
    def bad_rate(self) -> float | None:
        return self.bad / self.known if self.known else None

    def figures(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "applications": self.applications,
            "share": self.share,
            "with_outcome": self.known,
            "bad": self.bad,
            "bad_rate": self.bad_rate,
            "bad_rate_interval": None if self.low is None else [self.low, self.high],
            "profit_change": self.profit_change,
        }


@dataclass(frozen=True)
class SwapSet:
    """`cells` by (champion's decision, challenger's), every pair of the three."""

    everyone: Group
    cells: dict[tuple[str, str], Group]
    newly_approved: Group
    newly_declined: Group

    def figures(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "everyone": self.everyone.figures(),
            "newly_approved": self.newly_approved.figures(),
            "newly_declined": self.newly_declined.figures(),
            "cells": [
                {"champion": theirs, "challenger": ours, **group.figures()}
                for (theirs, ours), group in self.cells.items()
            ],
        }


def swap_set(
    challenger: np.ndarray,
    champion: np.ndarray,
    outcome: np.ndarray,
    *,
    earned: np.ndarray | None = None,
    confidence: float = 0.95,
) -> SwapSet:
    """Count the decisions of both models on the same n applications.

    `challenger`, `champion`: approve, refer or decline of each, (n,). `outcome`: 1 bad, 0 good, NaN
    where it is not known. `earned`: money each brings if approved, NaN where the outcome is not
    known.
    """
    known = ~np.isnan(outcome)
    change = None
    if earned is not None:
        taken = (challenger == "approve").astype(float) - (champion == "approve").astype(float)
        change = np.where(known, taken * np.where(known, earned, 0.0), 0.0)

    def group(chosen: np.ndarray) -> Group:
        seen, bad = int((chosen & known).sum()), int(outcome[chosen & known].sum())
        low, high = _share_interval(bad, seen, confidence) if seen else (None, None)
        return Group(
            applications=int(chosen.sum()),
            share=float(chosen.mean()),
            known=seen,
            bad=bad,
            low=low,
            high=high,
            profit_change=float(change[chosen].sum()) if change is not None and seen else None,
        )

    return SwapSet(
        everyone=group(np.ones(len(outcome), dtype=bool)),
        cells={
            (str(theirs), str(ours)): group((champion == theirs) & (challenger == ours))
            for theirs in DECISIONS
            for ours in DECISIONS
        },
        newly_approved=group((champion != "approve") & (challenger == "approve")),
        newly_declined=group((champion != "decline") & (challenger == "decline")),
    )


def _share_interval(part: int, whole: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval of a share (Clopper and Pearson)."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = betaincinv(part, whole - part + 1, tail) if part else 0.0
    high = betaincinv(part + 1, whole - part, 1 - tail) if part < whole else 1.0
    return float(low), float(high)
