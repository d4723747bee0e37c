"""What the demo leaves behind: a closing table, and one self-contained HTML page with pictures.

Here: how the story looks. Not here: the story (`demo`).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, select_autoescape
from rich.table import Table

from loan_platform.decisions.log import read_decisions
from loan_platform.drift.report import DriftReport
from loan_platform.drift.report import picture as drift_picture
from loan_platform.engine.files import write_text
from loan_platform.engine.home import Home
from loan_platform.local.story import Story

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECISION_COLOURS = {"approve": "#3b7d4f", "refer": "#e0a72f", "decline": "#b5423c"}
SEVERITY_LINES = {0.01: "floor", 0.1: "warn", 0.2: "alert"}


def closing_rows(story: Story) -> list[tuple[str, str]]:
    """What happened, as label and text. The same seed and book give the same rows."""
    history, champion, answers = story.history, story.first_champion, story.answers
    rows = [
        ("book", f"{story.source}{' (SIMULATED)' if story.simulated else ''}, seed {story.seed}"),
        (
            "history",
            f"{history['rows']:,} rows = {history['accepted']:,} accepted + "
            f"{history['quarantined']} quarantined",
        ),
        ("first champion", f"version {champion['model_version']}, {_auc(champion)}"),
        ("decisions logged", f"{answers.decided:,}"),
        ("refused as invalid", f"{answers.refused}"),
        ("requests failed", f"{answers.failed}"),
        *(
            (f"{name} is used although it leaks", reason)
            for name, reason in story.contract.leaks_accepted.items()
        ),
    ]
    for told in story.months:
        if told.drift is None:
            continue
        rows.append((f"{told.month} drift", _moved(told.drift)))
        if told.retrain:
            rows.append(
                (
                    f"{told.month} retrained",
                    f"version {told.retrain.version} {told.retrain.reasons[-1]}",
                )
            )
    changes = [told.retrain for told in story.months if told.retrain]
    before = changes[0].champion_before if changes else champion["model_version"]
    after = changes[-1].champion_after if changes else champion["model_version"]
    by_version = ", ".join(
        f"{number:,} by version {version}" for version, number in sorted(answers.versions.items())
    )
    return [
        *rows,
        ("champion", f"version {before} before, version {after} after"),
        ("answered", by_version),
    ]


def closing_table(story: Story) -> Table:
    table = Table(title="What happened", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for label, text in closing_rows(story):
        table.add_row(label, text)
    return table


def write_report(story: Story, home: Home, path: Path) -> None:
    """Write the page; everything it shows lies in the one file."""
    pictures = [
        ("Applications and decisions by month", _png(lambda ax: _draw_decisions(ax, story, home))),
        ("How far each feature moved", _png(lambda ax: _draw_drift(ax, story), _features(story))),
        *(
            (f"Drift of {told.month}", drift_picture(told.drift))
            for told in story.months
            if told.drift and told.drift.drifted
        ),
    ]
    environment = Environment(
        loader=PackageLoader("loan_platform.local"), autoescape=select_autoescape()
    )
    page = environment.get_template("report.html").render(
        story=story,
        rows=closing_rows(story),
        pictures=[(title, _data_url(png)) for title, png in pictures],
        model_pictures=_model_pictures(story.first_champion),
        figures=_model_figures(story.first_champion),
    )
    write_text(page, path)


def _moved(drift: DriftReport) -> str:
    """Which features drifted and by how much."""
    moved = [
        f"{one.feature} (PSI {one.psi:.2f}, {one.severity})"
        for one in drift.by_severity
        if one.drifted
    ]
    return ", ".join(moved) or "none"


def _auc(figures: dict[str, Any]) -> str:
    return (
        f"AUC {figures['auc']:.4f} [{figures['auc_low']:.4f}, {figures['auc_high']:.4f}] "
        "on a held-out fifth"
    )


def _model_figures(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), f"{value:,.0f}" if value == int(value) else f"{value:.4f}")
        for name, value in metadata.items()
        if isinstance(value, float)
    ]


def _model_pictures(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """The pictures of a training, as its materialization carries them."""
    return [
        (name.replace("_", " "), value.partition("](")[2].removesuffix(")"))
        for name, value in metadata.items()
        if isinstance(value, str) and value.startswith("![")
    ]


def _png(draw: Callable[[Axes], None], beside: Iterable[str] = ()) -> bytes:
    """A drawing on a canvas that has room for the names `beside` it, and for a legend above."""
    from matplotlib.figure import Figure

    width, height, foot, head, right = 8.0, 3.2, 0.7, 0.4, 0.15
    left = 0.25 + max((0.075 * len(name) for name in beside), default=0.5)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (
            left / width,
            foot / height,
            (width - left - right) / width,
            (height - foot - head) / height,
        )
    )
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()


def _draw_decisions(axes: Axes, story: Story, home: Home) -> None:
    history = story.history["by_month"]
    axes.bar(list(history), list(history.values()), color="#c3ccd6", label="history")
    for told in story.months:
        decided = read_decisions(home, story.contract.name, told.month)["decision"].to_pylist()
        below = 0
        for decision, colour in DECISION_COLOURS.items():
            number = decided.count(decision)
            first = told is story.months[0]
            axes.bar(
                told.month, number, bottom=below, color=colour, label=decision if first else None
            )
            below += number
    axes.set_ylabel("applications")
    axes.tick_params(axis="x", rotation=45)
    axes.legend(ncols=4, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18))


def _features(story: Story) -> list[str]:
    """Those the drift picture shows: what moved most in the last month first."""
    reports = [told.drift for told in story.months if told.drift]
    return [one.feature for one in reports[-1].by_severity] if reports else []


def _draw_drift(axes: Axes, story: Story) -> None:
    months = [told for told in story.months if told.drift]
    names = _features(story)
    width = 0.8 / max(len(months), 1)
    for turn, told in enumerate(months):
        assert told.drift is not None
        psi = {one.feature: one.psi for one in told.drift.features}
        axes.barh(
            [place + turn * width for place in range(len(names))],
            [max(psi[name], 0.0005) for name in names],
            height=width,
            label=told.month + (" (shifted)" if told.shifted else ""),
            color=_colour(turn, told.shifted),
        )
    for value, name in SEVERITY_LINES.items():
        axes.axvline(value, color="#8795a5", linewidth=0.8, linestyle=":")
        axes.text(value, len(names) - 0.1, f" {name}", fontsize=7, color="#5b6875")
    axes.set_yticks([place + 0.4 - width / 2 for place in range(len(names))], names, fontsize=8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("bias-corrected PSI against the champion's training months")
    axes.legend(frameon=False, loc="lower right", fontsize=8)


def _colour(turn: int, shifted: bool) -> str:
    return ("#d98880", "#b5423c", "#7b241c")[turn % 3] if shifted else "#9bb4cc"


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
