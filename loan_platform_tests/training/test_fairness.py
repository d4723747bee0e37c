from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from loan_platform.contract import Contract
from loan_platform.contract.settings import Fairness
from loan_platform.model.policy import Policy
from loan_platform.training.fairness import Attribute, Group, _intervals, compare_groups, refusals
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import made_rows

POLICY = Policy.banded(0.5, 0.3, 0.6)


def with_column(**changes: Any) -> Contract:
    """The contract with a protected column `protected`, and no other."""
    contract = home_loans.contract()
    column = contract.column("sex").model_copy(update={"name": "protected", **changes})
    others = [one for one in contract.columns if one.name != "sex"]
    return contract.model_copy(update={"columns": [*others, column]})


def compared(
    contract: Contract,
    values: np.ndarray,
    probability: np.ndarray,
    outcome: np.ndarray,
    policy: Policy = POLICY,
) -> Attribute:
    rows = made_rows(
        [f"a-{n:06d}" for n in range(len(values))],
        outcome=outcome,
        beside={"protected": values},
    )
    (found,) = compare_groups(contract, rows, probability, policy, confidence=0.95, seed=3)
    return found


def drawn(shares: dict[str, float], rows: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Values, probabilities and outcomes: each group is approved in about this share."""
    random = np.random.default_rng(seed)
    values = np.repeat(np.array(list(shares), dtype=object), rows)
    approved = random.random(len(values)) < np.repeat(list(shares.values()), rows)
    probability = np.where(approved, 0.3 * random.random(len(values)), 0.3 + 0.7 * random.random())
    return values, probability, (random.random(len(values)) < probability).astype(np.int64)


def test_the_figures_of_a_group_are_those_counted_by_hand() -> None:
    values, probability, outcome = drawn({"f": 0.7, "m": 0.5}, 400)
    values[:60] = None
    found = compared(with_column(), values, probability, outcome)
    assert [group.name for group in found.groups] == ["f", "m", "missing"]
    rates = {}
    for group in found.groups:
        mine = [
            (p, y)
            for value, p, y in zip(values, probability, outcome, strict=True)
            if (value or "missing") == group.name
        ]
        bad = [p for p, y in mine if y == 1]
        good = [p for p, y in mine if y == 0]
        rates[group.name] = sum(p < 0.3 for p, _ in mine) / len(mine)
        assert group.rows == len(mine)
        assert group.bad_rate == pytest.approx(len(bad) / len(mine))
        assert group.promised == pytest.approx(sum(p for p, _ in mine) / len(mine))
        assert group.approval_rate == pytest.approx(rates[group.name])
        assert group.true_positive_rate == pytest.approx(sum(p >= 0.5 for p in bad) / len(bad))
        assert group.false_positive_rate == pytest.approx(sum(p >= 0.5 for p in good) / len(good))
        assert group.calibration == pytest.approx(group.promised - group.bad_rate)
    # 60 rows without a value are shown and cannot be the best.
    assert [group.judged for group in found.groups] == [True, True, False]
    assert found.best == "f"
    assert [group.ratio for group in found.groups] == pytest.approx(
        [1, rates["m"] / rates["f"], rates["missing"] / rates["f"]]
    )
    assert found.demographic_parity_ratio == pytest.approx(rates["m"] / rates["f"])
    f, m = found.groups[:2]
    assert f.true_positive_rate is not None
    assert m.true_positive_rate is not None
    assert f.false_positive_rate is not None
    assert m.false_positive_rate is not None
    assert found.equalized_odds_difference == pytest.approx(
        max(
            abs(f.true_positive_rate - m.true_positive_rate),
            abs(f.false_positive_rate - m.false_positive_rate),
        )
    )


def test_the_interval_of_a_ratio_is_that_of_katz_and_of_calibration_that_of_wilson() -> None:
    values, probability, outcome = drawn({"f": 0.7, "m": 0.5}, 800)
    found = compared(with_column(), values, probability, outcome)
    f, m = found.groups
    # D. Katz and others, "Obtaining confidence intervals for the risk ratio", 1978.
    spread = 1.959964 * math.sqrt(
        (1 - f.approval_rate) / (800 * f.approval_rate)
        + (1 - m.approval_rate) / (800 * m.approval_rate)
    )
    assert m.ratio is not None
    assert m.ratio_low == pytest.approx(m.ratio * math.exp(-spread), abs=0.01)
    assert m.ratio_high == pytest.approx(m.ratio * math.exp(spread), abs=0.01)
    assert (f.ratio_low, f.ratio_high) == (1, 1)
    z, n, seen = 1.959964, m.rows, m.bad_rate
    middle = (seen + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(seen * (1 - seen) / n + z * z / (4 * n * n))
    assert m.calibration_low == pytest.approx(m.promised - middle - reach, abs=1e-6)
    assert m.calibration_high == pytest.approx(m.promised - middle + reach, abs=1e-6)


def test_however_many_groups_lie_on_the_line_few_models_are_refused() -> None:
    """Without widening the intervals together, 11 % would be."""
    random, sizes = np.random.default_rng(5), np.full(7, 500)
    refused = 0
    for book in range(120):
        shares = random.binomial(sizes, [0.7, *[0.56] * 6]) / sizes
        best = int(shares.argmax())
        _, high = _intervals(sizes, shares, best, 6, 0.95, book)
        refused += bool((np.delete(high, best) < 0.8).any())
    assert refused / 120 <= 0.05


@pytest.mark.parametrize(
    ("column", "values", "names"),
    [
        (
            {"type": "integer", "bands": [25, 40, 62]},
            [24, 25, 39, 40, 61, 62, np.nan],
            ["under 25", "25 to 39", "25 to 39", "40 to 61", "40 to 61", "62 and over", "missing"],
        ),
        (
            {"type": "number", "bands": [2.5, 10]},
            [2.4, 2.5, 9.99, 10],
            ["under 2.5", "2.5 to below 10", "2.5 to below 10", "10 and over"],
        ),
        # Without bands, quarters of the rows.
        (
            {"type": "integer", "bands": None},
            [1, 2, 3, 4],
            ["under 2", "2 to 2", "3 to 3", "4 and over"],
        ),
        ({"type": "text"}, ["b", "a", None], ["b", "a", "missing"]),
    ],
)
def test_values_fall_into_groups(
    column: dict[str, Any], values: list[Any], names: list[str]
) -> None:
    kind = np.float64 if column["type"] != "text" else object
    each = np.repeat(np.array(values, dtype=kind), 20)
    found = compared(
        with_column(categories=None, **column),
        each,
        np.tile(np.linspace(0.01, 0.9, 20), len(values)),
        np.tile([0, 1], len(values) * 10),
    )
    counted = {name: 20 * names.count(name) for name in names}
    assert {group.name: group.rows for group in found.groups} == counted


def test_a_group_that_may_tell_of_a_person_is_left_out() -> None:
    values, probability, outcome = drawn({"f": 0.7, "m": 0.5}, 200)
    values[:9] = None
    found = compared(with_column(), values, probability, outcome)
    assert [group.name for group in found.groups] == ["f", "m"]
    assert found.left_out == 9


def test_nothing_is_compared_where_nobody_is_approved_or_one_outcome_is_missing() -> None:
    values, probability, outcome = drawn({"f": 0.7, "m": 0.5}, 200)
    found = compared(with_column(), values, probability + 1e-9, outcome, Policy.banded(0.5, 0, 0.6))
    assert [group.ratio_high for group in found.groups] == [None, None]
    assert found.demographic_parity_ratio is None
    assert refusals(with_column(), [found]) == []
    outcome[values == "m"] = 0
    found = compared(with_column(), values, probability, outcome)
    assert found.groups[1].true_positive_rate is None
    assert found.equalized_odds_difference is None


def test_a_group_surely_below_the_line_is_a_refusal_that_says_what_to_do() -> None:
    values, probability, outcome = drawn({"f": 0.8, "m": 0.5}, 500)
    contract = with_column()
    found = compared(contract, values, probability, outcome)
    (sentence,) = refusals(contract, [found])
    m = found.groups[1]
    assert f"the group 'm' is approved {m.ratio:.3f} times as often as 'f'" in sentence
    assert f"({m.ratio_low:.3f} to {m.ratio_high:.3f})" in sentence
    assert "fairness.accepted.protected" in sentence

    def judged_by(**settings: Any) -> list[str]:
        other = contract.model_copy(update={"fairness": Fairness(**settings)})
        return refusals(other, [compared(other, values, probability, outcome)])

    assert judged_by(accepted={"protected": "a reason"}) == []
    assert judged_by(gate="report") == []
    assert judged_by(minimum_ratio=0.6) == []
    assert judged_by(minimum_rows=501) == []
    assert judged_by(minimum_rows=500) == [sentence]


def test_a_group_that_chance_may_have_put_below_the_line_is_no_refusal() -> None:
    values, probability, outcome = drawn({"f": 0.7, "m": 0.53}, 150)
    found = compared(with_column(), values, probability, outcome)
    m: Group = found.groups[1]
    assert m.ratio is not None
    assert m.ratio_high is not None
    assert m.ratio < 0.8 < m.ratio_high
    assert refusals(with_column(), [found]) == []
