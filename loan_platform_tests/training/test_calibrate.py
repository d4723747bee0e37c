from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from loan_platform.model.calibrator import Calibrator, Isotonic, Sigmoid
from loan_platform.training.calibrate import (
    SMALLEST_SLOPE,
    fit_calibrator,
    fit_isotonic,
    fit_sigmoid,
)


def margins(count: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    margin = random.normal(-1, 2, count)
    outcome = random.random(count) < 1 / (1 + np.exp(-(slope * margin + intercept)))
    return margin, outcome.astype(np.int64)


def test_with_many_rows_it_is_plain_logistic_regression() -> None:
    margin, outcome = margins(20_000, slope=0.6, intercept=0.4)
    found = fit_sigmoid(margin, outcome)
    peer = LogisticRegression(C=np.inf).fit(margin[:, None], outcome)
    assert found.slope == pytest.approx(peer.coef_[0, 0], abs=0.005)
    assert found.intercept == pytest.approx(peer.intercept_[0], abs=0.005)


def test_the_mean_promise_is_the_bad_rate() -> None:
    margin, outcome = margins(500, slope=1.5, intercept=-1)
    promised = fit_sigmoid(margin, outcome).probability(margin)
    assert promised.mean() == pytest.approx(outcome.mean(), abs=1e-4)


def test_a_ranking_is_never_turned_around() -> None:
    margin, outcome = margins(500, slope=-1, intercept=0)
    found = fit_sigmoid(margin, outcome)
    assert found.slope == SMALLEST_SLOPE
    ordered = np.sort(margin)
    assert (np.diff(found.probability(ordered)) > 0).all()


def stepped(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins whose true probability no sigmoid has: it stays low, and jumps for the last third."""
    random = np.random.default_rng(seed)
    margin = random.uniform(-3, 3, count)
    truth = 0.1 + 0.01 * (margin + 3) + 0.6 / (1 + np.exp(-12 * (margin - 1)))
    return margin, (random.random(count) < truth).astype(np.int64), truth


def test_the_isotonic_one_is_chosen_where_no_sigmoid_fits_and_only_there() -> None:
    margin, outcome, truth = stepped(4000)
    found = fit_calibrator(margin, outcome)
    assert found.kind == "isotonic"
    rough = np.abs(fit_sigmoid(margin, outcome).probability(margin) - truth).mean()
    assert np.abs(found.probability(margin) - truth).mean() < rough / 2
    for seed in range(4):
        random = np.random.default_rng(seed)
        plain = random.normal(-1, 1.5, 3000)
        drawn = (random.random(3000) < 1 / (1 + np.exp(-plain))).astype(np.int64)
        assert fit_calibrator(plain, drawn, seed=seed).kind == "sigmoid"


def test_isotonic_is_sklearns_at_the_centres_of_its_steps() -> None:
    margin, outcome, _ = stepped(50_000)
    steps = IsotonicRegression().fit_transform(margin, outcome.astype(float))
    rates, step, rows = np.unique(steps, return_inverse=True, return_counts=True)
    centres = np.bincount(step, margin) / rows
    large = rows >= 1000
    found = fit_isotonic(margin, outcome).probability(centres[large])
    np.testing.assert_allclose(found, rates[large], atol=0.03)
    assert large.sum() > 5


def test_isotonic_rises_strictly_and_goes_on_beyond_what_it_saw() -> None:
    margin, outcome, _ = stepped(2000)
    # The ends are pure: nobody there went wrong, everybody there did.
    outcome = np.where(margin < -2.5, 0, np.where(margin > 2.5, 1, outcome))
    found = fit_isotonic(margin, outcome)
    everywhere = np.linspace(-9, 9, 20_001)
    promised = found.probability(everywhere)
    assert (np.diff(promised) > 0).all()
    assert 0 < promised[0] < promised[-1] < 1
    again = np.random.default_rng(1).normal(0, 2, 3000)
    np.testing.assert_array_equal(np.argsort(found.probability(again)), np.argsort(again))
    # Rows of the first step promise less than 1 %, and none promises nothing.
    assert 1e-4 < found.probability(np.array([-2.9]))[0] < 0.03


def test_a_calibrator_is_read_back_as_it_was_written() -> None:
    margin, outcome, _ = stepped(1000)
    reader: TypeAdapter[Sigmoid | Isotonic] = TypeAdapter(Calibrator)
    for found in (fit_sigmoid(margin, outcome), fit_isotonic(margin, outcome)):
        again = reader.validate_json(found.model_dump_json())
        assert again == found
        np.testing.assert_array_equal(again.probability(margin), found.probability(margin))
    with pytest.raises(ValidationError, match="rise strictly in both"):
        Isotonic(points=[(0, 0), (1, 0)], slope=1)
