from __future__ import annotations

import dataclasses
import sys

import numpy as np
import optuna
import pytest

from loan_platform.contract.settings import Family
from loan_platform.model.scorers.scorecard import Scorecard
from loan_platform.training import families
from loan_platform.training.families import Fit, Task, Watched
from loan_platform.training.families.loss import log_loss, row_weights
from loan_platform.training.search import DRAWN
from loan_platform_tests import home_loans
from loan_platform_tests.model.fitted import (
    EXTRA,
    FAMILIES,
    FREE,
    TASK,
    UNDIRECTED,
    book,
    fresh,
    needs,
    scorer,
    task_for,
)

GROWING = tuple(family for family in FAMILIES if family != "logistic")
DIRECTED = tuple(family for family in FAMILIES if family not in UNDIRECTED)


def auc(outcome: np.ndarray, margin: np.ndarray) -> float:
    """Share of pairs of a bad and a good row that are in the right order."""
    bad, good = margin[outcome == 1], margin[outcome == 0]
    above = bad[:, None] > good
    return float((above + 0.5 * (bad[:, None] == good)).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_grows_to_the_size_of_least_loss_on_the_watched_rows(family: Family) -> None:
    needs(family)
    module, held, told = families.module(family), book(600, seed=2), []
    quick = {"learning_rate": 0.3} if "learning_rate" in module.defaults() else {}
    watched = Watched(*held, report=lambda *told_: told.append(told_))
    fitted = module.fit(Fit(task_for(family), *book(), until=watched), quick)
    assert told, "a search sees how it goes"
    steps, losses = zip(*told, strict=True)
    assert list(steps) == sorted(set(steps))
    margin = fitted.scorer.margin(watched.matrix)
    mine = log_loss(watched.outcome, margin, np.ones(600))
    assert mine <= min(losses) + 1e-6
    assert auc(watched.outcome, margin) > 0.65
    if family == "logistic":
        assert fitted.size == 1
    else:
        assert 1 <= fitted.size <= max(steps) + 60
    sized = module.fit(Fit(task_for(family), *book(), until=fitted.size), quick).scorer
    np.testing.assert_allclose(sized.margin(watched.matrix), margin, atol=1e-6)


@pytest.mark.parametrize("family", DRAWN)
def test_a_seed_among_the_settings_makes_other_draws(family: Family) -> None:
    needs(family)
    module, task = families.module(family), task_for(family)

    def margin(parameters: dict[str, int]) -> np.ndarray:
        return module.fit(Fit(task, *book(), until=8), parameters).scorer.margin(fresh())

    assert not np.array_equal(margin({"seed": task.seed + 1}), margin({}))
    np.testing.assert_array_equal(margin({"seed": task.seed}), margin({}))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_rows_give_the_same_scorer(family: Family) -> None:
    needs(family)
    again = families.module(family).fit(Fit(task_for(family), *book(), until=8), {}).scorer
    np.testing.assert_array_equal(again.margin(fresh()), scorer(family).margin(fresh()))


@pytest.mark.parametrize("family", DIRECTED)
def test_no_value_of_an_input_moves_the_margin_against_its_direction(family: Family) -> None:
    needs(family)
    # Grown far enough to follow noise, which is where a direction would be broken.
    size = 40 if family in GROWING else 1
    asked, rows = scorer(family, size=size), fresh(80)
    for name, way in (("ratio", 1), ("years", -1)):
        at = TASK.names.index(name)
        seen = book()[0][:, at]
        swept = np.sort(np.concatenate([[-1e6, 1e6], np.nanquantile(seen, np.linspace(0, 1, 60))]))
        changed = np.repeat(rows, len(swept), axis=0)
        changed[:, at] = np.tile(swept, len(rows))
        margins = asked.margin(changed).reshape(len(rows), len(swept))
        steps = way * np.diff(margins, axis=1)
        assert steps.min() >= (-1e-5 if family == "xgboost" else -1e-12), name
        assert steps.max() > 0.01, f"{name} matters"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_why_it_cannot_serve_a_book_with_directions(family: Family) -> None:
    needs(family)
    module = families.module(family)
    assert module.unable(FREE) is None
    if family in UNDIRECTED:
        assert "gives one to ratio, years" in str(module.unable(TASK))
    else:
        assert module.unable(TASK) is None


@pytest.mark.parametrize("family", EXTRA)
def test_a_family_of_the_extra_says_how_to_install_it(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, family, None)
    said = families.module(family).unable(TASK)
    assert said == f"{family} is not installed; pip install 'loan-platform[families]'"


@pytest.mark.parametrize("family", FAMILIES)
def test_balanced_both_classes_weigh_the_same(family: Family) -> None:
    needs(family)
    matrix, outcome = book()
    balanced = dataclasses.replace(task_for(family), balanced=True)
    fitted = families.module(family).fit(Fit(balanced, matrix, outcome, until=8), {})
    margin = fitted.scorer.margin(matrix)
    plain = scorer(family).margin(matrix)
    # The log-odds of bad rise by about ln(good / bad); few trees do not go all the way.
    odds = np.log((1 - outcome.mean()) / outcome.mean())
    assert 0.5 * odds < (margin - plain).mean() < 1.5 * odds


def test_balanced_weights_have_mean_1_and_halve_the_whole() -> None:
    outcome = np.array([1, 0, 0, 0])
    np.testing.assert_allclose(row_weights(outcome, balanced=True), [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_array_equal(row_weights(outcome, balanced=False), np.ones(4))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_may_prune_a_trial_while_it_grows(family: Family) -> None:
    needs(family)

    def prune(step: int, loss: float) -> None:
        del step, loss
        raise optuna.TrialPruned

    watched = Watched(*book(600, seed=2), report=prune)
    with pytest.raises(optuna.TrialPruned):
        families.module(family).fit(Fit(task_for(family), *book(), until=watched), {})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_suggestion_can_be_fitted(family: Family) -> None:
    needs(family)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    module = families.module(family)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5))
    chosen = module.suggest(study.ask())
    fitted = module.fit(Fit(task_for(family), *book(300), until=2), chosen)
    assert np.isfinite(fitted.scorer.margin(fresh(50))).all()


def test_a_task_is_what_the_contract_says() -> None:
    contract = home_loans.contract(training={"class_weight": "balanced", "seed": 3})
    task = families.task_of(contract)
    assert task.names == tuple(contract.model_inputs)
    assert task.categories == {"reason": 3}
    assert [name for name, way in zip(task.names, task.monotone, strict=True) if way == 1] == [
        "debt-ratio"
    ]
    assert (task.balanced, task.seed) == (True, 3)


def test_a_scorecard_is_the_ridge_regression_that_scikit_learn_finds() -> None:
    """Thermometer coding and categories by hand, and an independent solver."""
    from sklearn.linear_model import LogisticRegression

    matrix, outcome = book()
    known = ~np.isnan(matrix[:, [1, 4]]).any(axis=1)
    ratio, grade, outcome = matrix[known, 1], matrix[known, 4], outcome[known]
    penalty, bins = 0.7, 10
    edges = np.unique(np.quantile(ratio, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    steps = (ratio[:, None] >= edges) / np.sqrt(penalty * len(edges))
    codes = np.eye(4)[grade.astype(int)] / np.sqrt(penalty)
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000)
    theirs.fit(np.column_stack([steps, codes]), outcome)

    task = Task(("ratio", "grade"), {"grade": 4}, (0, 0), balanced=False, seed=7)
    chosen = {"bins": bins, "penalty": penalty}
    asked = Fit(task, np.column_stack([ratio, grade]), outcome, until=1)
    mine = families.module("logistic").fit(asked, chosen)
    expected = theirs.decision_function(np.column_stack([steps, codes]))
    found = mine.scorer.margin(asked.matrix)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_scorecard_without_penalty_has_the_log_odds_of_each_category() -> None:
    code = np.repeat([0.0, 1.0, np.nan], [400, 200, 100])
    outcome = np.concatenate([np.arange(400) < 40, np.arange(200) < 100, np.arange(100) < 75])
    task = Task(("grade",), {"grade": 3}, (0,), balanced=False, seed=7)
    asked = Fit(task, code[:, None], outcome.astype(np.int64), until=1)
    fitted = families.module("logistic").fit(asked, {"penalty": 1e-6})
    found = fitted.scorer.margin(np.array([[0.0], [1.0], [np.nan]]))
    np.testing.assert_allclose(found, np.log([40 / 360, 1, 3]), atol=2e-3)
    card = fitted.scorer
    assert isinstance(card, Scorecard)
    assert card.cards[0].points[2] == 0, "a category nobody had neither helps nor harms"


def test_neighbouring_bins_of_a_scorecard_are_alike_under_a_strong_penalty() -> None:
    card = families.module("logistic").fit(Fit(FREE, *book(), until=1), {"penalty": 1e5}).scorer
    assert np.ptp(card.margin(fresh())) < 0.05
