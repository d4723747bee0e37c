from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from loan_platform.contract.portfolio import Bands, PolicySettings
from loan_platform.training.threshold import choose_policy, youden


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


def test_approval_rate_leaves_that_share_below_the_threshold(
    scores: tuple[np.ndarray, np.ndarray],
) -> None:
    settings = PolicySettings(threshold="approval_rate", approval_rate=0.7, refer_margin=0)
    policy = choose_policy(settings, *scores)
    assert (policy.decide(scores[1]) == "approve").mean() == pytest.approx(0.7, abs=0.01)
    assert "refer" not in policy.decide(scores[1])


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
