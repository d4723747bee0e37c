"""The asset profile: a book as received, in figures, and the leak guard's check on it.

Here: what is written and what the check says. Not here: the figures (`ingest.profile`), what
counts as a leak (`ingest.leaks`), the training's own refusal (`training.guard`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from loan_platform.components.presentation import asset_spec, picture
from loan_platform.contract import Contract
from loan_platform.engine.files import write_text
from loan_platform.engine.home import Home
from loan_platform.ingest.leaks import Suspicion, as_json, blocked, evidence, mend
from loan_platform.ingest.profile import Profile, profile_book
from loan_platform.ingest.source import locate

NO_LEAK = "no_leak"
SHOWN = 15  # columns in the small picture


def profile_assets(contract: Contract) -> list[dg.AssetsDefinition]:
    spec = asset_spec(
        contract,
        "profile",
        "The whole book as received, before any row is refused: what each column holds, how it "
        "goes with the outcome, and which columns give the outcome away.",
        kinds={"duckdb", "json"},
        automation=dg.AutomationCondition.on_missing(),
    )

    @dg.multi_asset(
        name=f"{contract.name}_profile",
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(
                NO_LEAK,
                asset=spec.key,
                description="No column a model learns from gives the outcome away.",
                blocking=True,
            )
        ],
    )
    def profile(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from loan_platform.ingest.profile_page import write_page

        location = locate(contract, home)
        found = profile_book(contract, location.source)
        suspicions = evidence(found)
        folder = home.portfolio(contract.name)
        figures, page = folder / "profile.json", folder / "profile.html"
        write_text(as_json(found, suspicions), figures)
        write_page(
            found,
            page,
            title=contract.title,
            suspicions=suspicions,
            used=[column.name for column in contract.input_columns],
            accepted=contract.leaks_accepted,
            simulated=location.simulated,
        )
        context.log.info(f"profiled {found.rows:,} rows; the page is {page}")
        yield dg.MaterializeResult(
            metadata={
                "dagster/row_count": found.rows,
                "dagster/uri": figures.as_uri(),
                "page": dg.MetadataValue.path(page),
                "simulated": location.simulated,
                "columns": len(found.columns),
                "malformed_lines": found.malformed,
                **({} if found.bad_rate is None else {"bad_rate": found.bad_rate}),
                "leaks": dg.MetadataValue.md(leak_table(contract, suspicions)),
                "picture": picture(_draw(contract, found), "how well each column tells bad loans"),
            },
            check_results=[no_leak(contract, suspicions)],
        )

    return [profile]


def no_leak(contract: Contract, suspicions: Sequence[Suspicion]) -> dg.AssetCheckResult:
    """Fails on a blocked column that is used and that no `leak_accepted` answers for."""
    used = {column.name for column in contract.input_columns}
    accepted = contract.leaks_accepted
    leaking = [one for one in blocked(suspicions, accepted) if one.column in used]
    to_review = [one.column for one in suspicions if one.verdict == "review" and one.column in used]
    said = []
    if leaking:
        said.append(" ".join(f"{one.column}: {one.sentence}." for one in leaking))
        said.append(mend(one.column for one in leaking))
    else:
        others = "other " if accepted else ""
        said.append(f"No {others}column in use gives the outcome away.")
    if to_review:
        said.append(f"To review, and in use: {', '.join(to_review)}.")
    said += [f"{name} is used although it leaks: {why}." for name, why in accepted.items()]
    return dg.AssetCheckResult(
        check_name=NO_LEAK,
        asset_key=dg.AssetKey([contract.name, "profile"]),
        passed=not leaking,
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join(said),
        metadata={
            "blocked_and_used": len(leaking),
            "to_review": ", ".join(to_review) or "none",
            "accepted": dict(accepted),
            "evidence": dg.MetadataValue.md(leak_table(contract, suspicions)),
        },
    )


def leak_table(contract: Contract, suspicions: Sequence[Suspicion]) -> str:
    """Every suspicious column as Markdown, used or not."""
    if not suspicions:
        return "No column gives the outcome away."
    used = {column.name for column in contract.input_columns}
    lines = ["| column | verdict | in the model | evidence |", "|---|---|---|---|"]
    for one in suspicions:
        use = "used" if one.column in used else "no"
        if one.column in contract.leaks_accepted:
            use = f"accepted: {contract.leaks_accepted[one.column]}"
        cells = (one.column, one.verdict, use, one.sentence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _draw(contract: Contract, profile: Profile) -> bytes:
    """The columns that tell bad loans best by themselves, the used ones apart, as PNG."""
    import io

    from matplotlib.figure import Figure

    used = {column.name for column in contract.input_columns}
    strongest = sorted(profile.columns, key=lambda column: -column.strength)[:SHOWN]
    names = [column.name[:30] for column in strongest]
    # In inches. Set by hand: a layout engine draws everything twice to find the same.
    width, foot, head = 6.0, 0.45, 0.15
    left, bars = 0.2 + 0.06 * max(len(name) for name in names), 0.22 * len(names)
    height = foot + bars + head
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (left / width, foot / height, (width - left - 0.15) / width, bars / height)
    )
    axes.barh(
        range(len(names)),
        [column.strength - 0.5 for column in strongest],
        left=0.5,
        color=["#b5423c" if column.name in used else "#c3ccd6" for column in strongest],
    )
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlim(0.5, 1)
    axes.invert_yaxis()
    axes.set_xlabel("AUC of the column alone (red: in use)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=80)
    return target.getvalue()
