"""The figures from which a stand-in for a book can be drawn: of all loans, never of one.

Here: the `simulation:` section of a proposed contract. Not here: drawing (`ingest.simulate`).

So that nobody can be found in them: a quantile has at least `CROWD` loans beyond it on either
side, else the next one inwards stands in for it (so there is no lowest and no highest value);
figures are rounded to a hundredth of the spread or so; a category of fewer than `CROWD` loans is
written as if it had `CROWD`.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from loan_platform.ingest.profile import PROBABILITIES, ColumnProfile, Profile, Share
from loan_platform.proposal.entries import Entry
from loan_platform.proposal.guesses import TimeGuess

CROWD = 10
FEWEST_ROWS = 200
WEAKEST_TIE = 0.15
STRONGEST_TIE = 0.98
DRAWN_ROLES = ("feature", "input", "protected", "measure")

Figures = dict[str, Any]


def simulation_section(
    profile: Profile, entries: Mapping[str, Entry], time: TimeGuess
) -> Figures | None:
    """`rows`, `bad_rate` and `columns`; None for a book too small to say anything of a crowd."""
    good, bad = profile.known - profile.known_bad, profile.known_bad
    if profile.rows < FEWEST_ROWS or min(good, bad) < 3 * CROWD:
        return None
    columns: dict[str, Figures] = {}
    if time.column:
        days = time.months * 28
        columns[time.column] = {"sql": f"DATE '{time.first}' + CAST(_row % {days} AS INTEGER)"}
    drawn: list[str] = []
    for name, entry in entries.items():
        if entry.get("role", "feature") not in DRAWN_ROLES:
            continue
        column = profile.column(name)
        figures = _figures(column, entry, time, good, bad)
        if missing := min(round(column.missing / profile.rows, 4), 0.999):
            figures["missing"] = missing
        if column.quantiles and (tie := _tie(profile, name, drawn)):
            figures["rank_with"] = dict([tie])
        if "good" in figures and column.quantiles:
            drawn.append(name)
        columns[name] = figures
    return {
        "rows": profile.rows,
        "bad_rate": min(max(round(bad / profile.known, 4), 0.0001), 0.9999),
        "columns": columns,
    }


def _figures(column: ColumnProfile, entry: Entry, time: TimeGuess, good: int, bad: int) -> Figures:
    if entry["type"] == "date":
        return {"sql": f"{_earlier(column, time)} - CAST(_row * 37 % 3650 AS INTEGER)"}
    if entry["type"] == "category":
        return {
            "good": _shares([s.known - s.bad for s in column.categories], column.categories),
            "bad": _shares([s.bad for s in column.categories], column.categories),
        }
    quantiles = {"good": column.quantiles_good, "bad": column.quantiles_bad}
    if not column.quantiles:
        quantiles = _of_spelled(column, entry["values"])
    whole = entry["type"] == "integer"
    return {
        "good": _quantiles(column, quantiles["good"], good, whole, entry["range"]),
        "bad": _quantiles(column, quantiles["bad"], bad, whole, entry["range"]),
    }


def _of_spelled(
    column: ColumnProfile, values: Mapping[str, float | None]
) -> dict[str, tuple[float, ...]]:
    """Quantiles of spelled numbers, from how often each is there; of all where a side has none."""
    steps = sorted(
        (number, share.known - share.bad, share.bad, share.rows)
        for share in column.categories
        if (number := values[share.value]) is not None
    )
    numbers = [step[0] for step in steps]
    found = {}
    for position, side in ((1, "good"), (2, "bad")):
        counts = [step[position] for step in steps]
        counts = counts if any(counts) else [step[3] for step in steps]
        upto = list(itertools.accumulate(counts))
        found[side] = tuple(
            numbers[min(bisect.bisect_left(upto, p * upto[-1]), len(numbers) - 1)]
            for p in PROBABILITIES
        )
    return found


def _earlier(column: ColumnProfile, time: TimeGuess) -> str:
    """A day that every date of a stand-in lies before."""
    return f"DATE '{min(str(column.high)[:10], str(time.first))[:7]}-01'"


def _shares(counts: Sequence[int], categories: Sequence[Share]) -> dict[str, float]:
    crowded = [max(count, CROWD) if count else 0 for count in counts]
    if not any(crowded):  # none of this outcome has a value: as all the others
        crowded = [max(share.rows, CROWD) for share in categories]
    total = sum(crowded)
    return {
        share.value: max(round(count / total, 4), 0.0001) if count else 0.0
        for share, count in zip(categories, crowded, strict=True)
    }


def _quantiles(
    column: ColumnProfile,
    values: Sequence[float],
    rows: int,
    whole: bool,
    limits: Sequence[float],
) -> list[float]:
    if not values:  # none of this outcome has a value: as all the others
        values, rows = column.quantiles, column.rows - column.missing
    crowded = [index for index, p in enumerate(PROBABILITIES) if rows * min(p, 1 - p) >= CROWD] or [
        PROBABILITIES.index(0.5)
    ]
    inside = [values[min(max(i, crowded[0]), crowded[-1])] for i in range(len(values))]
    step = _step(inside[-1] - inside[0], abs(inside[len(inside) // 2]))
    low, high = limits
    rounded = [min(max(_rounded(value, step, whole), low), high) for value in inside]
    return [round(value) if whole else value for value in rounded]


def _step(spread: float, size: float) -> float:
    """A power of ten: a hundredth of the spread, more or less."""
    reference = spread / 50 or size / 10 or 1.0
    return 10.0 ** math.floor(math.log10(reference))


def _rounded(value: float, step: float, whole: bool) -> float:
    step = max(step, 1.0) if whole else step
    return float(f"{round(value / step) * step:.12g}")


def _tie(profile: Profile, name: str, drawn: Sequence[str]) -> tuple[str, float] | None:
    """The column drawn before that goes most with this one, and how (Gaussian copula).

    One tie a column: any such tree of ties is consistent. Spearman's rho becomes the copula's
    correlation by 2 sin(pi rho / 6) (Kruskal 1958).
    """
    ties = []
    for one, other, rho in profile.correlations:
        if name in (one, other) and (partner := other if one == name else one) in drawn:
            ties.append((partner, rho))
    if not ties:
        return None
    partner, rho = max(ties, key=lambda tie: abs(tie[1]))
    correlation = 2 * math.sin(math.pi * rho / 6)
    if abs(rho) < WEAKEST_TIE:
        return None
    return partner, round(max(min(correlation, STRONGEST_TIE), -STRONGEST_TIE), 2)
