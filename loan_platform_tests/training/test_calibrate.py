from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from loan_platform.training.calibrate import SMALLEST_SLOPE, fit_calibrator


def margins(count: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    margin = random.normal(-1, 2, count)
    outcome = random.random(count) < 1 / (1 + np.exp(-(slope * margin + intercept)))
    return margin, outcome.astype(np.int64)


def test_with_many_rows_it_is_plain_logistic_regression() -> None:
    margin, outcome = margins(20_000, slope=0.6, intercept=0.4)
    found = fit_calibrator(margin, outcome)
    peer = LogisticRegression(C=np.inf).fit(margin[:, None], outcome)
    assert found.slope == pytest.approx(peer.coef_[0, 0], abs=0.005)
    assert found.intercept == pytest.approx(peer.intercept_[0], abs=0.005)


def test_the_mean_promise_is_the_bad_rate() -> None:
    margin, outcome = margins(500, slope=1.5, intercept=-1)
    promised = fit_calibrator(margin, outcome).probability(margin)
    assert promised.mean() == pytest.approx(outcome.mean(), abs=1e-4)


def test_a_ranking_is_never_turned_around() -> None:
    margin, outcome = margins(500, slope=-1, intercept=0)
    found = fit_calibrator(margin, outcome)
    assert found.slope == SMALLEST_SLOPE
    ordered = np.sort(margin)
    assert (np.diff(found.probability(ordered)) > 0).all()
