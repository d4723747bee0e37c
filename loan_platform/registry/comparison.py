"""Two models asked about the same rows: what the challenger gains, each figure with its interval.

All intervals are from one bootstrap over rows. A gain is paired: each resample is drawn once and
scored by both models, so what the rows have in common cancels out.

Here: the figures. Not here: what follows from them (`promotion`), or how they are shown
(`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from loan_platform.training.evaluate import (
    CALIBRATION_BINS,
    RESAMPLES,
    auc,
    calibration_error,
    interval,
    log_losses,
    resamples,
)


class Measured(NamedTuple):
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def surely_above(self) -> bool:
        """Its whole interval lies above 0."""
        return self.low > 0

    @property
    def surely_below(self) -> bool:
        """Its whole interval lies below 0."""
        return self.high < 0


@dataclass(frozen=True)
class Pair:
    """One measure of both models. `gain` above 0 is in the challenger's favour, whatever it is."""

    challenger: float
    champion: float
    gain: Measured


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same rows.

    `log_loss` is a mean in nats, and its gain is the champion's minus the challenger's; `profit` is
    money per application, None where the contract has no terms for it.
    """

    rows: int
    auc: Pair
    log_loss: Pair
    profit: Pair | None = None

    @property
    def measures(self) -> dict[str, Pair]:
        """By name, profit only where there is one."""
        pairs = {"AUC": self.auc, "log loss": self.log_loss}
        return pairs | ({"profit": self.profit} if self.profit else {})

    @property
    def lost(self) -> dict[str, Measured]:
        """The gains that are surely below 0."""
        return {name: m.gain for name, m in self.measures.items() if m.gain.surely_below}

    def figures(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {"rows": self.rows}
        for name, pair in self.measures.items():
            key = name.lower().replace(" ", "_")
            found[f"challenger_{key}"] = pair.challenger
            found[f"champion_{key}"] = pair.champion
            found[f"{key}_gain"] = list(pair.gain)
        return found


class Ranking:
    """The AUC of one set of scores under any weights of the rows.

    The order is found once. For each bad loan `_below` and `_upto` say how many good ones score
    lower, and lower or equal, so ties count half.
    """

    def __init__(self, outcome: np.ndarray, score: np.ndarray) -> None:
        good = np.flatnonzero(outcome == 0)
        self._good = good[np.argsort(score[good], kind="stable")]
        self._bad = np.flatnonzero(outcome == 1)
        self._below, self._upto = (
            np.searchsorted(score[self._good], score[self._bad], side) for side in ("left", "right")
        )

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """For each row of `weights`, shape (b, n); NaN where it leaves one class only."""
        good = np.zeros((len(weights), len(self._good) + 1), dtype=weights.dtype)
        np.cumsum(weights[:, self._good], axis=1, out=good[:, 1:])
        bad = weights[:, self._bad]
        pairs = (bad * (good[:, self._below] + good[:, self._upto])).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(pairs / (2 * bad.sum(axis=1) * good[:, -1]))


def compare(
    outcome: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    profit: tuple[np.ndarray, np.ndarray] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    count: int = RESAMPLES,
) -> Comparison:
    """Paired percentile bootstrap of two models' probabilities for the same rows, each (n,).

    `profit`: what each row earns under the challenger's policy and under the champion's, (n,) each.
    """
    rankings = Ranking(outcome, challenger), Ranking(outcome, champion)
    losses = log_losses(outcome, challenger), log_losses(outcome, champion)
    saved = losses[1] - losses[0]
    earned = profit[0] - profit[1] if profit else np.zeros(len(outcome))
    gains: list[list[np.ndarray]] = [[], [], []]
    for counts in resamples(len(outcome), count, seed):
        gains[0].append(rankings[0].auc(counts) - rankings[1].auc(counts))
        gains[1].append(_mean(counts, saved))
        gains[2].append(_mean(counts, earned))

    def pair(ours: float, theirs: float, sign: int, drawn: list[np.ndarray]) -> Pair:
        ends = interval(np.concatenate(drawn), confidence)
        return Pair(ours, theirs, Measured(sign * (ours - theirs), *ends))

    return Comparison(
        rows=len(outcome),
        auc=pair(auc(outcome, challenger), auc(outcome, champion), 1, gains[0]),
        log_loss=pair(float(losses[0].mean()), float(losses[1].mean()), -1, gains[1]),
        profit=pair(float(profit[0].mean()), float(profit[1].mean()), 1, gains[2])
        if profit
        else None,
    )


def measured_auc(
    outcome: np.ndarray,
    score: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    count: int = RESAMPLES,
) -> Measured:
    """AUC with its percentile bootstrap interval."""
    ranking = Ranking(outcome, score)
    drawn = [ranking.auc(counts) for counts in resamples(len(outcome), count, seed)]
    return Measured(auc(outcome, score), *interval(np.concatenate(drawn), confidence))


def measured_calibration_error(
    outcome: np.ndarray,
    probability: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    count: int = RESAMPLES,
) -> Measured:
    """Calibration error over tenths of the scores, with its basic bootstrap interval.

    Not the percentile interval: noise alone makes distances, so the error of few rows is too large,
    and that of their resamples is again as much larger. The basic interval (A. Davison, D. Hinkley,
    "Bootstrap Methods and their Application", 1997, 5.2) takes that off: 2 * value - quantile.
    """
    order = np.argsort(probability, kind="stable")
    gap = (probability - outcome)[order]
    tenths = np.array_split(np.arange(len(order)), min(CALIBRATION_BINS, len(order)))
    starts = [tenth[0] for tenth in tenths]
    drawn = [
        np.abs(np.add.reduceat(counts * gap, starts, axis=1)).sum(axis=1) / len(order)
        for counts in resamples(len(order), count, seed)
    ]
    value = calibration_error(outcome[order], probability[order])
    low, high = interval(np.concatenate(drawn), confidence)
    return Measured(value, max(2 * value - high, 0.0), max(2 * value - low, 0.0))


def _mean(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of `values`, shape (n,), in each resample. Not as a matrix product: BLAS would start
    threads for it, and wait for them longer than the sum takes.
    """
    return np.asarray(np.einsum("ij,j->i", counts, values)) / len(values)
