"""How a model treats the groups of protected columns, on the rows that judge it.

The four-fifths line: a group approved less than 0.8 times as often as the best group is the usual
first sign of adverse impact (29 CFR 1607.4 D). fairlearn computes the rates of the groups; the
interval of the ratio is a bootstrap of its own, since fairlearn's resamples the whole frame and
re-chooses the best group in each resample, which makes equal small groups look unequal.

Here: the groups, their figures, and which of them a model is refused for. Not here: pictures
(`pictures`), or what a refusal does to a challenger (`registry.promotion`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Column
from loan_platform.model.policy import Policy

if TYPE_CHECKING:
    from loan_platform.training.rows import Rows

RESAMPLES = 10_000
MISSING = "missing"
# A bad rate over fewer people may tell of one of them.
LEAST_SHOWN = 10


@dataclass(frozen=True)
class Group:
    """One group of a protected column. Shares, rates and probabilities are in 0..1.

    `judged`: large enough to be the best group, and to be held against it. `ratio`: approval rate
    over that of the best group, with its interval; None where no group is judged or nobody in the
    best one is approved. `true_positive_rate`, `false_positive_rate`: share flagged at the
    threshold of the bad and of the good loans, None where there are none. `calibration`: promised
    minus observed bad rate; its interval covers 0 where the promise may be kept.
    """

    name: str
    rows: int
    judged: bool
    bad_rate: float
    promised: float
    approval_rate: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    true_positive_rate: float | None
    false_positive_rate: float | None
    calibration: float
    calibration_low: float
    calibration_high: float


@dataclass(frozen=True)
class Attribute:
    """The groups of one protected column, in the column's own order, missing last.

    `best`: the judged group approved most often. `demographic_parity_ratio`: least over largest
    approval rate of the judged groups. `equalized_odds_difference`: the larger one of the spreads
    of their true and false positive rates, over those with loans of both outcomes. None where
    fewer than two groups can be compared. `left_out`: rows in groups of fewer than ten.
    """

    column: str
    groups: list[Group]
    best: str | None
    demographic_parity_ratio: float | None
    equalized_odds_difference: float | None
    left_out: int


def compare_groups(
    contract: Contract,
    rows: Rows,
    probability: np.ndarray,
    policy: Policy,
    *,
    confidence: float,
    seed: int,
) -> list[Attribute]:
    """Compare the groups of every protected column of `contract`; `probability` has shape (n,).

    `rows.beside` holds the protected columns. The intervals of the ratios of one column hold all
    together with `confidence` (each is wider by Bonferroni's rule), and the best group is the
    same in every resample: so at most (1 - confidence) / 2 of the models that meet the line are
    refused, however many groups there are. Calibration: Wilson's interval of the observed rate.
    """
    return [
        _attribute(contract, column, rows, probability, policy, confidence, seed)
        for column in contract.protected_columns
    ]


def refusals(contract: Contract, attributes: list[Attribute]) -> list[str]:
    """Why the model may not be promoted: one sentence for each group surely below the line.

    Nothing is refused with `fairness.gate: report`, nor for the columns of `fairness.accepted`.
    """
    settings = contract.fairness
    if settings.gate != "refuse":
        return []
    return [
        f"of {attribute.column}, the group '{group.name}' is approved {group.ratio:.3f} times as "
        f"often as '{attribute.best}' ({group.ratio_low:.3f} to {group.ratio_high:.3f}), surely "
        f"less than fairness.minimum_ratio {settings.minimum_ratio:g}; take out features that "
        "stand in for it, choose another policy.threshold, or give the reason in "
        f"fairness.accepted.{attribute.column}"
        for attribute in attributes
        if attribute.column not in settings.accepted
        for group in attribute.groups
        if below(group, settings.minimum_ratio) == "surely"
    ]


def below(group: Group, minimum_ratio: float) -> str | None:
    """'surely', 'perhaps' or None: whether a judged group lies below the line."""
    if not group.judged or group.ratio is None or group.ratio_high is None:
        return None
    if group.ratio_high < minimum_ratio:
        return "surely"
    return "perhaps" if group.ratio < minimum_ratio else None


def _attribute(
    contract: Contract,
    column: Column,
    rows: Rows,
    probability: np.ndarray,
    policy: Policy,
    confidence: float,
    seed: int,
) -> Attribute:
    names, codes = grouped(column, rows.beside[column.name])
    sizes = np.bincount(codes, minlength=len(names))
    shown = np.flatnonzero(sizes >= LEAST_SHOWN)
    judged = np.flatnonzero(sizes >= max(contract.fairness.minimum_rows, LEAST_SHOWN))
    cells = _Cells.of(codes, rows.outcome, probability, policy)
    approval, found, alarmed = cells.rates(len(names))
    best = int(judged[np.argmax(approval[judged])]) if len(judged) else None
    ratio = _ratios(approval, best)
    low, high = _intervals(sizes, approval, best, len(judged) - 1, confidence, seed)

    def group(place: int) -> Group:
        outcome, promised = rows.outcome[codes == place], probability[codes == place].mean()
        seen = outcome.mean()
        seen_low, seen_high = _wilson(int(outcome.sum()), len(outcome), confidence)
        return Group(
            name=names[place],
            rows=len(outcome),
            judged=place in judged,
            bad_rate=float(seen),
            promised=float(promised),
            approval_rate=float(approval[place]),
            ratio=_known(ratio[place]),
            ratio_low=_known(low[place]),
            ratio_high=_known(high[place]),
            true_positive_rate=_known(found[place]),
            false_positive_rate=_known(alarmed[place]),
            calibration=float(promised - seen),
            calibration_low=float(promised - seen_high),
            calibration_high=float(promised - seen_low),
        )

    both = judged[np.isfinite(found[judged]) & np.isfinite(alarmed[judged])]
    return Attribute(
        column=column.name,
        groups=[group(int(place)) for place in shown],
        best=None if best is None else names[best],
        demographic_parity_ratio=cells.parity_ratio(judged),
        equalized_odds_difference=cells.odds_difference(both),
        left_out=int(sizes.sum() - sizes[shown].sum()),
    )


def grouped(column: Column, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of the groups, missing last, and for each value the place of its group."""
    if column.type in ("number", "integer"):
        present = values[np.isfinite(values)]
        # One that occurs, so that whole numbers give whole bands.
        quarters = np.quantile(present, [0.25, 0.5, 0.75], method="higher") if len(present) else []
        bands = np.unique(quarters if column.bands is None else column.bands)
        names = _band_names(bands.tolist(), whole=column.type == "integer")
        codes = np.searchsorted(bands, values, side="right")
        return [*names, MISSING], np.where(np.isnan(values), len(names), codes)
    texts = [MISSING if value is None else str(value) for value in values]
    listed = column.categories or []
    others = sorted({*texts} - {*listed, MISSING})
    names = [*listed, *others, MISSING]
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[text] for text in texts], dtype=np.int64)


def _band_names(bands: list[float], *, whole: bool) -> list[str]:
    if not bands:
        return []
    between = [
        f"{low:g} to {high - 1:g}" if whole and high == int(high) else f"{low:g} to below {high:g}"
        for low, high in itertools.pairwise(bands)
    ]
    return [f"under {bands[0]:g}", *between, f"{bands[-1]:g} and over"]


@dataclass(frozen=True)
class _Cells:
    """How many rows there are of each group, outcome, label and approval.

    fairlearn's metrics are the same for these few rows with their counts as weights as for all of
    them, in a hundredth of the time.
    """

    group: np.ndarray
    outcome: np.ndarray
    label: np.ndarray
    approved: np.ndarray
    count: np.ndarray

    @classmethod
    def of(
        cls, codes: np.ndarray, outcome: np.ndarray, probability: np.ndarray, policy: Policy
    ) -> _Cells:
        approved = policy.decide(probability) == "approve"
        every = np.stack([codes, outcome, policy.label(probability), approved])
        cells, count = np.unique(every, axis=1, return_counts=True)
        group, seen, label, passed = cells
        return cls(group, seen, label, passed, count)

    def rates(self, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Approval, true and false positive rate of each group; NaN where it has no such loans."""
        from fairlearn import metrics

        weights = {"sample_weight": self.count}
        approval = metrics.MetricFrame(
            metrics=metrics.selection_rate,
            y_true=self.outcome,
            y_pred=self.approved,
            sensitive_features=self.group,
            sample_params=weights,
        )
        flagged = metrics.MetricFrame(
            metrics={
                "found": metrics.true_positive_rate,
                "alarmed": metrics.false_positive_rate,
            },
            y_true=self.outcome,
            y_pred=self.label,
            sensitive_features=self.group,
            sample_params={"found": weights, "alarmed": weights},
        )
        every = range(groups)
        found, alarmed = (
            # fairlearn calls the rate of no loans 0.
            np.where(
                np.isin(every, self.group[self.outcome == outcome]),
                flagged.by_group[name].reindex(every),
                np.nan,
            )
            for name, outcome in (("found", 1), ("alarmed", 0))
        )
        return approval.by_group.reindex(every).to_numpy(np.float64), found, alarmed

    def parity_ratio(self, groups: np.ndarray) -> float | None:
        from fairlearn.metrics import demographic_parity_ratio

        mine = np.isin(self.group, groups)
        if len(groups) < 2 or not self.approved[mine].any():
            return None
        return float(
            demographic_parity_ratio(
                self.outcome[mine],
                self.approved[mine],
                sensitive_features=self.group[mine],
                sample_weight=self.count[mine],
            )
        )

    def odds_difference(self, groups: np.ndarray) -> float | None:
        from fairlearn.metrics import equalized_odds_difference

        if len(groups) < 2:
            return None
        mine = np.isin(self.group, groups)
        return float(
            equalized_odds_difference(
                self.outcome[mine],
                self.label[mine],
                sensitive_features=self.group[mine],
                sample_weight=self.count[mine],
            )
        )


def _ratios(approval: np.ndarray, best: int | None) -> np.ndarray:
    """Of the last axis to its entry `best`; NaN where there is none, or nobody is approved."""
    if best is None:
        return np.full(approval.shape, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = approval / approval[..., [best]]
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _intervals(
    sizes: np.ndarray,
    approval: np.ndarray,
    best: int | None,
    compared: int,
    confidence: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of each ratio, `compared` of which hold together.

    Resampled within groups: how large a group is, is no matter of the model's.
    """
    shares = np.nan_to_num(approval)
    generator = np.random.default_rng(seed)
    drawn = generator.binomial(sizes, shares, size=(RESAMPLES, len(sizes))) / np.maximum(sizes, 1)
    tail = (1 - confidence) / 2 / max(compared, 1)
    ratios = _ratios(drawn, best)
    if best is None or np.isnan(ratios).all():
        nothing = np.full(len(sizes), np.nan)
        return nothing, nothing
    low, high = np.nanquantile(ratios, [tail, 1 - tail], axis=0)
    return low, high


def _wilson(bad: int, rows: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (E. B. Wilson, "Probable inference", 1927)."""
    from scipy.stats import binomtest

    found = binomtest(bad, rows).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
