"""Several models as one: which of them, with which weights, and fitting them.

The weights are those of a logistic regression on the models' margins with no slope below 0, scaled
to sum to 1: the slope they have together is the calibrator's to find (`training.calibrate`). A
weight below 0 would turn a true reason of its model into a false one of the blend.

Here: weights, choosing members, fitting a recipe once or fold by fold. Not here: the trials
(`search`), or asking the models together (`model.scorers.blend`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from loan_platform.model.scorers import Scorer
from loan_platform.model.scorers.blend import Blend
from loan_platform.training.families import Fit, Fitted, Task, Watched, module
from loan_platform.training.recipe import Ingredient, Recipe
from loan_platform.training.split import folds

LEAST_WEIGHT = 0.05
"""A member with less is left out: it would cost every request more than it brings."""
NOISE = 1.645
"""Standard errors that a gain has to be above 0: one-sided 5 %."""
FOLDS = 3
"""Of a cross-fitting."""
WORKERS = 2
"""Fits at once, each in one thread: the libraries work outside Python's lock."""


@dataclass(frozen=True)
class Candidate:
    """Margins of one model on rows it was not fitted on, shape (n,), and its cost.

    `row_ms`: CPU milliseconds for one row.
    """

    margin: np.ndarray
    row_ms: float = 0.0


@dataclass(frozen=True)
class Mix:
    """Chosen candidates by their place in the list, heaviest first; the weights sum to 1.

    `losses`: log loss of each row, by weights found on the rows of the other folds, shape (n,).
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    losses: np.ndarray


def slopes(margins: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Intercept and slopes, shape (k + 1,), of `P(bad) = sigmoid(b + margins @ v)`, all v >= 0.

    Those of least log loss. `margins` has shape (n, k), `outcome` (n,) is 1 for bad.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    rows, count = margins.shape

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        logit = found[0] + margins @ found[1:]
        residual = (expit(logit) - outcome) / rows
        value = float(_losses(logit, outcome).mean())
        return value, np.concatenate([[residual.sum()], residual @ margins])

    start = np.concatenate([[0.0], np.full(count, 1 / count)])
    bounds = [(None, None)] + [(0.0, None)] * count
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-10}
    )
    return np.asarray(found.x)


def held_out_losses(margins: np.ndarray, outcome: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log loss of each row, shape (n,), by `slopes` found on the rows of the other folds."""
    losses = np.empty(len(outcome))
    for number in np.unique(fold):
        held = fold == number
        found = slopes(margins[~held], outcome[~held])
        losses[held] = _losses(found[0] + margins[held] @ found[1:], outcome[held])
    return losses


def surely_lower(losses: np.ndarray, than: np.ndarray) -> bool:
    """Whether the mean of `losses` is below that of `than` by more than noise; row by row, (n,)."""
    gain = than - losses
    spread = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    return bool(gain.mean() > NOISE * spread)


def choose(
    candidates: Sequence[Candidate],
    outcome: np.ndarray,
    fold: np.ndarray,
    *,
    first: int,
    most: int,
    most_ms: float,
) -> Mix:
    """Add to the candidate `first` the one that helps most, as long as it surely helps.

    At most `most` members that cost `most_ms` together. Ends with `first` alone where nothing helps
    by more than noise, measured on rows on which the weights were not found.
    """
    members = [first]
    losses = held_out_losses(_columns(candidates, members), outcome, fold)
    while len(members) < most:
        spent = sum(candidates[one].row_ms for one in members)
        rest = [
            place
            for place, one in enumerate(candidates)
            if place not in members and spent + one.row_ms <= most_ms
        ]
        if not rest:
            break
        grown = [*members, min(rest, key=lambda one: _loss(candidates, [*members, one], outcome))]
        grown = _without_light_ones(candidates, grown, outcome)
        with_it = held_out_losses(_columns(candidates, grown), outcome, fold)
        if set(grown) <= set(members) or not surely_lower(with_it, losses):
            break
        members, losses = grown, with_it
    weights = _weights(candidates, members, outcome)
    heaviest = sorted(zip(weights, members, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return Mix(
        members=tuple(member for _, member in heaviest),
        weights=tuple(weight for weight, _ in heaviest),
        losses=losses,
    )


def _without_light_ones(
    candidates: Sequence[Candidate], members: list[int], outcome: np.ndarray
) -> list[int]:
    while len(members) > 1:
        weights = _weights(candidates, members, outcome)
        lightest = int(np.argmin(weights))
        if weights[lightest] >= LEAST_WEIGHT:
            break
        members = [one for place, one in enumerate(members) if place != lightest]
    return members


def _weights(
    candidates: Sequence[Candidate], members: Sequence[int], outcome: np.ndarray
) -> list[float]:
    if len(members) == 1:
        return [1.0]
    found = slopes(_columns(candidates, members), outcome)[1:]
    total = float(found.sum())
    if total <= 0:  # none of them ranks better than chance
        return [1 / len(members)] * len(members)
    return [float(one) / total for one in found]


def _loss(candidates: Sequence[Candidate], members: Sequence[int], outcome: np.ndarray) -> float:
    margins = _columns(candidates, members)
    found = slopes(margins, outcome)
    return float(_losses(found[0] + margins @ found[1:], outcome).mean())


def _columns(candidates: Sequence[Candidate], members: Sequence[int]) -> np.ndarray:
    return np.column_stack([candidates[one].margin for one in members])


def _losses(logit: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0, logit) - outcome * logit)


def fit_recipe(
    task: Task,
    recipe: Recipe,
    matrix: np.ndarray,
    outcome: np.ndarray,
    *,
    watch: Watched | None = None,
) -> tuple[Scorer, Recipe]:
    """Fit every ingredient to its size, or with none to the size the rows of `watch` show.

    `matrix` (n, inputs) and `outcome` (n,). Gives the scorer, a blend where there are several
    ingredients, and the recipe with every size filled in.
    """

    def fit(one: Ingredient) -> Fitted:
        until = one.size or watch
        if until is None:
            raise ValueError(f"the recipe has no size for {one.family}: give it, or rows to watch")
        return module(one.family).fit(Fit(task, matrix, outcome, until), one.parameters)

    with ThreadPoolExecutor(WORKERS) as workers:
        fitted = list(workers.map(fit, recipe.ingredients))
    grown = [
        one.model_copy(update={"size": made.size})
        for one, made in zip(recipe.ingredients, fitted, strict=True)
    ]
    scorers = tuple(made.scorer for made in fitted)
    weights = tuple(one.weight for one in grown)
    scorer = Blend(scorers, weights) if len(scorers) > 1 else scorers[0]
    return scorer, recipe.model_copy(update={"ingredients": grown})


def cross_fitted(
    task: Task, recipe: Recipe, matrix: np.ndarray, outcome: np.ndarray, copies_of: np.ndarray
) -> np.ndarray:
    """Margin of each row, shape (n,), of a model by `recipe` that was not fitted on it.

    `matrix` (n, inputs) and `outcome` (n,). Rows of one value of `copies_of` (n,) are in one fold.
    """
    fold = folds(outcome, copies_of, FOLDS, task.seed)
    margin = np.empty(len(outcome))

    def ask(number: int) -> None:
        held = fold == number
        scorer, _ = fit_recipe(task, recipe, matrix[~held], outcome[~held])
        margin[held] = scorer.margin(matrix[held])

    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(ask, range(FOLDS)))
    return margin
