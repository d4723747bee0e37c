"""Makes everything of one portfolio, in order, in this process: `loan-platform materialize`.

Here: the order, the progress and the closing table. Not here: the runs themselves
(`platform_runs`), or what an asset does (`components`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loan_platform.components.months import closed_monthly, monthly
from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys
from loan_platform.contract.portfolios import contract_of
from loan_platform.contract.sql import reasons
from loan_platform.engine import duck
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import OWN_REASONS
from loan_platform.local.instance import environment, prepare
from loan_platform.local.platform_runs import PlatformRuns
from loan_platform.local.search import said

MONTHS_AT_ONCE = 24
"""Months of one run. A book of one file is read once in each, a failed run names its months."""
REASONS_SHOWN = 5


@dataclass(frozen=True)
class Made:
    """What came of a portfolio: rows by what became of them, and the figures of its model.

    `rows == accepted + quarantined`. `reasons`: refused rows by rule id, the commonest first; a
    row that breaks two rules counts under both. `again`: the same bytes lay there before.
    `model` and `champion`: metadata of these two assets.
    """

    contract: Contract
    simulated: bool
    rows: int
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    again: bool
    drifted: list[str]
    model: dict[str, Any]
    champion: dict[str, Any]
    bento: str
    profile: Path


def materialize(portfolio: str, say: Console, *, search: bool = False) -> Made:
    """Make every asset of `portfolio`, over all months of its book, and say what came of it.

    `search`: also the recipe of its model, which takes minutes.

    Again is harmless: the same book gives the same rows, and a model that is no better than the
    champion does not take its place.

    Raises:
        ContractError: there is no such portfolio, or its contract is not valid.
        RunError: a run failed.
    """
    contract = contract_of(portfolio)
    home = Home.from_environment()
    os.environ.update(environment(home))
    prepare(home)
    before = _digest(contract, home)
    with PlatformRuns(contract, home) as runs:
        _make(contract, runs, say, search=search)
        made = _made(contract, home, runs, before)
    say.print(closing_table(made, home))
    return made


def _make(contract: Contract, runs: PlatformRuns, say: Console, *, search: bool) -> None:
    months, closed = _months(contract)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=say) as progress:

        def once(*names: str) -> None:
            task = progress.add_task(", ".join(names), total=len(names))
            for name in names:
                runs.materialize(name)
                progress.advance(task)

        def each_month(what: str, names: Sequence[str], over: list[str]) -> None:
            task = progress.add_task(f"{what}, by month", total=len(over))
            for start in range(0, len(over), MONTHS_AT_ONCE):
                batch = over[start : start + MONTHS_AT_ONCE]
                runs.materialize(*names, months=batch)
                progress.advance(task, len(batch))

        once("profile", "feature_bins")
        each_month("what the service decided", ("decisions",), months)
        each_month("what became of it", ("outcomes",), months)
        each_month(
            "rows, features, counts", ("raw_loans", "cleaned_features", "feature_counts"), months
        )
        if search:
            task = progress.add_task("model_search", total=1)
            with said(lambda text: progress.update(task, description=escape(text))):
                runs.materialize("model_search")
            progress.update(task, description="model_search", completed=1)
        once("trained_model", "champion", "baseline_stats", "loan_service")
        each_month("drift reports", ("drift_report",), closed)


def _months(contract: Contract) -> tuple[list[str], list[str]]:
    """The months the book reaches, and those of them that are over.

    After the last one of a replay there is only what the service decides, which the nightly
    schedule brings up to date.
    """
    replay = contract.time.replay
    last = keys(replay.start, replay.periods)[-1] if replay else "9999-12"
    every, over = (each(contract).get_partition_keys() for each in (monthly, closed_monthly))
    return [key for key in every if key <= last], [key for key in over if key <= last]


def _made(contract: Contract, home: Home, runs: PlatformRuns, before: str | None) -> Made:
    months, closed = _months(contract)
    admitted = runs.monthly_metadata("raw_loans", months).values()
    reports = runs.monthly_metadata("drift_report", closed)
    return Made(
        contract=contract,
        simulated=any(bool(one["simulated"]) and one["rows_in"] for one in admitted),
        rows=sum(int(one["rows_in"]) for one in admitted),
        accepted=sum(int(one["dagster/row_count"]) for one in admitted),
        quarantined=sum(int(one["quarantined"]) for one in admitted),
        reasons=_reasons(home.partitions(contract.name, "quarantine").values()),
        again=before is not None and before == _digest(contract, home),
        drifted=[month for month, report in reports.items() if report["drifted"]],
        model=runs.metadata("trained_model"),
        champion=runs.metadata("champion"),
        bento=str(runs.metadata("loan_service")["bento_tag"]),
        profile=Path(str(runs.metadata("profile")["page"])),
    )


def _reasons(files: Iterable[Path]) -> dict[str, int]:
    rules = duck.query(
        "SELECT rule, count(*) AS rows FROM (SELECT unnest(string_split(_rule, ' ')) AS rule "
        f"FROM {duck.parquet(*files)}) GROUP BY rule ORDER BY rows DESC, rule"
    )
    return dict(zip(rules["rule"].to_pylist(), rules["rows"].to_pylist(), strict=True))


def _digest(contract: Contract, home: Home) -> str | None:
    """Of every row there is, accepted or not, to the byte; None where there is none yet."""
    digest = hashlib.sha256()
    found = False
    for layer in ("raw_loans", "quarantine", "cleaned_features"):
        for month, file in home.partitions(contract.name, layer).items():
            digest.update(f"{layer} {month}".encode())
            digest.update(file.read_bytes())
            found = True
    return digest.hexdigest() if found else None


def closing_table(made: Made, home: Home) -> Table:
    contract, model, champion = made.contract, made.model, made.champion
    table = Table("", contract.title, box=None, pad_edge=False)

    def line(name: str, *texts: str) -> None:
        table.add_row(name, escape("\n".join(texts)))

    line("book", "SIMULATED, from the contract's figures" if made.simulated else "the lender's")
    words = reasons(contract) | OWN_REASONS
    same = " (the same rows as before, to the byte)" if made.again else ""
    line("rows in", f"{made.rows:,}{same}")
    line("accepted", f"{made.accepted:,}")
    shown = list(made.reasons.items())[:REASONS_SHOWN]
    rest = len(made.reasons) - len(shown)
    line(
        "quarantined",
        f"{made.quarantined:,}",
        *(f"{count:,}: {words[rule]}" for rule, count in shown),
        *([f"and {rest} more reasons"] if rest else []),
    )
    line(
        "AUC",
        f"{model['auc']:.3f} [{model['auc_low']:.3f}, {model['auc_high']:.3f}] on rows that "
        "taught the model nothing",
    )
    line(
        "champion",
        f"version {champion['champion_version']}, packaged as {made.bento}; "
        f"version {model['model_version']}: {champion['decision']}",
    )
    line("recipe", model["recipe"])
    line("drifted months", ", ".join(made.drifted) or "none")
    line("profile", str(made.profile))
    line("rows refused", str(home.portfolio(contract.name) / "quarantine"))
    line("next", "loan-platform up")
    return table
