"""Choosing the policy: where approve ends and decline begins.

Here: the choice, made on rows that neither fitted nor judge the model. Not here: applying it
(`model.policy`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.contract.settings import PolicySettings
from loan_platform.model.policy import Policy


def choose_policy(settings: PolicySettings, outcome: np.ndarray, probability: np.ndarray) -> Policy:
    """The policy the contract asks for, from `outcome` (1 bad, 0 good) and `probability`, (n,).

    - With bands in the contract: these; the threshold is where decline begins.
    - `youden`: the threshold is Youden's; `refer_share` of the rows are referred, half of them
      on either side of it.
    - `approval_rate`: that share of the rows is approved and the `refer_share` above it referred;
      the threshold halves the referred.

    A share, not a distance in probability, so that the bands fit a book with a bad rate of 1 % as
    well as one of 20 %. Where rows have equal probabilities, shares are met as nearly as can be.
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
        threshold = youden(outcome, probability)
        below = float((probability < threshold).mean())
    return Policy.banded(
        threshold, _edge(probability, below - half), _edge(probability, below + half)
    )


def youden(outcome: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the largest true-positive minus false-positive rate.

    (W. J. Youden, "Index for rating diagnostic tests", 1950.) Both classes must be there.
    """
    order = np.argsort(-probability, kind="stable")
    bad, scores = outcome[order], probability[order]
    gain = np.cumsum(bad) / bad.sum() - np.cumsum(1 - bad) / (1 - bad).sum()
    last_of_ties = np.append(np.diff(scores) != 0, True)
    return float(scores[np.argmax(np.where(last_of_ties, gain, -np.inf))])


def _edge(probability: np.ndarray, share: float) -> float:
    """The probability, one that occurs or 1, below which a share of rows nearest `share` lies."""
    values, rows = np.unique(probability, return_counts=True)
    below = np.concatenate([[0], np.cumsum(rows)]) / len(probability)
    return float(np.append(values, 1.0)[np.argmin(np.abs(below - share))])
