"""Pictures of an evaluation, as PNG bytes.

Here: drawing only; every number comes from `evaluate` or the bundle. No global matplotlib state.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation, calibration_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, GREY = "#2b6cb0", "#c05621", "#a0aec0"


def draw(bundle: Bundle, evaluation: Evaluation) -> dict[str, bytes]:
    """PNGs by file name: ROC curve, calibration, score distribution, feature importance."""
    return {
        "roc.png": _roc(evaluation),
        "calibration.png": _calibration(evaluation),
        "score_distribution.png": _scores(evaluation),
        "feature_importance.png": _importance(bundle),
    }


def _roc(evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    order = np.argsort(-evaluation.probability, kind="stable")
    bad = evaluation.outcome[order]
    last = np.append(np.diff(evaluation.probability[order]) != 0, True)
    found = np.append(0, (np.cumsum(bad) / bad.sum())[last])
    alarmed = np.append(0, (np.cumsum(1 - bad) / (1 - bad).sum())[last])
    m = evaluation.metrics
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(alarmed, found, color=GOOD, linewidth=2)
    axes.plot(1 - m["specificity"], m["recall"], "o", color=BAD, label="the policy's threshold")
    axes.set(xlabel="good loans flagged", ylabel="bad loans flagged", aspect="equal")
    axes.set_title(f"ROC: AUC {m['auc']:.3f} ({m['auc_low']:.3f} to {m['auc_high']:.3f})")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def _calibration(evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    order = np.argsort(evaluation.probability, kind="stable")
    bins = calibration_bins(evaluation.outcome[order], evaluation.probability[order])
    promised, observed, rows = bins.T
    spread = 1.96 * np.sqrt(observed * (1 - observed) / rows)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(promised, observed, yerr=spread, fmt="o-", color=GOOD, capsize=3, linewidth=1.5)
    axes.set(xlabel="promised probability of default", ylabel="observed bad rate", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(f"Calibration: mean error {evaluation.metrics['calibration_error']:.3f}")
    return _png(figure)


def _scores(evaluation: Evaluation) -> bytes:
    figure, axes = _canvas()
    bins = list(np.linspace(0, 1, 41))
    for value, colour, name in ((0, GOOD, "good"), (1, BAD, "bad")):
        chosen = evaluation.probability[evaluation.outcome == value]
        axes.hist(chosen, bins=bins, color=colour, alpha=0.6, label=f"{name} loans")
    low, high = evaluation.policy.refer
    if high > low:
        axes.axvspan(low, high, color=GREY, alpha=0.35, linewidth=0, label="referred")
    axes.axvline(evaluation.policy.threshold, color="black", linewidth=1, label="threshold")
    axes.set_yscale("symlog", linthresh=10)
    axes.set(xlabel="probability of default", ylabel="applications", xlim=(0, 1))
    axes.set_title("Scores of the judging rows")
    axes.legend(frameon=False)
    return _png(figure)


def _importance(bundle: Bundle) -> bytes:
    gain = bundle.booster.feature_importance("gain")
    share = gain / max(gain.sum(), 1e-300)
    order = np.argsort(share)[-20:]
    figure, axes = _canvas(height=1.6 + 0.28 * len(order))
    names = [bundle.contract.model_inputs[i] for i in order]
    bars = axes.barh(names, share[order], color=GOOD)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set(xlabel="share of the loss taken away (gain)", xlim=(0, share.max() * 1.15 + 1e-9))
    axes.set_title("What the model uses")
    return _png(figure)


def _canvas(height: float = 4.5) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
