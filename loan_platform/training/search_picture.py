"""The trials of a search as a picture. Here: drawing. Not here: where it is shown."""

from __future__ import annotations

import io

from loan_platform.training.recipe import Recipe


def draw_trials(recipe: Recipe) -> bytes:
    """PNG: the log loss of each trial in order, a colour for each family, the chosen ones ringed.

    A trial stopped early is hollow; one that failed is not there.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), dpi=80, layout="constrained")
    axes = figure.subplots()
    measured = [one for one in recipe.tried if "log_loss" in one.figures]
    for family in sorted({one.family for one in measured}):
        of_it = [one for one in measured if one.family == family]
        colour = axes.plot([], [], "o", label=family.replace("_", " "))[0].get_color()
        for one in of_it:
            filled = colour if one.state == "complete" else "none"
            axes.plot(
                one.place,
                one.figures["log_loss"],
                "o",
                markeredgecolor=colour,
                markerfacecolor=filled,
            )
    chosen = {(one.family, repr(one.parameters)) for one in recipe.ingredients}
    for one in measured:
        if (one.family, repr(one.parameters)) in chosen:
            axes.plot(one.place, one.figures["log_loss"], "o", ms=12, mfc="none", mec="black")
    axes.axhline(recipe.figures["log_loss"], color="black", lw=0.8, ls=":", label="the recipe")
    axes.set_xlabel("trial")
    axes.set_ylabel("log loss, out of fold")
    axes.legend(fontsize=7, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
