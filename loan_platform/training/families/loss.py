"""The loss that every family is fitted by, and watched by while it grows.

Here: log loss of margins, and the weights of rows. Not here: measures of a model (`evaluate`).
"""

from __future__ import annotations

import numpy as np


def row_weights(outcome: np.ndarray, balanced: bool) -> np.ndarray:
    """Weight of each row, mean 1; balanced: both classes have half of the whole weight."""
    if not balanced:
        return np.ones(len(outcome))
    bad = float(outcome.mean())
    return np.where(outcome == 1, 0.5 / bad, 0.5 / (1 - bad))


def log_loss(outcome: np.ndarray, margin: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log P(outcome), where `margin` is the log-odds of outcome 1."""
    return float(np.average(np.logaddexp(0, margin) - outcome * margin, weights=weights))
