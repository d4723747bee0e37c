from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loan_platform.model.policy import Policy

probabilities = st.floats(0, 1)


@given(st.tuples(probabilities, probabilities, probabilities), probabilities)
def test_each_probability_gets_the_band_it_lies_in(
    edges: tuple[float, float, float], p: float
) -> None:
    low, t, high = sorted(edges)
    policy = Policy.banded(t, low, high)
    decided, label = policy.decide(np.array([p]))[0], policy.label(np.array([p]))[0]
    assert decided == ("approve" if p < low else "refer" if p < high else "decline")
    assert label == (p >= t)


def test_a_lower_end_belongs_to_its_band_and_one_is_declined() -> None:
    policy = Policy(threshold=0.5, approve=(0, 0.2), refer=(0.2, 0.5), decline=(0.5, 1))
    decided = policy.decide(np.array([0.0, 0.2, 0.5, 1.0])).tolist()
    assert decided == ["approve", "refer", "decline", "decline"]


@pytest.mark.parametrize(
    ("approve", "refer", "decline"),
    [
        ((0, 0.2), (0.3, 0.5), (0.5, 1)),
        ((0, 0.3), (0.2, 0.5), (0.5, 1)),
        ((0.1, 0.2), (0.2, 0.5), (0.5, 1)),
        ((0, 0.6), (0.6, 0.5), (0.5, 1)),
    ],
)
def test_gaps_and_overlaps_are_refused(
    approve: tuple[float, float], refer: tuple[float, float], decline: tuple[float, float]
) -> None:
    with pytest.raises(ValidationError, match="do not cover 0 to 1 in turn"):
        Policy(threshold=0.5, approve=approve, refer=refer, decline=decline)


def test_the_hash_is_of_what_it_decides() -> None:
    policy = Policy.banded(0.3, 0.25, 0.35)
    assert policy.policy_hash == Policy.model_validate_json(policy.model_dump_json()).policy_hash
    assert len(policy.policy_hash) == 12
    assert policy.policy_hash != Policy.banded(0.3, 0.25, 0.36).policy_hash
