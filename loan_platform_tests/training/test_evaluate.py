from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from loan_platform.model.policy import Policy
from loan_platform.training import evaluate as evaluating
from loan_platform.training.evaluate import (
    auc_of_few,
    calibration_error,
    evaluate,
    evaluate_rows,
    resamples,
    weighted_auc,
)
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import made_rows

POLICY = Policy.banded(0.3, 0.2, 0.4)


def scored(count: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probability = random.beta(1, 3, count)
    outcome = (random.random(count) < probability).astype(np.int64)
    return outcome, np.round(probability, 1) if ties else probability


def auc_interval(
    outcome: np.ndarray, probability: np.ndarray, confidence: float, seed: int
) -> tuple[float, float]:
    found = evaluate(outcome, probability, POLICY, confidence=confidence, seed=seed).metrics
    return found["auc_low"], found["auc_high"]


@pytest.mark.parametrize("ties", [False, True])
def test_measures_are_those_of_sklearn_and_scipy(ties: bool) -> None:
    outcome, probability = scored(2000, seed=1, ties=ties)
    found = evaluate(outcome, probability, POLICY).metrics
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
        "f1": metrics.f1_score(outcome, label),
        "specificity": metrics.recall_score(outcome, label, pos_label=0),
        "bad_rate_approved": outcome[probability < 0.2].mean(),
        "decline_share": (POLICY.decide(probability) == "decline").mean(),
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


def test_the_interval_of_the_auc_is_scipys_bootstrap_and_covers_the_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    monkeypatch.setattr(evaluating, "RESAMPLES", 200)
    covered = 0
    for seed in range(100):
        low, high = auc_interval(*scored(400, seed=100 + seed), 0.9, seed=seed)
        covered += low <= truth <= high
    assert 80 <= covered <= 98  # 90 expected; these ends have a chance below 1 in 1000


def test_calibration_error_is_the_gap_between_promise_and_outcome() -> None:
    probability = np.repeat([0.1, 0.9], 500)
    outcome = np.tile([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100)
    assert calibration_error(outcome, probability) == pytest.approx((0.0 + 0.8) / 2)


def test_every_metric_has_an_interval_and_it_is_scipys() -> None:
    outcome, probability = scored(600, seed=6)
    money = np.where(outcome == 1, -0.6, 0.165)
    found = evaluate(outcome, probability, Policy.banded(0.3, 0.25, 0.35), profit=money).metrics
    counts = {"rows", "threshold"} | {f"{t}_{s}s" for t in ("true", "false") for s in SIDES}
    for name in {name for name in found if not name.endswith(("_low", "_high"))} - counts:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
        assert found[f"{name}_low"] < found[f"{name}_high"], name
    statistics = {
        "pr_auc": metrics.average_precision_score,
        "f1": lambda y, p: metrics.f1_score(y, p >= 0.3),
        "profit_per_loan": lambda y, p: (np.where(y == 1, -0.6, 0.165) * (p < 0.25)).mean(),
    }
    for name, statistic in statistics.items():
        peer = stats.bootstrap(
            (outcome, probability),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=200,
            method="percentile",
            rng=np.random.default_rng(2),
        )
        width = found[f"{name}_high"] - found[f"{name}_low"]
        low, high = peer.confidence_interval
        assert abs(found[f"{name}_low"] - low) < 0.25 * width, name
        assert abs(found[f"{name}_high"] - high) < 0.25 * width, name


SIDES = ("positive", "negative")


def test_the_intervals_of_what_noise_inflates_cover_the_truth() -> None:
    """The error of right promises is 0, which no percentile of a bootstrap would ever say."""
    policy = Policy.banded(0.3, 0.2, 0.4)
    outcome, probability = scored(200_000, seed=5)
    ks = stats.ks_2samp(probability[outcome == 1], probability[outcome == 0]).statistic
    covered = {"right": 0, "ks": 0, "off": 0}
    for seed in range(20):
        outcome, probability = scored(500, seed=200 + seed)
        found = evaluate(outcome, probability, policy, confidence=0.9, seed=seed).metrics
        covered["right"] += found["calibration_error_low"] == 0
        covered["ks"] += found["ks_low"] <= ks <= found["ks_high"]
        promised = np.minimum(probability + 0.08, 1)
        off = evaluate(outcome, promised, policy, confidence=0.9, seed=seed).metrics
        covered["off"] += 0.01 < off["calibration_error_low"] < 0.08 < off["calibration_error_high"]
    assert covered["right"] >= 18
    assert covered["ks"] >= 16  # 18 expected
    assert covered["off"] >= 16


def test_delongs_interval_is_the_bootstraps_and_knows_when_it_cannot_be_told() -> None:
    outcome, probability = scored(1500, seed=7, ties=True)
    area, low, high = auc_of_few(outcome, probability, 0.95)
    assert area == pytest.approx(metrics.roc_auc_score(outcome, probability), abs=1e-12)
    assert low is not None
    assert high is not None
    resampled = auc_interval(outcome, probability, 0.95, seed=0)
    assert (low, high) == pytest.approx(resampled, abs=0.1 * (high - low))
    perfect = np.arange(20) >= 10
    assert auc_of_few(perfect.astype(int), np.arange(20.0), 0.95) == (1.0, None, None)
    few = np.append(np.zeros(20, dtype=int), [1, 1])
    assert auc_of_few(few, np.arange(22.0)[::-1] % 21, 0.95)[1:] == (None, None)
    assert auc_of_few(np.zeros(5, dtype=int), np.arange(5.0), 0.95) == (None, None, None)


def test_months_and_segments_are_measured_by_themselves() -> None:
    outcome, probability = scored(3000, seed=8)
    reasons = np.array(["purchase", "parent's home", None], dtype=object)[np.arange(3000) % 3]
    days = np.array(["2024-01-05", "2024-02-05"])[np.arange(3000) % 2]
    rows = made_rows(
        [f"H-{number:05d}" for number in range(3000)],
        applied_at=days,
        outcome=outcome,
        beside={"reason": reasons, "sex": np.array(["f", "m"], dtype=object)[outcome]},
    )
    rows.beside["reason"][5] = 'a "second" home'  # one person, of whom nothing is told
    policy = Policy.banded(0.3, 0.2, 0.4)
    found = evaluate_rows(home_loans.contract(), rows, probability, policy)
    assert [one.name for one in found.by_month] == ["2024-01", "2024-02"]
    names = [one.name for one in found.by_segment["reason"]]
    assert names == ["purchase", "parent's home", "missing"]
    assert [one.rows for one in found.by_segment["reason"]] == [1000, 1000, 999]
    first, slice_ = rows.month == "2024-01", found.by_month[0]
    y, p = outcome[first], probability[first]
    assert slice_.rows == 1500
    assert slice_.bad_rate == pytest.approx(y.mean())
    assert slice_.promised == pytest.approx(p.mean())
    assert slice_.auc == pytest.approx(metrics.roc_auc_score(y, p))
    assert slice_.log_loss == pytest.approx(metrics.log_loss(y, p))
    assert slice_.approved_share == pytest.approx((p < 0.2).mean())
    assert found.metrics == evaluate(outcome, probability, policy, seed=7).metrics
    assert [one.column for one in found.fairness] == ["sex"]


def test_thirty_thousand_rows_are_measured_in_less_than_two_seconds() -> None:
    outcome, probability = scored(30_000, seed=9)
    began = time.process_time()
    evaluate(outcome, probability, Policy.banded(0.3, 0.25, 0.35), profit=probability)
    assert time.process_time() - began < 2
