from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_curve

from loan_platform.contract.settings import Bands, PolicySettings
from loan_platform.model.policy import Policy
from loan_platform.training.threshold import choose_policy, youden
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
