"""Two systems on the same judged rows: AUC and log loss, and paired intervals of their difference.

Here: the figures and their table. Not here: where probabilities come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.splits import Goal
from loan_platform.training.evaluate import (
    auc,
    calibration_error,
    interval,
    log_losses,
    resamples,
    weighted_auc,
)

RESAMPLES = 500
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Result:
    """A system's probabilities of the judged rows, one array (n,) for each seed; and its cost.

    `cpu`, `clock`: seconds, mean over seeds. `size`: bytes of the model, mean over seeds.
    """

    probability: Sequence[np.ndarray]
    cpu: float
    clock: float
    size: float
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """Ours less the rival's, mean over seeds, with the interval over rows."""

    auc: tuple[float, float, float]
    log_loss: tuple[float, float, float]

    @property
    def no_worse(self) -> bool:
        """Neither figure is surely worse."""
        return self.auc[2] >= 0 and self.log_loss[1] <= 0


def figures(outcome: np.ndarray, result: Result) -> tuple[float, float, float]:
    """AUC, log loss and calibration error, mean over seeds."""
    every = []
    for probability in result.probability:
        order = np.argsort(probability, kind="stable")
        every.append(
            (
                auc(outcome, probability),
                float(log_losses(outcome, probability).mean()),
                calibration_error(outcome[order], probability[order]),
            )
        )
    return tuple(np.mean(every, axis=0).tolist())


def difference(outcome: np.ndarray, ours: Result, theirs: Result) -> Difference:
    """Paired bootstrap over rows; the same resamples for both, and for every seed."""
    sides = (ours.probability, theirs.probability)
    losses = [np.mean([log_losses(outcome, one) for one in side], axis=0) for side in sides]
    lost, gained = [], []
    for counts in resamples(len(outcome), RESAMPLES, seed=1):
        lost.append(counts @ (losses[0] - losses[1]) / len(outcome))
        each = [
            np.mean([weighted_auc(outcome, one, counts) for one in side], axis=0) for side in sides
        ]
        gained.append(each[0] - each[1])
    at = [figures(outcome, one) for one in (ours, theirs)]
    return Difference(
        auc=(at[0][0] - at[1][0], *interval(np.concatenate(gained), CONFIDENCE)),
        log_loss=(at[0][1] - at[1][1], *interval(np.concatenate(lost), CONFIDENCE)),
    )


def table(outcome: np.ndarray, results: dict[str, Result]) -> tuple[list[str], bool]:
    """Markdown lines, ours first; and whether ours is no worse than every rival."""
    lines = [
        "| system | AUC | log loss | calibration error | ours - it, AUC x 1e4 | log loss x 1e4 | "
        "CPU s | clock s | MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    held = True
    for name, result in results.items():
        ranked, lost, off = figures(outcome, result)
        told = f"| {name} | {ranked:.4f} | {lost:.4f} | {off:.4f} |"
        if name == "ours":
            told += " | |"
        else:
            found = difference(outcome, results["ours"], result)
            told += f" {_scaled(found.auc)} | {_scaled(found.log_loss)} |"
            held &= found.no_worse
        told += f" {result.cpu:.0f} | {result.clock:.0f} | {result.size / 1e6:.2f} |"
        lines.append(told)
    return lines, held


def reached(ranked: float, lost: float, goal: Goal) -> bool:
    """Whether both figures, as they are printed, are at least those of the goal."""
    least_auc, most_lost = goal.least
    return (least_auc is None or round(ranked, 4) >= least_auc) and (
        most_lost is None or round(lost, 4) <= most_lost
    )


def _scaled(found: tuple[float, float, float]) -> str:
    middle, low, high = (1e4 * value for value in found)
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
