"""Writes the first contract of a loan book, and says what to check.

Here: the file, and what a person reads. Not here: what the contract says (`proposal`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source
from loan_platform.contract.portfolios import FOLDER
from loan_platform.proposal.drafting import Draft, draft, lasting, portfolio_name, write_draft
from loan_platform.proposal.guesses import listed
from loan_platform.proposal.propose import ProposalError, Wishes

if TYPE_CHECKING:
    from rich.console import Console


def write_contract(
    source: Source,
    *,
    name: str | None,
    wishes: Wishes,
    into: Path | None,
    overwrite: bool,
    say: Console,
) -> Path:
    """Propose a contract for a book and write it to `<into>/<name>/defs.yaml`.

    `into` is the platform's own folder of portfolios where None; `name` comes from the file.

    Raises:
        SourceError: the book cannot be read.
        ProposalError: no contract can be proposed as asked, or there is one of that name.
    """
    folder = into or FOLDER
    path = folder / portfolio_name(lasting(source), name) / "defs.yaml"
    if path.exists() and not overwrite:
        raise ProposalError(
            f"{path} is there already; --overwrite replaces it, --name gives another name"
        )
    with say.status("opening the book") as status:
        drafted = draft(source, name, wishes, lambda what: status.update(escape(what)))
    contract = write_draft(drafted, path)
    _report(drafted, contract, path, say)
    return path


def _report(drafted: Draft, contract: Contract, path: Path, say: Console) -> None:
    profile = drafted.profile
    outcome = contract.outcome
    rate = f"{profile.bad_rate:.1%}" if profile.bad_rate is not None else "unknown"
    say.print(
        f"[bold]{profile.rows:,}[/] rows, {len(profile.columns)} columns. "
        f"[bold]{escape(contract.outcome_column.name)}[/] says what became of a loan: "
        f"{escape(listed(outcome.bad))} is bad, {escape(listed(outcome.good))} is good; "
        f"[bold]{rate}[/] of {profile.known:,} are bad."
    )
    say.print(_used(contract))
    say.print(_unused(contract))
    say.print("[bold]Check[/]")
    for what in drafted.proposal.to_check:
        say.print(f"  - {escape(what)}")
    say.print(f"\nThe contract is [bold]{escape(str(path))}[/]. Read it, then:")
    if path.parent.parent.resolve() == FOLDER.resolve():
        say.print(f"  loan-platform materialize {contract.name}\n  loan-platform up")
    else:
        say.print(f"  put its folder into {escape(str(FOLDER))}\n  loan-platform up")


def _used(contract: Contract) -> Table:
    table = Table(title="Used", title_justify="left", box=None, pad_edge=False)
    for heading in ("column", "type", "part", "unit"):
        table.add_column(heading, overflow="fold")
    for column in contract.columns:
        if column.role != "ignored":
            table.add_row(escape(column.name), column.type, column.role, escape(column.unit or ""))
    for name, feature in contract.features.items():
        table.add_row(name, "number", "derived feature", escape(feature.unit or ""))
    return table


def _unused(contract: Contract) -> Table:
    table = Table(title="Not used", title_justify="left", box=None, pad_edge=False)
    table.add_column("why", overflow="fold", ratio=3)
    table.add_column("columns", overflow="fold", ratio=2)
    reasons: dict[str, list[str]] = {}
    for name, reason in contract.ignored_columns.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        table.add_row(escape(reason), escape(listed(names)))
    return table
