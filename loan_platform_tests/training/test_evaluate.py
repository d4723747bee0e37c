from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from loan_platform.model.policy import Policy
from loan_platform.training.evaluate import (
    auc_interval,
    calibration_error,
    evaluate,
    resamples,
    weighted_auc,
)


def scored(count: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probability = random.beta(1, 3, count)
    outcome = (random.random(count) < probability).astype(np.int64)
    return outcome, np.round(probability, 1) if ties else probability


@pytest.mark.parametrize("ties", [False, True])
def test_measures_are_those_of_sklearn_and_scipy(ties: bool) -> None:
    outcome, probability = scored(2000, seed=1, ties=ties)
    policy = Policy.banded(0.3, 0.2, 0.4)
    found = evaluate(outcome, probability, policy).metrics
    bad, good = probability[outcome == 1], probability[outcome == 0]
    label = (probability >= 0.3).astype(int)
    (clear, alarm), (missed, hit) = metrics.confusion_matrix(outcome, label)
    expected = {
        "auc": metrics.roc_auc_score(outcome, probability),
        "gini": 2 * metrics.roc_auc_score(outcome, probability) - 1,
        "pr_auc": metrics.average_precision_score(outcome, probability),
        "log_loss": metrics.log_loss(outcome, probability),
        "brier": metrics.brier_score_loss(outcome, probability),
        "ks": stats.ks_2samp(bad, good).statistic,
        "true_positives": hit,
        "false_positives": alarm,
        "true_negatives": clear,
        "false_negatives": missed,
        "precision": metrics.precision_score(outcome, label),
        "recall": metrics.recall_score(outcome, label),
        "accuracy": metrics.accuracy_score(outcome, label),
        "decline_share": (policy.decide(probability) == "decline").mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    shares = [found[f"{name}_share"] for name in ("approve", "refer", "decline")]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auc_is_sklearns_for_every_resample(ties: bool) -> None:
    outcome, probability = scored(300, seed=2, ties=ties)
    counts = np.concatenate(list(resamples(300, 150, seed=3)))
    assert counts.shape == (150, 300)
    assert (counts.sum(axis=1) == 300).all()
    expected = [metrics.roc_auc_score(outcome, probability, sample_weight=w) for w in counts]
    np.testing.assert_allclose(weighted_auc(outcome, probability, counts), expected, atol=1e-12)


def test_a_resample_with_one_class_has_no_auc_and_does_not_count() -> None:
    outcome, probability = np.array([1, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3])
    weights = np.array([[0, 2, 1, 1], [1, 1, 1, 1]], dtype=float)
    assert np.isnan(weighted_auc(outcome, probability, weights)).tolist() == [True, False]
    assert auc_interval(outcome, probability, 0.95, seed=0) == (1.0, 1.0)


def test_the_interval_of_the_auc_is_scipys_bootstrap_and_covers_the_truth() -> None:
    outcome, probability = scored(800, seed=4)
    low, high = auc_interval(outcome, probability, 0.95, seed=0)
    independent = stats.bootstrap(
        (outcome, probability),
        metrics.roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=600,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = high - low
    assert abs(low - independent.low) < 0.12 * width
    assert abs(high - independent.high) < 0.12 * width

    truth = metrics.roc_auc_score(*scored(400_000, seed=5))
    covered = 0
    for seed in range(100):
        low, high = auc_interval(*scored(400, seed=100 + seed), 0.9, seed=seed, count=200)
        covered += low <= truth <= high
    assert 80 <= covered <= 98  # 90 expected; these ends have a chance below 1 in 1000


def test_calibration_error_is_the_gap_between_promise_and_outcome() -> None:
    probability = np.repeat([0.1, 0.9], 500)
    outcome = np.tile([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100)
    assert calibration_error(outcome, probability) == pytest.approx((0.0 + 0.8) / 2)
