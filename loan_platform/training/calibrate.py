"""From a booster's margin to a probability that means what it says.

Here: fitting Platt's sigmoid. Not here: applying it (`model.bundle.Calibrator`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.model.bundle import Calibrator

# A margin fitted on log loss is log-odds already, so without evidence the slope is 1: it is held
# there as by a normal prior of this spread. A few hundred rows overrule it.
SLOPE_SPREAD = 0.5
SMALLEST_SLOPE = 0.05


def fit_calibrator(margin: np.ndarray, outcome: np.ndarray) -> Calibrator:
    """Most probable slope and intercept of `P(bad) = sigmoid(slope * margin + intercept)`.

    `margin` and `outcome` (1 bad, 0 good) have shape (n,), of rows the booster was not fitted
    on. The slope stays above 0, so that calibration never changes a ranking.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = parameters
        logit = slope * margin + intercept
        value = np.logaddexp(0, logit).sum() - (outcome * logit).sum()
        value += 0.5 * ((slope - 1) / SLOPE_SPREAD) ** 2
        residual = expit(logit) - outcome
        gradient = [(residual * margin).sum() + (slope - 1) / SLOPE_SPREAD**2, residual.sum()]
        return value, np.array(gradient)

    found = minimize(
        loss,
        x0=[1.0, 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(SMALLEST_SLOPE, None), (None, None)],
    )
    return Calibrator(slope=float(found.x[0]), intercept=float(found.x[1]))
