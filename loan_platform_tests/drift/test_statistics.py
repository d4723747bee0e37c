"""Every statistic equals scipy's on the same data, or a value worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from loan_platform.drift import statistics

Counts = NDArray[np.int64]


@st.composite
def two_samples(draw: st.DrawFn, least: int = 2) -> tuple[Counts, Counts]:
    cells = draw(st.integers(least, 8))
    side = st.lists(st.integers(0, 60), min_size=cells, max_size=cells).filter(
        lambda counts: sum(counts) > 0
    )
    return np.array(draw(side)), np.array(draw(side))


def expand(counts: Counts) -> Counts:
    return np.repeat(np.arange(len(counts)), counts)


@given(two_samples())
@settings(deadline=None)
def test_rank_test_is_mann_whitney_of_the_expanded_rows(samples: tuple[Counts, Counts]) -> None:
    first, second = samples
    _, p = statistics.rank_test(first, second)
    if len(set(expand(first)) | set(expand(second))) == 1:
        assert p == 1.0
        return
    expected = stats.mannwhitneyu(expand(second), expand(first), method="asymptotic")
    assert p == pytest.approx(expected.pvalue, abs=1e-12)


def test_rank_test_says_which_side_lies_higher() -> None:
    low, high = np.array([50, 30, 20]), np.array([20, 30, 50])
    assert statistics.rank_test(low, high)[0] > 4
    assert statistics.rank_test(high, low)[0] < -4


@given(two_samples())
@settings(deadline=None)
def test_chi_square_is_scipys_on_the_pooled_table(samples: tuple[Counts, Counts]) -> None:
    first, second = statistics.pooled(*samples)
    statistic, p = statistics.chi_square(*samples)
    if len(first) < 2:
        assert (statistic, p) == (0.0, 1.0)
        return
    expected = stats.chi2_contingency(np.array([first, second]), correction=False)
    assert (statistic, p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)
    assert expected.expected_freq.min() >= 5 - 1e-9


@given(two_samples())
def test_pooling_keeps_every_row(samples: tuple[Counts, Counts]) -> None:
    first, second = statistics.pooled(*samples)
    assert (first.sum(), second.sum()) == (samples[0].sum(), samples[1].sum())
    assert len(first) <= len(samples[0])


@given(st.integers(0, 40), st.integers(1, 200), st.integers(0, 40), st.integers(1, 200))
@settings(deadline=None)
def test_increase_and_absence_are_fishers_exact_test(
    first: int, first_rows: int, second: int, second_rows: int
) -> None:
    first, second = min(first, first_rows), min(second, second_rows)
    table = [[second, second_rows - second], [first, first_rows - first]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    found = statistics.increase(first, first_rows, second, second_rows)
    assert found == pytest.approx(expected, rel=1e-9)
    none = stats.fisher_exact([[0, second_rows], [first, first_rows - first]], alternative="less")
    assert statistics.absence(first, first_rows, second_rows) == pytest.approx(
        none.pvalue, rel=1e-9
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    p = np.array(p_values)
    assert statistics.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(two_samples())
@settings(deadline=None)
def test_distances_are_scipys(samples: tuple[Counts, Counts]) -> None:
    first, second = samples
    ks = stats.ks_2samp(expand(first), expand(second), method="asymp").statistic
    assert statistics.kolmogorov_smirnov(first, second) == pytest.approx(ks)
    js = jensenshannon(first, second, base=2)
    assert statistics.jensen_shannon(first, second) == pytest.approx(js, abs=1e-7)


def test_psi_of_a_known_shift() -> None:
    # (0.5 - 0.3) ln(0.5 / 0.3) + (0.5 - 0.7) ln(0.5 / 0.7) = 0.169460
    first, second = np.array([500_000, 500_000]), np.array([300_000, 700_000])
    assert statistics.psi(first, second) == pytest.approx(0.169460, abs=1e-5)
    assert statistics.psi(second, first) == pytest.approx(statistics.psi(first, second))
    assert statistics.psi_corrected(first, second) == pytest.approx(0.169460 - 2e-6, abs=1e-5)


def test_psi_ignores_cells_empty_on_both_sides_and_is_finite_on_one() -> None:
    first, second = np.array([100, 100, 0]), np.array([100, 100, 0])
    assert statistics.psi(first, second) == 0
    assert statistics.psi_bias(first, second) == pytest.approx(1 * (1 / 200 + 1 / 200))
    gone = statistics.psi_contributions(np.array([100, 100, 0]), np.array([0, 100, 100]))
    assert np.isfinite(gone).all()
    assert gone.argmin() == 1


def test_corrected_psi_is_zero_on_average_when_nothing_moved() -> None:
    random = np.random.default_rng(5)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    found = [
        statistics.psi_corrected(random.multinomial(13_000, shares), random.multinomial(n, shares))
        for n in (300, 1000)
        for _ in range(1500)
    ]
    # The standard error of this mean is about 0.0001.
    assert abs(float(np.mean(found))) < 0.0005


@pytest.mark.parametrize("empty", [(True, False), (False, True), (True, True)])
def test_without_rows_nothing_is_claimed(empty: tuple[bool, bool]) -> None:
    first, second = (np.zeros(3, int) if side else np.array([5, 6, 7]) for side in empty)
    assert statistics.psi_corrected(first, second) == 0
    assert statistics.chi_square(first, second) == (0, 1)
    assert statistics.rank_test(first, second) == (0, 1)
    assert statistics.kolmogorov_smirnov(first, second) == 0
    assert statistics.jensen_shannon(first, second) == 0
    assert statistics.absence(0, int(first.sum()), int(second.sum())) == 1
    assert statistics.increase(0, int(first.sum()), 0, int(second.sum())) == 1
