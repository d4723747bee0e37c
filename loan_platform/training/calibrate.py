"""From a scorer's margin to a probability that means what it says.

Here: fitting a calibrator, and choosing its kind. Not here: applying it (`model.calibrator`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.model.calibrator import Isotonic, Sigmoid
from loan_platform.training.evaluate import log_losses

# A margin fitted on log loss is log-odds already, so without evidence the slope is 1: it is held
# there as by a normal prior of this spread. A few hundred rows overrule it.
SLOPE_SPREAD = 0.5
SMALLEST_SLOPE = 0.05
# So many rows that obey the sigmoid are added to every step of the isotonic calibrator: a step of
# a few rows, all of them good, must not promise that nobody there ever defaults.
PRIOR_ROWS = 30
FOLDS = 5
# Standard errors by which it has to be better: by chance alone in one of twenty. With one, it was
# chosen on lending_club in vain, and cost 0.0004 of log loss on the rows that judge.
SURELY = 1.645


def fit_calibrator(margin: np.ndarray, outcome: np.ndarray, *, seed: int = 0) -> Sigmoid | Isotonic:
    """The sigmoid, or the isotonic calibrator where it is surely better.

    `margin` and `outcome` (1 bad, 0 good) have shape (n,), of rows the scorer was not fitted on.
    Surely: its log loss in cross-validation over these rows is lower by `SURELY` standard errors of
    the difference. Both rise strictly, so calibration never changes a ranking.
    """
    saved = np.zeros(len(margin))
    fold = np.random.default_rng(seed).permutation(len(margin)) % FOLDS
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        simple, free = (
            log_losses(outcome[held], fit(margin[rest], outcome[rest]).probability(margin[held]))
            for fit in (fit_sigmoid, fit_isotonic)
        )
        saved[held] = simple - free
    surely = saved.mean() > SURELY * saved.std() / np.sqrt(len(saved))
    return fit_isotonic(margin, outcome) if surely else fit_sigmoid(margin, outcome)


def fit_sigmoid(margin: np.ndarray, outcome: np.ndarray) -> Sigmoid:
    """Most probable slope and intercept of `P(bad) = sigmoid(slope * margin + intercept)`.

    The slope stays above 0.
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
    return Sigmoid(slope=float(found.x[0]), intercept=float(found.x[1]))


def fit_isotonic(margin: np.ndarray, outcome: np.ndarray) -> Isotonic:
    """Isotonic regression with each of its steps shrunk to its centre, and lines between these.

    So it has no plateaus (A. P. Oron and N. Flournoy, "Centered isotonic regression", 2017). Every
    step holds `PRIOR_ROWS` rows that obey the sigmoid besides its own, so the log loss of no
    outcome is endless; outside the outermost centres the sigmoid's slope goes on.
    """
    from scipy.special import logit

    sigmoid = fit_sigmoid(margin, outcome)
    promised = sigmoid.probability(margin)
    step = _steps(margin, outcome.astype(np.float64), np.ones(len(margin)))
    rows = np.bincount(step)
    at = np.bincount(step, margin) / rows
    expected = np.bincount(step, promised) / rows
    rate = (np.bincount(step, outcome) + PRIOR_ROWS * expected) / (rows + PRIOR_ROWS)
    # Shrinking small steps more than large ones may have turned neighbours around.
    weight = (rows + PRIOR_ROWS).astype(np.float64)
    merged = _steps(at, rate, weight)
    total = np.bincount(merged, weight)
    at, rate = (np.bincount(merged, weight * side) / total for side in (at, rate))
    smallest = np.finfo(np.float64).eps
    log_odds = logit(rate.clip(smallest, 1 - smallest))
    rising = np.append(True, np.diff(np.maximum.accumulate(log_odds)) > 0)
    points = zip(at[rising].tolist(), log_odds[rising].tolist(), strict=True)
    return Isotonic(points=list(points), slope=sigmoid.slope)


def _steps(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Number of the isotonic regression's step, from 0 upwards, for each of the points."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit_transform(x, y, sample_weight=weight)
    return np.asarray(np.unique(fitted, return_inverse=True)[1])
