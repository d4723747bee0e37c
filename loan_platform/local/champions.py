"""`loan-platform promote`, `approve`, `rollback` and `history`: a person and the champion.

Here: whose word it is, which version is meant, and what is said afterwards. Not here: whether and
how the alias moves (`registry.moves`), what the ledger keeps (`registry.ledger`).
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from loan_platform.contract import Contract
from loan_platform.contract.portfolios import contract_of
from loan_platform.decisions.outcomes import end_of
from loan_platform.engine.home import Home
from loan_platform.registry.ledger import Break, Entry, Ledger, Standing, standing
from loan_platform.registry.versions import RegistryError

if TYPE_CHECKING:
    from rich.console import Console

    from loan_platform.registry.models import Registry

USER = "LOAN_PLATFORM_USER"
LONG_REASON = 120  # letters, in a column of a terminal


def promote(
    portfolio: str,
    say: Console,
    *,
    version: str | None,
    by: str | None,
    reason: str,
    despite: str | None,
) -> None:
    """Make a version (None: the newest) champion; where two persons are needed, ask for it.

    Raises:
        ContractError, RegistryError, LedgerError, BundleError: what stands in the way.
    """
    from loan_platform.registry import moves

    contract, registry, ledger = _opened(portfolio)
    who = person(by)
    with _reachable(registry.home):
        chosen = version or registry.version_of("challenger")
        if chosen is None:
            raise RegistryError(
                f"{portfolio} has no version yet; train one with loan-platform materialize "
                f"{portfolio}"
            )
        if contract.promotion.mode == "two_person":
            asked = moves.request(registry, ledger, chosen, by=who, reason=reason, despite=despite)
            say.print(
                f"{who} asks for version {chosen} of {portfolio} (entry {asked.seq} of the "
                f"ledger)\nnext, by somebody else: loan-platform approve {portfolio} --by NAME",
                markup=False,
            )
            return
        moved = moves.promote(registry, ledger, chosen, by=who, reason=reason, despite=despite)
    _tell(portfolio, moved, say)


def approve(portfolio: str, say: Console, *, by: str | None, reason: str) -> None:
    """Promote what somebody else asked for.

    Raises:
        ContractError, RegistryError, LedgerError: what stands in the way.
    """
    from loan_platform.registry import moves

    contract, registry, ledger = _opened(portfolio)
    mode = contract.promotion.mode
    if mode != "two_person":
        raise RegistryError(
            f"promotion.mode of {portfolio} is {mode}, so nothing waits for approval; "
            f"loan-platform promote {portfolio} moves the champion"
        )
    with _reachable(registry.home):
        moved = moves.approve(registry, ledger, by=person(by), reason=reason)
    _tell(portfolio, moved, say)


def rollback(portfolio: str, say: Console, *, to: str | None, by: str | None, reason: str) -> None:
    """Go back to the champion before, or to an earlier one.

    Raises:
        ContractError, RegistryError, LedgerError: what stands in the way.
    """
    from loan_platform.registry import moves

    _, registry, ledger = _opened(portfolio)
    with _reachable(registry.home):
        moved = moves.rollback(registry, ledger, by=person(by), reason=reason, to=to)
    _tell(portfolio, moved, say)


def history(portfolio: str, say: Console, *, as_of: str | None, as_json: bool) -> bool:
    """Print the ledger and what the aliases name, today or as of a moment; whether it is proved.

    Moves of the challenger stand among those of the champion: one line of events from a training
    to what became of it is what a reviewer asks for.

    Raises:
        ContractError, RegistryError: there is no such portfolio, or a database is out of reach.
    """
    _, registry, ledger = _opened(portfolio)
    moment = _moment(as_of) if as_of else None
    with _reachable(registry.home):
        entries = ledger.entries(moment)
        head, seen = _mlflow_says(registry) if entries else (None, "")
        broken = ledger.verify(head)
    if as_json:
        for entry in entries:
            told = json.dumps({**asdict(entry), "evidence": entry.facts})
            say.print(told, markup=False, soft_wrap=True)
        return broken is None
    now = standing(entries)
    if entries:
        say.print(_table(entries), soft_wrap=False)
    say.print(_champion(now, as_of), markup=False)
    if now.challenger:
        say.print(_challenger(now.challenger, as_of), markup=False)
    for line in _open_ends(portfolio, now) if moment is None else ():
        say.print(line, markup=False)
    say.print(_proof(ledger, broken, seen), markup=False)
    return broken is None


def person(by: str | None) -> str:
    """Who says so: `--by`, else LOAN_PLATFORM_USER, else the login name.

    Raises:
        RegistryError: none of these is there.
    """
    try:
        name = by or os.environ.get(USER) or getpass.getuser()
    except (KeyError, OSError):
        name = ""
    if not name.strip():
        raise RegistryError(f"nobody is logged in by a name; give one with --by, or set {USER}")
    return name


def _opened(portfolio: str) -> tuple[Contract, Registry, Ledger]:
    from loan_platform.registry.models import Registry

    home = Home.from_environment()
    return contract_of(portfolio), Registry(home, portfolio), Ledger(home, portfolio)


@contextmanager
def _reachable(home: Home) -> Iterator[None]:
    """Say which store is out of reach; a driver's own message may hold a password."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        place = "LOAN_PLATFORM_DECISIONS_URL" if home.decisions_url else str(home.decisions)
        raise RegistryError(
            f"the ledger cannot be read or written ({type(error).__name__}); see that the database "
            f"of {place} can be reached, and try again"
        ) from None
    except MlflowException as error:
        raise RegistryError(
            f"MLflow cannot do it ({error.error_code}); see that what MLFLOW_TRACKING_URI names "
            "can be reached, and try again: a move that was begun is finished first"
        ) from None


def _tell(portfolio: str, moved: Entry, say: Console) -> None:
    before = f"version {moved.from_version}" if moved.from_version else "none"
    say.print(
        f"version {moved.to_version} is the champion of {portfolio} now, before it {before} "
        f"(entry {moved.seq} of the ledger, by {moved.by})\n"
        "A service that follows MLflow takes it over within seconds. The daemon makes the "
        f"baseline and the Bento again; without one, materialize {portfolio}/baseline_stats and "
        f"{portfolio}/loan_service.",
        markup=False,
    )


def _moment(text: str) -> dt.datetime:
    """A day as its end in UTC, a time as it is."""
    try:
        if len(text) == len("2026-01-31"):
            return end_of(dt.date.fromisoformat(text))
        moment = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RegistryError(
            f"--as-of {text} is neither a day nor a time with its zone; write 2026-01-31, or "
            "2026-01-31T12:00+00:00"
        )
    return moment


def _mlflow_says(registry: Registry) -> tuple[tuple[int, str] | None, str]:
    """The last entry MLflow knows of, and what to say where that is not to be had."""
    from mlflow.exceptions import MlflowException

    from loan_platform.registry.moves import chain_head

    try:
        return chain_head(registry), ""
    except MlflowException as error:
        return None, f"; MLflow cannot be asked ({error.error_code}), so a cut end is not seen"


def _table(entries: list[Entry]) -> object:
    """The entries without those that only say that a move begins, where it ended."""
    from rich.markup import escape
    from rich.table import Table

    closed = {entry.facts.get("began") for entry in entries}
    table = Table("#", "when (UTC)", "what", "from", "to", box=None, pad_edge=False)
    for heading in ("by", "why"):
        table.add_column(heading, overflow="fold")
    table.add_column("seal")
    for entry in entries:
        if entry.seq in closed:
            continue
        table.add_row(
            str(entry.seq),
            entry.at[:19].replace("T", " "),
            _what(entry),
            entry.from_version or "-",
            entry.to_version or "-",
            escape(entry.by),
            escape(_in_short(entry.reason)),
            entry.hash[:12],
        )
    return table


def _what(entry: Entry) -> str:
    """What happened; to which alias, where it is not the champion."""
    event = entry.event.replace("_", " ")
    return event if entry.alias == "champion" else f"{entry.alias} {event}"


def _challenger(named: Entry, as_of: str | None) -> str:
    when = f"as of {as_of}" if as_of else "now"
    version = f"version {named.to_version}" if named.to_version else "none"
    if named.event == "moved_by_hand":
        return f"challenger {when}: {version}, moved by hand (found {named.at[:19]} UTC)"
    since = f"{named.at[:19].replace('T', ' ')} UTC"
    return f"challenger {when}: {version}, named by {named.by} on {since}"


def _champion(now: Standing, as_of: str | None) -> str:
    when = f"as of {as_of}" if as_of else "now"
    if now.served is None:
        return f"champion {when}: none"
    if now.by_hand:
        return (
            f"champion {when}: version {now.served}, moved by hand (found "
            f"{now.by_hand.at[:19]} UTC); the ledger's is version {now.champion or 'none'}"
        )
    assert now.since is not None
    since = f"{now.since.at[:19].replace('T', ' ')} UTC"
    how = now.since.event.replace("_", " ")
    return f"champion {when}: version {now.champion}, {how} by {now.since.by} on {since}"


def _open_ends(portfolio: str, now: Standing) -> Iterator[str]:
    if now.intent:
        yield (
            f"entry {now.intent.seq} began ({_what(now.intent)} version "
            f"{now.intent.to_version}) and has not ended; the next command or the daemon ends it"
        )
    if now.request:
        yield (
            f"{now.request.by} asks for version {now.request.to_version}; somebody else: "
            f"loan-platform approve {portfolio} --by NAME"
        )


def _proof(ledger: Ledger, broken: Break | None, seen: str) -> str:
    if broken:
        return (
            f"THE LEDGER IS NOT AS IT WAS WRITTEN: {broken.why}. Find out who can write to its "
            "database, and compare with a backup"
        )
    entries = ledger.entries()
    if not entries:
        return "the ledger is empty"
    last = entries[-1]
    return (
        f"{len(entries)} entries, each as it was written; the last is sealed {last.hash[:16]}{seen}"
    )


def _in_short(reason: str) -> str:
    """The end of a long verdict, where the rule that decided stands; `--json` has all of it."""
    return reason if len(reason) <= LONG_REASON else f"… {reason.rpartition('; ')[2]}"
