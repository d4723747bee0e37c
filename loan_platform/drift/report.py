"""The verdict on one partition: rule E of docs/drift.md, and what people see of it.

Here: which tests decide, at which level; the report, its sentences, table and picture; the
profile of a baseline. Everything is computed from counts.
Not here: counting (`counts`), the tests themselves (`statistics`), checks and alerts made of the
verdict (`components`, `alerts`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from loan_platform.drift import statistics
from loan_platform.drift.counts import (
    Bins,
    CategoryBins,
    Group,
    NumericBins,
    by_feature,
    decision_bins,
    merge,
    readable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loan_platform.contract import Contract

Severity = Literal["none", "notice", "warn", "alert"]
Question = Literal["distribution", "missing", "unseen", "out_of_range", "vanished", "constant"]

WARN, ALERT = 0.1, 0.2
NOTEWORTHY = 0.01  # p of the rank test below which a sentence speaks of the median
MOST_BARS = 14  # of a category with many values, the picture shows those that moved most
WIDTH, LETTER = 12, 0.062  # inches of the picture, and of a letter of a label in it
MOST_LETTERS = 28  # of a label; of longer ones the picture shows the beginning
COLOURS = {"none": "#9aa5b1", "notice": "#4c78a8", "warn": "#e0912f", "alert": "#c8372d"}


class Finding(BaseModel):
    """One test of one feature. `q` is `p` after Benjamini-Hochberg over all tests of the report.

    `alarm`: significant, and (only for `distribution`) not below the PSI floor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    p: float
    q: float
    alarm: bool


class BinShare(BaseModel):
    """One decision bin: rows on both sides and its part of the raw PSI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    place: Literal["below", "inside", "above", "category", "unseen", "missing"]
    baseline: int
    current: int
    psi: float


class FeatureDrift(BaseModel):
    """How one model input differs from the baseline.

    `psi` is corrected for its bias (what decides and is shown), `psi_raw` is not. `ks` and `js`
    are for reading only. `p_rank` is None for a category. Shares lie in [0, 1]; `unseen` is the
    share of categories the baseline does not have, `out_of_range` that outside the fitted values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    drifted: bool
    severity: Severity
    psi: float
    psi_raw: float
    ks: float
    js: float
    p_chi2: float
    p_rank: float | None
    findings: tuple[Finding, ...]
    missing: float
    missing_baseline: float
    unseen: float | None
    out_of_range: float | None
    bins: tuple[BinShare, ...]
    sentence: str

    def explanation(self, most: int = 3) -> tuple[BinShare, ...]:
        """The decision bins that contribute most to the PSI, largest first."""
        ranked = sorted(self.bins, key=lambda share: share.psi, reverse=True)
        return tuple(share for share in ranked[:most] if share.psi > 0)


class DriftReport(BaseModel):
    """The comparison of one partition with the baseline.

    `enough`: both sides have at least `minimum_rows`; where not, nothing has drifted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    portfolio: str
    partition: str
    bins_hash: str
    contract_hash: str
    alpha: float
    psi_floor: float
    minimum_rows: int
    baseline_rows: int
    rows: int
    enough: bool
    drifted: bool
    summary: str
    features: tuple[FeatureDrift, ...]
    leaks_accepted: dict[str, str] = {}

    @property
    def by_severity(self) -> list[FeatureDrift]:
        """All features, drifted ones first, then by PSI."""
        return sorted(self.features, key=lambda one: (one.drifted, one.psi), reverse=True)

    def to_markdown(self) -> str:
        """A table people can read, most drifted features first."""
        lines = [
            self.summary,
            *(
                f"{name} is used although it leaks: {reason}"
                for name, reason in self.leaks_accepted.items()
            ),
            "",
            "| feature | verdict | PSI | p (chi2) | p (rank) | missing | outside | what moved |",
            "|---|---|---:|---:|---:|---:|---:|---|",
        ]
        for one in self.by_severity:
            outside = one.out_of_range if one.unseen is None else one.unseen
            cells = (
                one.feature,
                f"**{one.severity}**" if one.drifted else "ok",
                f"{one.psi:.3f}",
                _p(one.p_chi2),
                "" if one.p_rank is None else _p(one.p_rank),
                _share(one.missing),
                _share(outside or 0.0),
                one.sentence if one.drifted else "",
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines)


def compare(
    contract: Contract, bins: Bins, baseline: pa.Table, current: pa.Table, partition: str
) -> DriftReport:
    """Compare the counts of a partition with the counts of the baseline, by rule E.

    Both tables come from `counts.count` or `counts.total` with `bins`.

    Raises:
        CountsError: the counts were made with other bins.
    """
    settings = contract.drift
    groups = decision_bins(contract, bins, baseline)
    first, second = by_feature(bins, baseline), by_feature(bins, current)
    sides = [
        _Sides(feature, groups[feature.feature], first[feature.feature], second[feature.feature])
        for feature in bins.features
    ]
    baseline_rows, rows = sides[0].first_rows, sides[0].second_rows
    enough = min(baseline_rows, rows) >= settings.minimum_rows
    asked = [
        (index, question, p) for index, side in enumerate(sides) for question, p in side.tests()
    ]
    adjusted = statistics.benjamini_hochberg(np.array([p for _, _, p in asked]))
    findings: list[list[Finding]] = [[] for _ in sides]
    for (index, question, p), q in zip(asked, adjusted, strict=True):
        material = question != "distribution" or sides[index].psi >= settings.psi_floor
        alarm = enough and bool(q <= settings.alpha) and material
        findings[index].append(Finding(question=question, p=p, q=float(q), alarm=alarm))
    features = tuple(side.drift(found) for side, found in zip(sides, findings, strict=True))
    return DriftReport(
        portfolio=contract.name,
        partition=partition,
        bins_hash=bins.bins_hash,
        contract_hash=contract.contract_hash,
        alpha=settings.alpha,
        psi_floor=settings.psi_floor,
        minimum_rows=settings.minimum_rows,
        baseline_rows=baseline_rows,
        rows=rows,
        enough=enough,
        drifted=any(feature.drifted for feature in features),
        summary=_summary(partition, features, baseline_rows, rows, settings.minimum_rows),
        features=features,
        leaks_accepted=contract.leaks_accepted,
    )


class _Sides:
    """One feature's counts in the baseline and in the partition, and the questions put to them."""

    def __init__(
        self,
        feature: NumericBins | CategoryBins,
        groups: tuple[Group, ...],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
    ) -> None:
        self.feature = feature
        self.groups = groups
        self.first, self.second = first, second
        self.first_rows, self.second_rows = int(first.sum()), int(second.sum())
        self.merged = merge(groups, first), merge(groups, second)
        self.psi = statistics.psi_corrected(*self.merged)
        self.p_chi2 = statistics.chi_square(*self.merged)[1]
        self.p_rank = (
            statistics.rank_test(first[:-1], second[:-1])[1]
            if isinstance(feature, NumericBins)
            else None
        )
        places = np.array([cell.place for cell in feature.cells()])
        self.missing = places == "missing"
        self.outside = (places == "below") | (places == "above")
        # A listed category the baseline never had is as new to the champion as an unlisted one.
        self.new = (places == "unseen") | ((places == "category") & (first == 0))

    def tests(self) -> list[tuple[Question, float]]:
        """The questions and their p-values. One whose margin is empty on both sides is not asked:
        it could not have come out (Tarone 1990), and would only weaken the others."""
        several = [p for p in (self.p_chi2, self.p_rank) if p is not None]
        asked: list[tuple[Question, float]] = [
            ("distribution", min(1.0, min(several) * len(several)))
        ]
        marked: list[tuple[Question, NDArray[np.bool_]]] = [("missing", self.missing)]
        if isinstance(self.feature, NumericBins):
            asked.append(("constant", self._constant()))
            marked.append(("out_of_range", self.outside))
        else:
            asked.append(("vanished", self._vanished()))
            marked.append(("unseen", self.new))
        for question, where in marked:
            before, now = int(self.first[where].sum()), int(self.second[where].sum())
            if before + now:
                p = statistics.increase(before, self.first_rows, now, self.second_rows)
                asked.append((question, p))
        return asked

    def drift(self, findings: list[Finding]) -> FeatureDrift:
        drifted = any(finding.alarm for finding in findings)
        numeric = isinstance(self.feature, NumericBins)
        contributions = statistics.psi_contributions(*self.merged)
        shares = tuple(
            BinShare(
                label=group.label,
                place=group.place,
                baseline=int(before),
                current=int(now),
                psi=part,
            )
            for group, before, now, part in zip(
                self.groups, *self.merged, contributions.tolist(), strict=True
            )
        )
        return FeatureDrift(
            feature=self.feature.feature,
            drifted=drifted,
            severity=_severity(self.psi) if drifted else "none",
            psi=self.psi,
            psi_raw=float(contributions.sum()),
            ks=statistics.kolmogorov_smirnov(self.first[:-1], self.second[:-1]) if numeric else 0.0,
            js=statistics.jensen_shannon(*self.merged),
            p_chi2=self.p_chi2,
            p_rank=self.p_rank,
            findings=tuple(findings),
            missing=self._share_now(self.missing),
            missing_baseline=self._share_before(self.missing),
            unseen=None if numeric else self._share_now(self.new),
            out_of_range=self._share_now(self.outside) if numeric else None,
            bins=shares,
            sentence=self._sentence(findings, shares),
        )

    def _constant(self) -> float:
        """p of finding all present values in one fine cell, where the baseline has several."""
        before, now = self.first[:-1], self.second[:-1]
        if (now > 0).sum() != 1 or (before > 0).sum() <= 1:
            return 1.0
        cell = int(np.argmax(now))
        return statistics.absence(
            int(before.sum() - before[cell]), int(before.sum()), int(now.sum())
        )

    def _vanished(self) -> float:
        """p of finding none of some category, times the number of categories asked about."""
        before, now = self.first[:-1], self.second[:-1]
        had = before > 0
        gone = [
            statistics.absence(int(rows), int(before.sum()), int(now.sum()))
            for rows in before[had & (now == 0)]
        ]
        return min(1.0, min(gone) * int(had.sum())) if gone else 1.0

    def _share_before(self, where: NDArray[np.bool_]) -> float:
        return int(self.first[where].sum()) / max(self.first_rows, 1)

    def _share_now(self, where: NDArray[np.bool_]) -> float:
        return int(self.second[where].sum()) / max(self.second_rows, 1)

    def _moved_along(self) -> bool:
        return self.p_rank is not None and self.p_rank < NOTEWORTHY

    def _sentence(self, findings: list[Finding], shares: Sequence[BinShare]) -> str:
        """What moved, in words; the alarms' own facts first."""
        name = self.feature.feature
        alarms = {finding.question for finding in findings if finding.alarm}
        facts = []
        if alarms & {"missing"}:
            before, now = self._share_before(self.missing), self._share_now(self.missing)
            word = "all values are missing" if now == 1 else f"missing {_from_to(before, now)}"
            facts.append(word)
        if alarms & {"out_of_range"}:
            before, now = self._share_before(self.outside), self._share_now(self.outside)
            facts.append(f"outside the fitted range {_from_to(before, now)}")
        if alarms & {"unseen"}:
            before, now = self._share_before(self.new), self._share_now(self.new)
            facts.append(f"categories new to the champion {_from_to(before, now)}")
        if alarms & {"vanished"}:
            gone = [
                s.label for s in shares if s.place == "category" and s.baseline and not s.current
            ]
            facts.append(f"no more {', '.join(gone)}")
        if alarms & {"constant"}:
            cell = self.feature.cells()[int(np.argmax(self.second[:-1]))]
            facts.append(f"constant ({cell.label})")
        if not facts or self._moved_along():
            facts.append(self._shift(shares))
        return f"{name} {', '.join(facts)}, PSI {self.psi:.3f}"

    def _shift(self, shares: Sequence[BinShare]) -> str:
        """The move of a number's median; else, or where it stands still, the most moved bin."""
        if isinstance(self.feature, NumericBins) and self._moved_along():
            before = self.feature.quantile(self.first, 0.5)
            now = self.feature.quantile(self.second, 0.5)
            if before is not None and now is not None and before != now:
                change = f" ({(now - before) / abs(before):+.0%})" if before else ""
                return f"median {readable(before)} → {readable(now)}{change}"
        most = max(shares, key=lambda share: share.psi)
        before_share = most.baseline / max(self.first_rows, 1)
        now_share = most.current / max(self.second_rows, 1)
        return f"{most.label} {_from_to(before_share, now_share)}"


def picture(report: DriftReport, most: int = 3) -> bytes:
    """PNG of the PSI of every feature, and of the `most` drifted ones' shares before and now."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    ranked = report.by_severity
    shown = [one for one in ranked if one.drifted][:most] or ranked[:1]
    figure = Figure(figsize=(WIDTH, max(3.4, 0.26 * len(ranked) + 1)), dpi=84)
    canvas = FigureCanvasAgg(figure)
    bars = [_bars(one) for one in shown]
    labels = [[one.feature for one in ranked], *([bar.label for bar in one] for one in bars)]
    panels = _panels(
        figure, [max((len(_begun(label)) for label in side), default=0) for side in labels]
    )
    figure.suptitle(_headline(report), fontsize=11, ha="left", x=0.01)
    _draw_psi(panels[0], ranked, report.psi_floor)
    for axes, one, its_bars in zip(panels[1:], shown, bars, strict=True):
        _draw_shares(axes, one, its_bars)
    figure.legend(
        *panels[1].get_legend_handles_labels(),
        loc="upper right",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    target = io.BytesIO()
    # 64 colours are plenty, and a third of the bytes: this is stored with every report.
    image = Image.fromarray(pixels).convert("RGB").quantize(64)
    image.save(target, format="png", optimize=True)
    return target.getvalue()


def baseline_profile(contract: Contract, bins: Bins, baseline: pa.Table) -> str:
    """Markdown tables of a baseline: missing share and quantiles or category shares."""
    counts = by_feature(bins, baseline)
    units = {column.name: column.unit for column in contract.columns}
    units |= {name: feature.unit for name, feature in contract.features.items()}
    rows = int(next(iter(counts.values())).sum())
    lines = [
        f"{rows:,} rows, bins {bins.bins_hash}",
        "",
        "| feature | unit | missing | 5 % | 25 % | median | 75 % | 95 % | fitted range |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    shares = ["", "| category | missing | shares |", "|---|---:|---|"]
    for feature in bins.features:
        n = counts[feature.feature]
        missing = _share(int(n[-1]) / max(rows, 1))
        if isinstance(feature, NumericBins):
            at = [feature.quantile(n, probability) for probability in (0.05, 0.25, 0.5, 0.75, 0.95)]
            quantiles = " | ".join("" if value is None else readable(value) for value in at)
            fitted = (
                ""
                if feature.low is None
                else f"{readable(feature.low)} to {readable(feature.edges[-1])}"
            )
            unit = units.get(feature.feature) or ""
            lines.append(f"| {feature.feature} | {unit} | {missing} | {quantiles} | {fitted} |")
        else:
            listed = sorted(
                zip((*feature.categories, "unseen"), n[:-1].tolist(), strict=True),
                key=lambda pair: -pair[1],
            )
            text = ", ".join(
                f"{label} {_share(part / max(rows, 1))}" for label, part in listed if part
            )
            shares.append(f"| {feature.feature} | {missing} | {text} |")
    return "\n".join(lines + (shares if len(shares) > 3 else []))


def _draw_psi(axes: Axes, ranked: Sequence[FeatureDrift], floor: float) -> None:
    limit = 0.3  # the bands people know lie below; longer bars are cut and say their value
    widths = [min(max(one.psi, 0.0), limit) for one in ranked]
    at = range(len(ranked))
    axes.barh(at, widths, color=[COLOURS[one.severity] for one in ranked], height=0.7)
    for row, (one, width) in enumerate(zip(ranked, widths, strict=True)):
        axes.text(width + 0.004, row, f"{max(one.psi, 0.0):.3f}", va="center", fontsize=7)
    for line in (floor, WARN, ALERT):
        axes.axvline(line, color="#c3cad2", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlim(0, limit * 1.18)
    axes.set_xticks([floor, WARN, ALERT], [f"{tick:g}" for tick in (floor, WARN, ALERT)])
    axes.set_yticks(at, [_begun(one.feature) for one in ranked])
    axes.invert_yaxis()
    axes.set_title("PSI, bias-corrected", fontsize=9, loc="left")
    _tidy(axes)


def _begun(label: str) -> str:
    return label if len(label) <= MOST_LETTERS else f"{label[: MOST_LETTERS - 1]}…"


def _panels(figure: Figure, letters: Sequence[int]) -> list[Axes]:
    """Axes side by side, each begun as far right as the letters of its longest label need.

    Counted, since matplotlib's own layout draws everything twice to measure it.
    """
    height = figure.get_figheight()
    margins = [0.25 + LETTER * longest for longest in letters]
    ratios = [1.3, *([1.0] * (len(letters) - 1))]
    inch = (WIDTH - 0.1 - sum(margins)) / sum(ratios)
    panels, left = [], 0.0
    for margin, ratio in zip(margins, ratios, strict=True):
        left += margin
        place = (left / WIDTH, 0.5 / height, ratio * inch / WIDTH, (height - 1.1) / height)
        panels.append(figure.add_axes(place))
        left += ratio * inch
    return panels


def _bars(one: FeatureDrift) -> list[BinShare]:
    most = {share.label for share in one.explanation(MOST_BARS)}
    occupied = [share for share in one.bins if share.baseline or share.current]
    return [s for s in occupied if len(occupied) <= MOST_BARS or s.label in most]


def _draw_shares(axes: Axes, one: FeatureDrift, shown: Sequence[BinShare]) -> None:
    at = np.arange(len(shown))
    for offset, side, colour in ((-0.2, "baseline", "#9aa5b1"), (0.2, "current", "#1f4e79")):
        rows = np.array([getattr(share, side) for share in shown])
        total = max(sum(getattr(share, side) for share in one.bins), 1)
        axes.barh(at + offset, 100 * rows / total, height=0.4, color=colour, label=side)
    axes.set_yticks(at, [_begun(share.label) for share in shown])
    axes.invert_yaxis()
    axes.set_title(one.feature, fontsize=9, loc="left")
    axes.set_xlabel("% of rows", fontsize=7)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _headline(report: DriftReport) -> str:
    drifted = sum(one.drifted for one in report.features)
    verdict = (
        f"{drifted} of {len(report.features)} features drifted"
        if report.enough
        else "not enough rows to judge"
    )
    return (
        f"{report.portfolio} {report.partition}: {verdict} "
        f"({report.rows:,} rows against {report.baseline_rows:,})"
    )


def _summary(
    partition: str, features: Sequence[FeatureDrift], baseline_rows: int, rows: int, least: int
) -> str:
    against = f"{rows:,} rows against {baseline_rows:,}"
    if min(rows, baseline_rows) < least:
        needed = f"{against}; {least:,} needed on both sides"
        return f"{partition}: not enough data to judge drift ({needed})."
    drifted = sorted((one for one in features if one.drifted), key=lambda one: -one.psi)
    if not drifted:
        most = max(features, key=lambda one: one.psi)
        largest = f"largest PSI {max(most.psi, 0):.3f}, {most.feature}"
        return f"{partition}: none of {len(features)} features drifted ({against}; {largest})."
    named = "; ".join(f"{one.sentence} ({one.severity})" for one in drifted[:3])
    more = f"; and {len(drifted) - 3} more" if len(drifted) > 3 else ""
    found = f"{len(drifted)} of {len(features)} features drifted"
    return f"{partition}: {found} ({against}): {named}{more}."


def _severity(psi: float) -> Severity:
    return "alert" if psi >= ALERT else "warn" if psi >= WARN else "notice"


def _share(share: float) -> str:
    return f"{share:.1%}" if share == 0 or share >= 0.0005 else "<0.1%"


def _from_to(before: float, now: float) -> str:
    return f"{_share(before)} → {_share(now)}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
