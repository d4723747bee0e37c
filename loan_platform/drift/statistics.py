"""Measures and tests of the difference between two count vectors over the same cells.

Here: pure functions of counts. `first` is the baseline, `second` the current rows; both are
integer vectors of one length. p-values are of the null hypothesis that both were drawn from one
population. With no rows on a side nothing can be said: distances are 0 and p-values 1.
Not here: which of them decides, and at which level (`report`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Floats = NDArray[np.float64]

LEAST_EXPECTED = 5.0


def psi_contributions(first: Counts, second: Counts) -> Floats:
    """Each cell's part of the population stability index.

    PSI = sum (q - p) ln(q / p), the symmetrised Kullback-Leibler divergence. Half a row is added
    to every occupied cell on both sides (Jeffreys), so a cell empty on one side stays finite; a
    cell empty on both contributes nothing.
    """
    used = (first + second) > 0
    result = np.zeros(len(first))
    if first.sum() == 0 or second.sum() == 0:
        return result
    p, q = ((side[used] + 0.5) / (side.sum() + 0.5 * used.sum()) for side in (first, second))
    result[used] = (q - p) * np.log(q / p)
    return result


def psi(first: Counts, second: Counts) -> float:
    """Population stability index, raw: it grows as samples get smaller, shift or no shift."""
    return float(psi_contributions(first, second).sum())


def psi_bias(first: Counts, second: Counts) -> float:
    """What PSI comes to on average when nothing moved: (B - 1)(1/n + 1/m) over B occupied cells.

    Yurdakul & Naranjo (2020), Statistical properties of the population stability index: under no
    shift PSI is about (1/n + 1/m) times a chi-square with B - 1 degrees of freedom.
    """
    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return 0.0
    occupied = int(((first + second) > 0).sum())
    return (occupied - 1) * (1 / n + 1 / m)


def psi_corrected(first: Counts, second: Counts) -> float:
    """PSI less its expectation under no shift; may be slightly negative."""
    return psi(first, second) - psi_bias(first, second)


def pooled(first: Counts, second: Counts) -> tuple[Counts, Counts]:
    """Both vectors with the rarest cells put together until each expects 5 rows on both sides.

    Which cells are pooled depends on their totals alone, so it favours neither side.
    """
    both = first + second
    smaller = min(first.sum(), second.sum())
    if smaller == 0:
        return first[:0], second[:0]
    least = LEAST_EXPECTED * both.sum() / smaller
    small = both < least
    if small.any() and both[small].sum() < least and not small.all():
        small[np.argmin(np.where(small, np.iinfo(np.int64).max, both))] = True
    if not small.any():
        return first, second
    return (
        np.append(first[~small], first[small].sum()),
        np.append(second[~small], second[small].sum()),
    )


def chi_square(first: Counts, second: Counts) -> tuple[float, float]:
    """Two-sample chi-square on pooled cells: (statistic, p). One cell left: (0, 1)."""
    from scipy.special import chdtrc

    first, second = pooled(first, second)
    if len(first) < 2:
        return 0.0, 1.0
    n, m = first.sum(), second.sum()
    share = (first + second) / (n + m)
    statistic = float(
        ((first - n * share) ** 2 / (n * share)).sum()
        + ((second - m * share) ** 2 / (m * share)).sum()
    )
    return statistic, float(chdtrc(len(first) - 1, statistic))


def rank_test(first: Counts, second: Counts) -> tuple[float, float]:
    """Mann-Whitney test on ordered cells: (z, two-sided p), z > 0 where `second` lies higher.

    Normal approximation with tie and continuity correction; rows of one cell are ties.
    """
    from scipy.special import ndtr

    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return 0.0, 1.0
    ties = (first + second).astype(float)
    rows = n + m
    ranks = np.cumsum(ties) - (ties - 1) / 2
    u = float((second * ranks).sum()) - m * (m + 1) / 2
    variance = n * m / 12 * (rows + 1 - float((ties**3 - ties).sum()) / (rows * (rows - 1)))
    if variance <= 0:
        return 0.0, 1.0
    deviation = u - n * m / 2
    z = float(np.sign(deviation) * max(abs(deviation) - 0.5, 0.0) / np.sqrt(variance))
    return z, float(min(1.0, 2 * ndtr(-abs(z))))


def increase(first: int, first_rows: int, second: int, second_rows: int) -> float:
    """One-sided p that a share rose: `second` or more of the marked rows fall on the second side.

    Hypergeometric, given the number of marked rows altogether (Fisher's exact test, greater).
    """
    from scipy.stats import hypergeom

    marked = first + second
    if second_rows == 0 or marked == 0:
        return 1.0
    return float(
        np.clip(hypergeom.sf(second - 1, first_rows + second_rows, marked, second_rows), 0, 1)
    )


def absence(first: int, first_rows: int, second_rows: int) -> float:
    """One-sided p that none of `first` marked rows falls on the second side (hypergeometric)."""
    from scipy.stats import hypergeom

    if first == 0 or second_rows == 0:
        return 1.0
    return float(np.clip(hypergeom.pmf(0, first_rows + second_rows, first, second_rows), 0, 1))


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted p-values: those at most alpha are a set with false discovery rate alpha.

    Benjamini & Hochberg (1995), Controlling the false discovery rate, J. R. Stat. Soc. B 57.
    """
    p = np.asarray(p_values, dtype=float)
    if len(p) == 0:
        return p
    order = np.argsort(p)
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    result = np.empty_like(p)
    result[order] = np.minimum.accumulate(stepped[::-1])[::-1].clip(max=1.0)
    return result


def kolmogorov_smirnov(first: Counts, second: Counts) -> float:
    """Largest distance of the distribution functions at the cells' ends.

    A lower bound of the exact statistic, which may lie inside a cell.
    """
    n, m = first.sum(), second.sum()
    if n == 0 or m == 0:
        return 0.0
    return float(np.abs(np.cumsum(first) / n - np.cumsum(second) / m).max())


def jensen_shannon(first: Counts, second: Counts) -> float:
    """Jensen-Shannon distance in base 2: 0 for equal shares, 1 for none in common."""
    n, m = first.sum(), second.sum()
    if n == 0 or m == 0:
        return 0.0
    p, q = first / n, second / m
    middle = (p + q) / 2

    def divergence(side: Floats) -> float:
        used = side > 0
        return float((side[used] * np.log2(side[used] / middle[used])).sum())

    return float(np.sqrt(max((divergence(p) + divergence(q)) / 2, 0.0)))
