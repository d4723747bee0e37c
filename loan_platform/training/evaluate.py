"""How good a model is, on rows that nothing about it was fitted, tuned or thresholded on.

Here: the measures and their bootstrap. Not here: comparing two models (`registry.promotion`), or
pictures (`pictures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loan_platform.model.policy import DECISIONS, Policy

RESAMPLES = 1000
CALIBRATION_BINS = 10
_CHUNK = 100  # resamples held at once: 100 x n counts


@dataclass(frozen=True)
class Evaluation:
    """Measures of one model on its judging rows, with the rows' outcomes and probabilities.

    `metrics`: auc with auc_low and auc_high, log_loss, brier, ks, gini, pr_auc,
    calibration_error, threshold, the confusion counts and rates at it, and the share of each
    decision. Shares, rates and probabilities are in 0..1.
    """

    outcome: np.ndarray
    probability: np.ndarray
    policy: Policy
    metrics: dict[str, float]


def evaluate(
    outcome: np.ndarray,
    probability: np.ndarray,
    policy: Policy,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Measure probabilities against outcomes (1 bad, 0 good), both of shape (n,), n > 1.

    Both classes must be there. The interval of the AUC is a percentile bootstrap over rows.
    """
    order, ranked_auc = np.argsort(probability, kind="stable"), auc(outcome, probability)
    low, high = auc_interval(outcome, probability, confidence, seed)
    decision = policy.decide(probability)
    approved = decision == "approve"
    metrics = {
        "rows": float(len(outcome)),
        "bad_rate": float(outcome.mean()),
        "auc": ranked_auc,
        "auc_low": low,
        "auc_high": high,
        "gini": 2 * ranked_auc - 1,
        "ks": kolmogorov_smirnov(outcome, probability),
        "pr_auc": average_precision(outcome, probability),
        "log_loss": float(log_losses(outcome, probability).mean()),
        "brier": float(np.mean((probability - outcome) ** 2)),
        "calibration_error": calibration_error(outcome[order], probability[order]),
        **_at_threshold(outcome, policy.label(probability)),
        "threshold": policy.threshold,
        **{f"{name}_share": float((decision == name).mean()) for name in DECISIONS},
        "bad_rate_approved": float(outcome[approved].mean()) if approved.any() else 0.0,
    }
    return Evaluation(outcome, probability, policy, metrics)


def auc(outcome: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: P(a bad loan scores above a good one), ties counting half."""
    return float(weighted_auc(outcome, score, np.ones((1, len(outcome))))[0])


def weighted_auc(outcome: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of the same rows under each row of `weights`, shape (b, n); gives shape (b,).

    NaN where a row of weights leaves only one class.
    """
    order = np.argsort(score, kind="stable")
    ranked = weights[:, order]
    bad = ranked * outcome[order]
    good = ranked - bad
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    if len(starts) < len(score):
        bad, good = (np.add.reduceat(side, starts, axis=1) for side in (bad, good))
    below = np.cumsum(good, axis=1) - good / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((bad * below).sum(axis=1) / (bad.sum(axis=1) * good.sum(axis=1)))


def resamples(rows: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn in each of `count` bootstrap resamples, in chunks (b, rows)."""
    generator = np.random.default_rng(seed)
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows)
        yield counts.reshape(size, rows).astype(np.float64)


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap values, leaving out resamples with only one class."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def auc_interval(
    outcome: np.ndarray, score: np.ndarray, confidence: float, seed: int, count: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUC over rows."""
    chunks = resamples(len(outcome), count, seed)
    values = np.concatenate([weighted_auc(outcome, score, counts) for counts in chunks])
    return interval(values, confidence)


def kolmogorov_smirnov(outcome: np.ndarray, score: np.ndarray) -> float:
    """Largest distance between the score distributions of bad and good loans."""
    order = np.argsort(score, kind="stable")
    bad = outcome[order]
    apart = np.abs(np.cumsum(bad) / bad.sum() - np.cumsum(1 - bad) / (1 - bad).sum())
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    return float(apart[last_of_ties].max())


def average_precision(outcome: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve as the mean of precision over recall steps."""
    order = np.argsort(-score, kind="stable")
    bad = outcome[order]
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    asked = np.flatnonzero(last_of_ties) + 1
    found = np.cumsum(bad)[last_of_ties]
    precision = found / asked
    return float((np.diff(found, prepend=0) * precision).sum() / bad.sum())


def log_losses(outcome: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each outcome, in nats, shape (n,)."""
    smallest = np.finfo(np.float64).eps
    p = np.clip(probability, smallest, 1 - smallest)
    return np.asarray(np.where(outcome == 1, -np.log(p), -np.log1p(-p)))


def calibration_bins(outcome: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Mean probability, observed bad rate and rows of each tenth of the scores, shape (10, 3).

    The arrays must be sorted by probability. Fewer rows than ten give fewer bins.
    """
    parts = np.array_split(np.arange(len(outcome)), min(CALIBRATION_BINS, len(outcome)))
    return np.array([[probability[i].mean(), outcome[i].mean(), len(i)] for i in parts])


def calibration_error(outcome: np.ndarray, probability: np.ndarray) -> float:
    """Mean distance between promised and observed bad rate over tenths (sorted arrays)."""
    promised, observed, rows = calibration_bins(outcome, probability).T
    return float(np.average(np.abs(promised - observed), weights=rows))


def _at_threshold(outcome: np.ndarray, label: np.ndarray) -> dict[str, float]:
    hit, missed = int((label & outcome).sum()), int(((1 - label) & outcome).sum())
    alarm, clear = int((label & (1 - outcome)).sum()), int(((1 - label) & (1 - outcome)).sum())
    return {
        "true_positives": float(hit),
        "false_negatives": float(missed),
        "false_positives": float(alarm),
        "true_negatives": float(clear),
        "accuracy": (hit + clear) / len(outcome),
        "precision": hit / max(hit + alarm, 1),
        "recall": hit / max(hit + missed, 1),
        "specificity": clear / max(clear + alarm, 1),
    }
