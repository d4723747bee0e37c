from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import f1_score, roc_curve

from loan_platform.contract.settings import Bands, PolicySettings
from loan_platform.model.policy import Policy
from loan_platform.training import TrainingError
from loan_platform.training.threshold import best_f1, choose_policy, most_profitable, youden
from loan_platform_tests import home_loans


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    probability = np.round(random.beta(1, 3, 3000), 3)
    return (random.random(3000) < probability).astype(np.int64), probability


def test_youden_is_the_threshold_farthest_above_chance(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    outcome, probability = scores
    alarmed, found, thresholds = roc_curve(outcome, probability, drop_intermediate=False)
    assert youden(outcome, probability) == thresholds[np.argmax(found - alarmed)]


def test_f1_and_profit_are_the_best_of_every_threshold_there_is(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    outcome, probability = scores[0][:400], scores[1][:400]
    every = [*np.unique(probability), 1.0]
    f1 = [f1_score(outcome, probability >= one, zero_division=0) for one in every]
    assert f1[every.index(best_f1(outcome, probability))] == max(f1)

    money = np.random.default_rng(1).normal(0.4, 1, 400) * np.where(outcome == 1, -3, 1)
    total = [money[probability < one].sum() for one in every]
    assert total[every.index(most_profitable(money, probability))] == pytest.approx(max(total))


def test_each_has_the_optimum_that_theory_gives_where_promises_are_kept() -> None:
    """Youden: the bad rate. F1: half of itself (Z. C. Lipton and others, 2014). Profit: where a
    loan's expected gain is its expected loss."""
    random = np.random.default_rng(5)
    probability = random.beta(1, 3, 400_000)
    outcome = (random.random(400_000) < probability).astype(np.int64)
    assert youden(outcome, probability) == pytest.approx(0.25, abs=0.02)
    best = best_f1(outcome, probability)
    assert best == pytest.approx(f1_score(outcome, probability >= best) / 2, abs=0.015)
    gain, loss = 0.165, 0.6
    money = np.where(outcome == 1, -loss, gain)
    assert most_profitable(money, probability) == pytest.approx(gain / (gain + loss), abs=0.02)


def test_profit_approves_everybody_who_pays_and_nobody_who_costs() -> None:
    probability = np.array([0.1, 0.2, 0.2, 0.4])
    assert most_profitable(np.array([5.0, 1.0, 1.0, 2.0]), probability) == 1.0
    assert most_profitable(np.array([-5.0, -1.0, -1.0, -2.0]), probability) == 0.1
    # Loans of one probability are approved together or not at all.
    assert most_profitable(np.array([5.0, 9.0, -10.0, -1.0]), probability) == 0.2


def test_the_contract_says_which_threshold(scores: tuple[np.ndarray, np.ndarray]) -> None:
    outcome, probability = scores
    money = np.where(outcome == 1, -0.6, 0.165)
    chosen = {"f1": best_f1(outcome, probability), "profit": most_profitable(money, probability)}
    for name, threshold in chosen.items():
        settings = PolicySettings.model_validate(
            {"threshold": name, "profit": {"amount": "amount", "rate": 0.11}}
        )
        policy = choose_policy(settings, outcome, probability, money)
        assert policy.threshold == threshold
        assert shares(policy, probability)["refer"] == pytest.approx(0.1, abs=0.005)
    assert len({*chosen.values(), youden(outcome, probability)}) == 3
    with pytest.raises(TrainingError, match="materialize raw_loans again, or choose another"):
        choose_policy(settings, outcome, probability)


def shares(policy: Policy, probability: np.ndarray) -> dict[str, float]:
    decided = policy.decide(probability)
    return {name: float((decided == name).mean()) for name in ("approve", "refer", "decline")}


@pytest.mark.parametrize("referred", [0.0, 0.1, 0.3])
def test_approval_rate_approves_that_share_whatever_is_referred(
    scores: tuple[np.ndarray, np.ndarray], referred: float
) -> None:
    settings = PolicySettings(threshold="approval_rate", approval_rate=0.7, refer_share=referred)
    policy = choose_policy(settings, *scores)
    found = shares(policy, scores[1])
    assert found["approve"] == pytest.approx(0.7, abs=0.003)
    assert found["refer"] == pytest.approx(referred, abs=0.005)
    in_refer = policy.label(scores[1])[policy.decide(scores[1]) == "refer"]
    if referred:
        assert in_refer.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("bad_rate", [0.005, 0.03, 0.25])
def test_a_book_of_any_bad_rate_keeps_an_approve_band(bad_rate: float) -> None:
    random = np.random.default_rng(1)
    logit = random.normal(np.log(bad_rate / (1 - bad_rate)), 1, 20_000)
    probability = 1 / (1 + np.exp(-logit))
    outcome = (random.random(20_000) < probability).astype(np.int64)
    policy = choose_policy(PolicySettings(), outcome, probability)
    assert policy.threshold == youden(outcome, probability)
    found = shares(policy, probability)
    assert found["approve"] > 0.4
    assert found["decline"] > 0.1
    assert found["refer"] == pytest.approx(0.1, abs=0.001)
    referred = policy.decide(probability) == "refer"
    assert policy.label(probability)[referred].mean() == pytest.approx(0.5, abs=0.01)


def test_equal_probabilities_stay_together_and_the_nearest_share_is_taken() -> None:
    probability = np.repeat([0.01, 0.02, 0.3], [75, 15, 10])
    outcome = np.zeros(100, dtype=np.int64)
    settings = PolicySettings(threshold="approval_rate", approval_rate=0.8, refer_share=0.1)
    policy = choose_policy(settings, outcome, probability)
    assert shares(policy, probability) == {"approve": 0.75, "refer": 0.15, "decline": 0.1}


def test_bands_of_the_contract_are_taken_as_they_are(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    bands = Bands(approve=(0, 0.2), refer=(0.2, 0.5), decline=(0.5, 1))
    policy = choose_policy(PolicySettings(bands=bands), *scores)
    assert policy.decide(np.array([0.1, 0.2, 0.49, 0.5, 1])).tolist() == [
        "approve",
        "refer",
        "refer",
        "decline",
        "decline",
    ]
    assert policy.threshold == 0.5


def test_more_than_all_applications_cannot_be_approved_and_referred() -> None:
    settings = {"threshold": "approval_rate", "approval_rate": 0.95, "refer_share": 0.1}
    with pytest.raises(ValidationError, match=r"0.95 approved and 0.1 referred are more than all"):
        home_loans.contract(policy=settings)
    home_loans.contract(policy=settings | {"refer_share": 0.05})
    home_loans.contract(policy=settings | {"threshold": "youden"})
