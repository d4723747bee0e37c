"""Logistic regression over bins: a scorecard, as lenders have built them for decades.

Each numeric input is cut at quantiles. What is fitted are the steps from a bin to the next one,
each held near 0, so that neighbouring bins are alike unless the rows say otherwise; where the
contract gives a direction no step goes the other way. Categories are held near 0 as well.

Here: binning and fitting. Not here: adding up points (`model.scorers.scorecard`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_platform.model.scorers.scorecard import Card, Scorecard
from loan_platform.model.threads import thread_pools
from loan_platform.training.families import Fit, Fitted, Task, Watched
from loan_platform.training.families.loss import log_loss, row_weights

if TYPE_CHECKING:
    import optuna

# `bins` of a numeric input, of equally many rows each. `penalty`: 1 / variance of a normal prior of
# the log-odds over an input's whole range; a step between two of 64 bins is held 64 times tighter.
DEFAULTS: dict[str, Any] = {"bins": 64, "penalty": 0.5}
# It ends where a step takes less than this part off the loss.
TOLERANCE = 1e-8
MOST_STEPS = 1000


def defaults() -> dict[str, Any]:
    return dict(DEFAULTS)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "bins": trial.suggest_int("bins", 16, 256, log=True),
        "penalty": trial.suggest_float("penalty", 0.01, 20.0, log=True),
    }


def unable(task: Task) -> str | None:
    del task
    return None


def fit(asked: Fit, parameters: dict[str, Any]) -> Fitted:
    task, until = asked.task, asked.until
    settings = {**DEFAULTS, **parameters}
    columns = [
        _categories(task.categories[name], settings["penalty"])
        if name in task.categories
        else _numbers(asked.matrix[:, at], task.monotone[at], **settings)
        for at, name in enumerate(task.names)
    ]
    weights = row_weights(asked.outcome, task.balanced)
    scorer = _fitted(columns, asked.matrix, asked.outcome, weights)
    if isinstance(until, Watched):  # once, as nothing grows here
        seen_weights = row_weights(until.outcome, task.balanced)
        until.report(1, log_loss(until.outcome, scorer.margin(until.matrix), seen_weights))
    return Fitted(scorer, 1)


@dataclass(frozen=True)
class _Column:
    """One input's bins, and the free numbers from which their points are made.

    `design` has a row for each bin and a last one for missing values: points = design @ free.
    `penalty`, `low` and `high` are of the free numbers; `direction` is -1, 0 or 1.
    """

    edges: np.ndarray
    design: np.ndarray
    penalty: np.ndarray
    low: np.ndarray
    high: np.ndarray
    direction: int

    def bins(self, values: np.ndarray) -> np.ndarray:
        """The row of `design` that belongs to each value, as `Card.of` finds it."""
        return np.append(self.edges, np.nan).searchsorted(values, side="right")


def _categories(count: int, penalty: float) -> _Column:
    free = count + 1
    return _Column(
        edges=np.arange(1, count) - 0.5,
        design=np.eye(free),
        penalty=np.full(free, penalty),
        low=np.full(free, -np.inf),
        high=np.full(free, np.inf),
        direction=0,
    )


def _numbers(values: np.ndarray, direction: int, bins: int, penalty: float) -> _Column:
    """Thermometer coding: the middle bin has 0 points, and each step moves all bins beyond it."""
    known = values[~np.isnan(values)]
    edges = np.empty(0)
    if len(known):
        shares = np.linspace(0, 1, bins + 1)[1:-1]
        # Values that occur, so that a bin is cut exactly there; none lies below the least.
        edges = np.unique(np.quantile(known, shares, method="higher"))
        edges = edges[edges > known.min()]
    steps = len(edges)
    middle = steps // 2
    design = np.zeros((steps + 2, steps + 1))
    for row in range(steps + 1):
        design[row, middle:row] = 1
        design[row, row:middle] = -1
    design[-1, -1] = 1
    high, low = np.full(steps + 1, np.inf), np.full(steps + 1, -np.inf)
    if direction > 0:
        low[:-1] = 0
    if direction < 0:
        high[:-1] = 0
    held = np.append(np.full(steps, penalty * max(steps, 1)), penalty)
    return _Column(edges, design, held, low, high, direction)


def _fitted(
    columns: list[_Column], matrix: np.ndarray, outcome: np.ndarray, weights: np.ndarray
) -> Scorecard:
    from scipy.sparse import block_diag, csr_array

    bins = np.column_stack([column.bins(matrix[:, at]) for at, column in enumerate(columns)])
    sizes = [len(column.design) for column in columns]
    starts = np.cumsum([0, *sizes])
    rows, inputs = bins.shape
    hit = csr_array(
        (
            np.ones(bins.size),
            (bins + starts[:-1]).ravel().astype(np.int32),
            np.arange(0, bins.size + 1, inputs, dtype=np.int32),
        ),
        shape=(rows, int(starts[-1])),
    )
    design = csr_array(block_diag([column.design for column in columns], format="csr"))
    penalty, low, high = (
        np.concatenate([getattr(column, name) for column in columns])
        for name in ("penalty", "low", "high")
    )
    free, intercept = _least_loss(hit, design, penalty, (low, high), outcome, weights)
    points = np.split(design @ free, starts[1:-1])
    counts = np.split(np.asarray(hit.sum(axis=0)), starts[1:-1])
    cards, means = zip(*map(_card, columns, points, counts), strict=True)
    return Scorecard(cards=list(cards), intercept=float(intercept + sum(means)))


def _least_loss(
    hit: Any,
    design: Any,
    penalty: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    outcome: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, float]:
    """The free numbers and the intercept of least penalised log loss, by L-BFGS-B."""
    from scipy.optimize import Bounds, minimize
    from scipy.special import expit

    bad = float(np.average(outcome, weights=weights))
    # Each unknown in units of its own curvature at the start, or the steep ones hold up the others.
    curvature = bad * (1 - bad)
    curved = design.power(2).T @ np.asarray(hit.sum(axis=0)) * curvature + penalty
    unit = 1 / np.sqrt(np.append(curved, len(outcome) * curvature))

    def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        free, intercept = (scaled * unit)[:-1], (scaled * unit)[-1]
        margin = hit @ (design @ free) + intercept
        value = log_loss(outcome, margin, weights)
        value += 0.5 * float(penalty @ free**2) / len(outcome)
        residual = weights * (expit(margin) - outcome)
        gradient = np.append(design.T @ (hit.T @ residual) + penalty * free, residual.sum())
        return value, gradient * unit / len(outcome)

    start = np.zeros(len(unit))
    start[-1] = np.log(bad / (1 - bad)) / unit[-1]
    with thread_pools().limit(limits=1):
        found = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(np.append(bounds[0], -np.inf), np.append(bounds[1], np.inf)),
            options={"maxiter": MOST_STEPS, "ftol": TOLERANCE, "gtol": 1e-9, "maxcor": 20},
        )
    solved = found.x * unit
    return solved[:-1], float(solved[-1])


def _card(column: _Column, points: np.ndarray, counts: np.ndarray) -> tuple[Card, float]:
    """The card with points of mean 0 over the rows (`counts` of each bin), and that mean."""
    if column.direction:  # sums of steps may go back by a rounding
        onwards = np.maximum if column.direction > 0 else np.minimum
        points = np.append(onwards.accumulate(points[:-1]), points[-1])
    mean = float(np.average(points, weights=counts))
    # What no row had says nothing, nor what every row had: it gets what the mean row gets.
    seen = (counts > 0) & (counts < counts.sum())
    centred = np.where(seen, points - mean, 0.0)
    spread = float(np.sqrt(np.average(centred**2, weights=counts)))
    card = Card(
        edges=column.edges.tolist(),
        points=centred[:-1].tolist(),
        missing=float(centred[-1]),
        spread=spread,
    )
    return card, mean
