"""Choosing the policy: where approve ends and decline begins.

Here: the choice, made on rows that neither fitted nor judge the model. Not here: applying it
(`model.policy`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.contract.portfolio import PolicySettings
from loan_platform.model.policy import Policy


def choose_policy(settings: PolicySettings, outcome: np.ndarray, probability: np.ndarray) -> Policy:
    """The policy the contract asks for.

    With bands in the contract, these; the threshold is then where decline begins. Otherwise a
    threshold chosen on `outcome` (1 bad, 0 good) and `probability`, both of shape (n,), with
    the contract's margin referred on either side of it.
    """
    if settings.bands is not None:
        bands = settings.bands
        return Policy(
            threshold=bands.decline[0],
            approve=bands.approve,
            refer=bands.refer,
            decline=bands.decline,
        )
    if settings.threshold == "approval_rate":
        threshold = float(np.quantile(probability, settings.approval_rate))
    else:
        threshold = youden(outcome, probability)
    return Policy.around(threshold, settings.refer_margin)


def youden(outcome: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the largest true-positive minus false-positive rate.

    (W. J. Youden, "Index for rating diagnostic tests", 1950.) Both classes must be there.
    """
    order = np.argsort(-probability, kind="stable")
    bad, scores = outcome[order], probability[order]
    gain = np.cumsum(bad) / bad.sum() - np.cumsum(1 - bad) / (1 - bad).sum()
    last_of_ties = np.append(np.diff(scores) != 0, True)
    return float(scores[np.argmax(np.where(last_of_ties, gain, -np.inf))])
