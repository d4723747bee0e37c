"""A verdict as people read it: tables of the gains and of the swap set, a picture of the gains.

Here: wording and drawing only; every number is in the evidence already. Not here: finding one
(`comparison`, `swap_set`), deciding on them (`promotion`).
"""

from __future__ import annotations

import io
from typing import Any

from loan_platform.model.policy import DECISIONS
from loan_platform.registry.swap_set import Group, SwapSet
from loan_platform.training.pictures import BAD, GOOD, GREY

MEASURES = {"auc": "AUC", "log_loss": "log loss (nats)", "profit": "profit per application"}
SETS = {"recent": "recent outcomes", "all": "all outcomes"}


def gains_table(evidence: dict[str, Any]) -> str:
    """Each measure of both models with the gain and its interval; first champions have their AUC.

    `evidence` is a `Verdict`'s.
    """
    if "all" not in evidence:
        return ""
    confidence = f"{evidence['confidence']:.0%} interval"
    if "challenger_interval" in evidence["all"]:
        found = evidence["all"]
        low, high = found["challenger_interval"]
        return (
            f"| on | rows | AUC | {confidence} | floor |\n|---|---|---|---|---|\n"
            f"| all outcomes | {found['rows']:,} | {found['challenger_auc']:.4f} | "
            f"{low:.4f} to {high:.4f} | {evidence['floor_auc']:g} |"
        )
    lines = [
        f"| on | rows | measure | champion | challenger | gain | {confidence} |",
        "|---|---|---|---|---|---|---|",
    ]
    for which, words in SETS.items():
        found = evidence.get(which, {})
        for key, name in MEASURES.items():
            if f"{key}_gain" not in found:
                continue
            digits = 2 if key == "profit" else 4
            both = [f"{found[f'{who}_{key}']:,.{digits}f}" for who in ("champion", "challenger")]
            gain, low, high = (f"{value:+,.{digits}f}" for value in found[f"{key}_gain"])
            decides = f"**{words}**" if which == evidence["deciding_rows"] else words
            cells = (decides, f"{found['rows']:,}", name, *both, gain, f"{low} to {high}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def swap_table(swapped: SwapSet) -> str:
    """Who would be decided otherwise, and what became of those of whom it is known."""
    everyone = swapped.everyone
    money = everyone.profit_change is not None
    lines = [
        f"{everyone.applications:,} applications, {everyone.known:,} of them with an outcome, "
        "decided by both models, each by its own policy.",
        "",
        f"| | applications | share | with outcome | bad rate |{' profit changes by |' * money}",
        f"|---|---|---|---|---|{'---|' * money}",
    ]
    for name, group in (
        ("newly approved", swapped.newly_approved),
        ("newly declined", swapped.newly_declined),
        ("everyone", everyone),
    ):
        cells = [name, f"{group.applications:,}", f"{group.share:.1%}", f"{group.known:,}"]
        cells.append(_bad_rate(group))
        if money:
            change = group.profit_change
            cells.append("unknown" if change is None else f"{change:+,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| champion ↓ challenger → | " + " | ".join(DECISIONS) + " |",
        "|---|---|---|---|",
    ]
    for theirs in DECISIONS:
        cells = [_cell(swapped.cells[theirs, ours]) for ours in DECISIONS]
        lines.append(f"| **{theirs}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(group: Group) -> str:
    if not group.applications:
        return "nobody"
    return f"{group.applications:,} ({group.share:.1%}), bad rate {_bad_rate(group)}"


def _bad_rate(group: Group) -> str:
    if group.bad_rate is None or group.low is None or group.high is None:
        return "unknown"
    return f"{group.bad_rate:.1%} ({group.low:.1%} to {group.high:.1%})"


def draw_gains(evidence: dict[str, Any]) -> bytes | None:
    """The gains with their intervals as a PNG, one scale a measure; None where nobody was compared.

    Right of the line the challenger is better.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = [key for key in MEASURES if f"{key}_gain" in evidence.get("all", {})]
    sets = [key for key in reversed(SETS) if key in evidence]
    if not measures:
        return None
    figure = Figure(
        figsize=(6.4, 0.5 + len(measures) * (0.55 + 0.3 * len(sets))), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    for place, measure in enumerate(measures, 1):
        axes = figure.add_subplot(len(measures), 1, place)
        for height, which in enumerate(sets):
            gain, low, high = evidence[which][f"{measure}_gain"]
            colour = GOOD if low > 0 else BAD if high < 0 else GREY
            axes.plot([low, high], [height, height], color=colour, linewidth=2.5)
            axes.plot(gain, height, "o", color=colour)
        axes.axvline(0, color="black", linewidth=1)
        axes.set_yticks(range(len(sets)), [SETS[which] for which in sets], fontsize=8)
        axes.set_ylim(-0.6, len(sets) - 0.4)
        axes.set_title(f"gain of {MEASURES[measure]}", fontsize=9, loc="left")
        axes.tick_params(axis="x", labelsize=8)
        axes.locator_params(axis="x", nbins=6)
        axes.margins(x=0.1)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel("right of the line the challenger is better", fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
