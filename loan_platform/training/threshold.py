"""Choosing the policy: where approve ends and decline begins.

Here: the choice, made on rows that neither fitted nor judge the model. Not here: applying it
(`model.policy`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.contract.settings import PolicySettings
from loan_platform.model.policy import Policy
from loan_platform.training.rows import TrainingError


def choose_policy(
    settings: PolicySettings,
    outcome: np.ndarray,
    probability: np.ndarray,
    profit: np.ndarray | None = None,
) -> Policy:
    """The policy the contract asks for, from `outcome` (1 bad, 0 good) and `probability`, (n,).

    `profit`: what each of these loans earns if it is approved (`profit.profit_if_approved`).

    - With bands in the contract: these; the threshold is where decline begins.
    - `youden`, `f1`, `profit`: the threshold is the best by that measure; `refer_share` of the
      rows are referred, half of them on either side of it.
    - `approval_rate`: that share of the rows is approved and the `refer_share` above it referred;
      the threshold halves the referred.

    A share, not a distance in probability, so that the bands fit a book with a bad rate of 1 % as
    well as one of 20 %. Where rows have equal probabilities, shares are met as nearly as can be.

    Raises:
        TrainingError: the most profitable threshold is asked for, and no profit is known.
    """
    if settings.bands is not None:
        bands = settings.bands
        return Policy(
            threshold=bands.decline[0],
            approve=bands.approve,
            refer=bands.refer,
            decline=bands.decline,
        )
    half = settings.refer_share / 2
    if settings.threshold == "approval_rate":
        below = settings.approval_rate + half
        threshold = _edge(probability, below)
    else:
        threshold = _best(settings, outcome, probability, profit)
        below = float((probability < threshold).mean())
    return Policy.banded(
        threshold, _edge(probability, below - half), _edge(probability, below + half)
    )


def _best(
    settings: PolicySettings,
    outcome: np.ndarray,
    probability: np.ndarray,
    profit: np.ndarray | None,
) -> float:
    if settings.threshold == "youden":
        return youden(outcome, probability)
    if settings.threshold == "f1":
        return best_f1(outcome, probability)
    if profit is None:
        raise TrainingError(
            "policy.threshold is profit, and no loan has the amount and the rate it is computed "
            "from; materialize raw_loans again, or choose another threshold"
        )
    return most_profitable(profit, probability)


def youden(outcome: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the largest true-positive minus false-positive rate.

    (W. J. Youden, "Index for rating diagnostic tests", 1950.) Both classes must be there.
    """
    scores, bad, good = _declined(outcome, probability)
    return float(scores[np.argmax(bad / bad[-1] - good / good[-1])])


def best_f1(outcome: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the largest F1 of predicting default; of several the highest.

    F1 is the harmonic mean of precision and recall. A bad loan must be there.
    """
    scores, bad, good = _declined(outcome, probability)
    return float(scores[np.argmax(2 * bad / (bad[-1] + bad + good))])


def most_profitable(profit: np.ndarray, probability: np.ndarray) -> float:
    """The threshold below which approved loans earn most together; of several the lowest.

    1 where every loan that is approved adds to the total.
    """
    scores, at = np.unique(probability, return_inverse=True)
    earned = np.concatenate([[0.0], np.cumsum(np.bincount(at, profit))])
    return float(np.append(scores, 1.0)[np.argmax(earned)])


def _declined(
    outcome: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every probability that occurs, falling, with the bad and the good loans at or above it."""
    scores, at = np.unique(-probability, return_inverse=True)
    bad = np.cumsum(np.bincount(at, outcome))
    return -scores, bad, np.cumsum(np.bincount(at)) - bad


def _edge(probability: np.ndarray, share: float) -> float:
    """The probability, one that occurs or 1, below which a share of rows nearest `share` lies."""
    values, rows = np.unique(probability, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)]) / len(probability)
    return float(np.append(values, 1.0)[np.argmin(np.abs(below - share))])
