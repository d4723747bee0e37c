from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from loan_platform.training.blending import (
    LEAST_WEIGHT,
    Candidate,
    Mix,
    choose,
    cross_fitted,
    fit_recipe,
    held_out_losses,
    slopes,
    surely_lower,
)
from loan_platform.training.families import Task, Watched
from loan_platform.training.recipe import Ingredient, Recipe


def seen_twice(
    count: int, seed: int = 1, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two margins that err independently about the same log-odds, and the outcome."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1, 1.5, count)
    margins = truth[:, None] + random.normal(0, noise, (count, 2))
    outcome = (random.random(count) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    return margins, outcome, np.arange(count) % 3


def chosen(columns: list[np.ndarray], outcome: np.ndarray, fold: np.ndarray, **how: object) -> Mix:
    settings = {"first": 0, "most": 4, "most_ms": 1.0, **how}
    candidates = [Candidate(column, 0.1) for column in columns]
    return choose(candidates, outcome, fold, **settings)  # type: ignore[arg-type]


def test_slopes_are_logistic_regressions_and_never_below_0() -> None:
    margins, outcome, _ = seen_twice(4000)
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(margins, outcome)
    np.testing.assert_allclose(slopes(margins, outcome)[1:], peer.coef_[0], atol=2e-3)

    # A model that is wrong on purpose: unconstrained, it would be subtracted.
    wrong = np.random.default_rng(2).normal(size=4000) - margins[:, 0]
    found = slopes(np.column_stack([margins, wrong]), outcome)
    np.testing.assert_allclose(found[1:3], peer.coef_[0], atol=2e-3)
    assert found[3] == 0


def test_losses_are_of_weights_found_on_the_other_folds() -> None:
    margins, outcome, fold = seen_twice(900)
    found = held_out_losses(margins, outcome, fold)
    for number in range(3):
        held = fold == number
        peer = LogisticRegression(C=np.inf, tol=1e-8).fit(margins[~held], outcome[~held])
        expected = log_loss(outcome[held], peer.predict_proba(margins[held]))
        assert found[held].mean() == pytest.approx(expected, abs=1e-5)


def test_models_that_err_otherwise_are_blended_and_the_blend_is_better_on_new_rows() -> None:
    margins, outcome, fold = seen_twice(3000)
    copy = margins[:, 0] * 1.3 + 0.2
    noise = np.random.default_rng(0).normal(size=3000)
    mix = chosen([margins[:, 0], copy, noise, margins[:, 1]], outcome, fold)
    assert set(mix.members) == {0, 3}, "neither the best again nor noise"
    assert sum(mix.weights) == pytest.approx(1)
    assert mix.weights[0] >= mix.weights[1] > 0.3

    new, truth, _ = seen_twice(20_000, seed=2)
    blended = new @ np.array([dict(zip(mix.members, mix.weights, strict=True))[k] for k in (0, 3)])
    alone, both = (slopes(one[:, None], truth) for one in (new[:, 0], blended))
    assert surely_lower(
        np.logaddexp(0, both[0] + both[1] * blended) - truth * (both[0] + both[1] * blended),
        np.logaddexp(0, alone[0] + alone[1] * new[:, 0])
        - truth * (alone[0] + alone[1] * new[:, 0]),
    )


def test_what_only_seems_to_help_is_rarely_added() -> None:
    """The rule has a level of 5 %; a fit on the rows that judge it would always seem to help."""
    added = 0
    for seed in range(60):
        margins, outcome, fold = seen_twice(200, seed=100 + seed)
        useless = np.random.default_rng(seed).normal(size=200)
        added += len(chosen([margins[:, 0], useless], outcome, fold).members) > 1
    assert added <= 7  # 3 expected


def test_a_member_costs_time_and_brings_weight() -> None:
    margins, outcome, fold = seen_twice(3000)
    dear = [Candidate(margins[:, 0], 0.6), Candidate(margins[:, 1], 0.6)]
    assert choose(dear, outcome, fold, first=0, most=4, most_ms=1.0).members == (0,)
    assert len(choose(dear, outcome, fold, first=0, most=4, most_ms=1.2).members) == 2
    assert chosen([*margins.T], outcome, fold, most=1).members == (0,)

    # On 40,000 rows even a very noisy model helps surely, but with next to no weight.
    margins, outcome, fold = seen_twice(40_000, noise=0.2)
    faint = margins[:, 1] + np.random.default_rng(5).normal(0, 3, 40_000)
    assert slopes(np.column_stack([margins[:, 0], faint]), outcome)[2] < LEAST_WEIGHT
    assert chosen([margins[:, 0], faint], outcome, fold).members == (0,)


def test_a_recipe_is_fitted_to_the_sizes_it_has_or_finds() -> None:
    random = np.random.default_rng(3)
    matrix = random.normal(size=(900, 3))
    outcome = (random.random(900) < 1 / (1 + np.exp(1 - matrix[:, 0]))).astype(np.int64)
    task = Task(("a", "b", "c"), {}, (0, 0, 0), balanced=False, seed=1)
    deep = Ingredient(family="lightgbm", parameters={"num_leaves": 7}, size=12, weight=0.25)
    free = Ingredient(family="lightgbm", weight=0.75)
    watch = Watched(matrix[600:], outcome[600:])
    blend, grown = fit_recipe(
        task, Recipe(ingredients=[deep, free]), matrix[:600], outcome[:600], watch=watch
    )
    found = grown.ingredients[1].size
    assert found is not None
    assert grown.ingredients[0].size == 12

    again, _ = fit_recipe(task, grown, matrix[:600], outcome[:600])
    np.testing.assert_array_equal(again.margin(matrix), blend.margin(matrix))
    parts = [
        fit_recipe(task, Recipe(ingredients=[one]), matrix[:600], outcome[:600])[0]
        for one in grown.ingredients
    ]
    expected = 0.25 * parts[0].margin(matrix) + 0.75 * parts[1].margin(matrix)
    np.testing.assert_allclose(blend.margin(matrix), expected, atol=1e-12)


def test_without_a_size_and_without_rows_to_watch_nothing_is_guessed() -> None:
    task = Task(("a",), {}, (0,), balanced=False, seed=1)
    unsized = Recipe(ingredients=[Ingredient(family="lightgbm")])
    with pytest.raises(ValueError, match="no size for lightgbm: give it, or rows to watch"):
        fit_recipe(task, unsized, np.arange(20.0)[:, None], np.arange(20) % 2)


def test_cross_fitting_asks_no_model_about_a_row_or_a_copy_it_has_learnt() -> None:
    """A model that knows every row by heart says nothing of outcomes drawn by chance."""
    random = np.random.default_rng(4)
    own = random.normal(size=(600, 2))
    matrix, copies_of = np.vstack([own, own]), np.tile(np.arange(600), 2)
    outcome = random.integers(0, 2, 600)[copies_of]
    task = Task(("a", "b"), {}, (0, 0), balanced=False, seed=1)
    heart = {"num_leaves": 63, "min_data_in_leaf": 1, "learning_rate": 0.3}
    recipe = Recipe(ingredients=[Ingredient(family="lightgbm", parameters=heart, size=60)])
    scorer, _ = fit_recipe(task, recipe, matrix, outcome)
    assert roc_auc_score(outcome, scorer.margin(matrix)) > 0.99
    margin = cross_fitted(task, recipe, matrix, outcome, copies_of)
    assert 0.42 < roc_auc_score(outcome, margin) < 0.58
    leaking = cross_fitted(task, recipe, matrix, outcome, np.arange(1200))
    assert roc_auc_score(outcome, leaking) > 0.6, "with copies in other folds it would know"
