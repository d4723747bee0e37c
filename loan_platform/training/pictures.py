"""Pictures of an evaluation, as small PNGs.

Here: drawing only; every number comes from `evaluate`, `fairness` or the bundle. No global
matplotlib state, and no layout engine: places are given in inches, which takes a fifth of the time.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation, calibration_bins
from loan_platform.training.fairness import Attribute, below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, GREY, INK = "#2b6cb0", "#c05621", "#a0aec0", "#1f2933"
WIDTH, DPI = 6.0, 100
SHOWN_INPUTS, SHOWN_GROUPS = 20, 30
DARK = 0.62  # a share from which white letters are read better


def draw(bundle: Bundle, evaluation: Evaluation) -> dict[str, bytes]:
    """Every picture that can be drawn, by file name, in the order in which people read them.

    Without feature_importance.png where the scorer knows none, and without fairness.png where no
    group was compared.
    """
    drawers: dict[str, Callable[[Bundle, Evaluation], bytes | None]] = {
        "roc.png": _roc,
        "precision_recall.png": _precision_recall,
        "calibration.png": _calibration,
        "score_distribution.png": _scores,
        "confusion_matrix.png": _confusion,
        "lift.png": _lift,
        "feature_importance.png": _importance,
        "fairness.png": _fairness,
    }
    drawn = ((name, drawer(bundle, evaluation)) for name, drawer in drawers.items())
    return {name: png for name, png in drawn if png is not None}


def _roc(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    found, alarmed = _flagged(evaluation)
    m = evaluation.metrics
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(alarmed, found, color=GOOD, linewidth=2)
    axes.plot(1 - m["specificity"], m["recall"], "o", color=BAD, label="the policy's threshold")
    axes.set(xlabel="good loans flagged", ylabel="bad loans flagged")
    axes.set_title(f"ROC: AUC {_told(m, 'auc')}")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def _precision_recall(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    m, bad = evaluation.metrics, int(evaluation.outcome.sum())
    found, alarmed = (side[1:] for side in _flagged(evaluation))
    hit, missed = found * bad, alarmed * (len(evaluation.outcome) - bad)
    rate = m["bad_rate"]
    axes.axhline(rate, color=GREY, linestyle="--", linewidth=1, label=f"by chance: {rate:.3f}")
    axes.plot(found, hit / (hit + missed), color=GOOD, linewidth=2)
    axes.plot(m["recall"], m["precision"], "o", color=BAD, label="the policy's threshold")
    axes.set(xlabel="bad loans flagged (recall)", ylabel="bad among the flagged (precision)")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title(f"Precision and recall: area {_told(m, 'pr_auc')}")
    axes.legend(loc="lower left", frameon=False)
    return _png(figure)


def _calibration(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    order = np.argsort(evaluation.probability, kind="stable")
    bins = calibration_bins(evaluation.outcome[order], evaluation.probability[order])
    promised, observed, rows = bins.T
    spread = 1.96 * np.sqrt(observed * (1 - observed) / rows)
    end = 1.05 * max(0.05, *(observed + spread), *promised)
    axes.plot([0, end], [0, end], color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(promised, observed, yerr=spread, fmt="o-", color=GOOD, capsize=3, linewidth=1.5)
    axes.set(xlabel="promised probability of default", ylabel="observed bad rate")
    axes.set(xlim=(-0.02 * end, end), ylim=(-0.02 * end, end))
    axes.set_title(f"Calibration: mean error {_told(evaluation.metrics, 'calibration_error')}")
    return _png(figure)


def _scores(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    bins = np.linspace(0, 1, 41)
    for value, colour, name in ((0, GOOD, "good"), (1, BAD, "bad")):
        counts, _ = np.histogram(evaluation.probability[evaluation.outcome == value], bins)
        axes.stairs(counts, bins, fill=True, color=colour, alpha=0.6, label=f"{name} loans")
    low, high = evaluation.policy.refer
    if high > low:
        axes.axvspan(low, high, color=GREY, alpha=0.35, linewidth=0, label="referred")
    axes.axvline(evaluation.policy.threshold, color=INK, linewidth=1, label="threshold")
    axes.set_yscale("symlog", linthresh=10)
    axes.set(xlabel="probability of default", ylabel="applications", xlim=(0, 1))
    axes.set_title("Scores of the judging rows")
    axes.legend(frameon=False)
    return _png(figure)


def _confusion(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    m = evaluation.metrics
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    counts = np.array([m[name] for name in names]).reshape(2, 2)
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure, axes = _canvas(height=3.6, left=1.1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    for (row, place), count in np.ndenumerate(counts):
        share = shares[row, place]
        axes.text(
            place,
            row,
            f"{count:,.0f}\n{share:.1%}",
            ha="center",
            va="center",
            fontsize=13,
            color="white" if share > DARK else INK,
        )
    axes.set_xticks([0, 1], ["not flagged", "flagged"])
    axes.set_yticks([0, 1], ["good loans", "bad loans"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"At the threshold of {evaluation.policy.threshold:.3f}")
    return _png(figure)


def _lift(_bundle: Bundle, evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    order = np.argsort(-evaluation.probability, kind="stable")
    tenths = np.array_split(evaluation.outcome[order], 10)
    asked = np.cumsum([0, *map(len, tenths)]) / len(order)
    found = np.cumsum([0, *(part.sum() for part in tenths)]) / evaluation.outcome.sum()
    rate = evaluation.metrics["bad_rate"]
    axes.plot([0, rate, 1], [0, 1, 1], color=GREY, linewidth=1, label="a perfect order")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="by chance")
    axes.plot(asked, found, "o-", color=GOOD, linewidth=2)
    for place in (1, 2, 3):
        axes.annotate(
            f"{found[place] / asked[place]:.2f}x",
            (asked[place], found[place]),
            xytext=(8, -12),
            textcoords="offset points",
            color=INK,
        )
    axes.set(xlabel="applications, riskiest first", ylabel="bad loans among them")
    axes.set_title(f"Lift: the riskiest tenth holds {found[1]:.0%} of the bad loans")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def _importance(bundle: Bundle, _evaluation: Evaluation) -> bytes | None:
    share = bundle.scorer.importance()
    if share is None:
        return None
    order = np.argsort(share)[-SHOWN_INPUTS:]
    names = [_short(bundle.contract.model_inputs[i]) for i in order]
    figure, axes = _bars_canvas(names)
    bars = axes.barh(names, share[order], color=GOOD)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set(xlabel="share in what the model does", xlim=(0, share.max() * 1.15 + 1e-9))
    axes.locator_params(axis="x", nbins=4)
    axes.set_title("What the model uses")
    return _png(figure)


def _fairness(bundle: Bundle, evaluation: Evaluation) -> bytes | None:
    """Approval rates of the groups of each column, with the line each column is held against."""
    compared = [attribute for attribute in evaluation.fairness if attribute.groups]
    if not compared:
        return None
    least = bundle.contract.fairness.minimum_ratio
    many = [(one, group) for one in compared for group in one.groups]
    shown = many[:SHOWN_GROUPS]
    names = [f"{_short(group.name, 24)} ({group.rows:,})" for _, group in shown]
    figure, axes = _bars_canvas([*names, *(_short(one.column) for one in compared)])
    place, labels = 0.0, dict[float, str]()
    for attribute, mine in itertools.groupby(zip(shown, names, strict=True), lambda at: at[0][0]):
        labels[place] = _short(attribute.column)
        top = place
        for (_, group), name in mine:
            place += 1
            surely = below(group, least) == "surely"
            colour = BAD if surely else (GOOD if group.judged else GREY)
            axes.barh(place, group.approval_rate, color=colour)
            axes.text(group.approval_rate + 0.01, place, f"{group.approval_rate:.2f}", va="center")
            labels[place] = name
        if (line := _line_of(attribute, least)) is not None:
            axes.plot([line, line], [top + 0.5, place + 0.5], color=INK, linewidth=1.5)
        place += 1
    axes.set_yticks(list(labels), list(labels.values()))
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.08), ylim=(place, -0.7))
    axes.set(xlabel=f"approved; the line: {least:g} of the best group")
    few = " (grey: too few to judge)" if any(not group.judged for _, group in shown) else ""
    cut = f", {SHOWN_GROUPS} of {len(many)}" if len(many) > len(shown) else ""
    axes.set_title(f"Approval by group{cut}{few}", loc="right")
    return _png(figure)


def _line_of(attribute: Attribute, least: float) -> float | None:
    best = (group.approval_rate for group in attribute.groups if group.name == attribute.best)
    return next((least * rate for rate in best), None)


def _flagged(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the bad and of the good loans flagged at every threshold, from none to all."""
    order = np.argsort(-evaluation.probability, kind="stable")
    bad = evaluation.outcome[order]
    last = np.append(np.diff(evaluation.probability[order]) != 0, True)
    found = (np.cumsum(bad) / bad.sum())[last]
    alarmed = (np.cumsum(1 - bad) / (1 - bad).sum())[last]
    return np.append(0, found), np.append(0, alarmed)


def _told(metrics: dict[str, float], name: str) -> str:
    """A metric with its interval, where there is one."""
    told = f"{metrics[name]:.3f}"
    if f"{name}_low" in metrics:
        told += f" ({metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f})"
    return told


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _bars_canvas(names: list[str]) -> tuple[Figure, Axes]:
    """For horizontal bars with these names beside them."""
    longest = max(len(name) for name in names)
    return _canvas(height=1.2 + 0.26 * len(names), left=0.25 + 0.078 * longest)


def _canvas(height: float = 4.5, left: float = 0.8) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    foot, head, right = 0.6, 0.4, 0.2
    axes = figure.add_axes(
        (
            left / WIDTH,
            foot / height,
            (WIDTH - left - right) / WIDTH,
            (height - foot - head) / height,
        )
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
