"""From a book to the first contract of it: look at it twice, guess, propose.

Here: the order of things, and what a source is called in a contract. Not here: each step
(`dialect`, `ingest.profile`, `guesses`, `propose`), or who asks for it (`local.init`,
`components.scaffolding`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loan_platform.contract import Contract, read_contract
from loan_platform.contract.portfolio import Source
from loan_platform.engine.home import data_directories
from loan_platform.ingest.profile import Profile, ProfileError, profile_source
from loan_platform.ingest.vocabulary import normalised
from loan_platform.proposal.dialect import as_written
from loan_platform.proposal.guesses import check_wishes, guess_outcome, guess_time
from loan_platform.proposal.propose import Proposal, ProposalError, Wishes, propose


@dataclass(frozen=True)
class Draft:
    """A proposed contract of the portfolio `name`, and the profile it follows from."""

    name: str
    profile: Profile
    proposal: Proposal


def draft(source: Source, name: str | None, wishes: Wishes, say: Callable[[str], None]) -> Draft:
    """Propose a contract for a book. Looks twice: the outcome must be known for the second look.

    Raises:
        SourceError: the book cannot be read.
        ProposalError: no contract can be proposed as asked.
    """
    for problem in (problem for _, problem in source.problems()):
        raise ProposalError(f"the source: {problem}")
    source = as_written(lasting(source))
    name = portfolio_name(source, name)
    say("looking at the columns")
    try:
        return _drafted(source, name, wishes, say)
    except ProfileError as error:
        raise ProposalError(f"{source.name}: {error}") from None


def _drafted(source: Source, name: str, wishes: Wishes, say: Callable[[str], None]) -> Draft:
    first = profile_source(source)
    if not first.rows:
        raise ProposalError(f"{source.name} has no rows to propose a contract from")
    check_wishes(first, wishes)
    outcome = guess_outcome(first, wishes)
    time = guess_time(first, wishes, dt.datetime.now(dt.UTC).date())
    say(f"relating {len(first.columns)} columns of {first.rows:,} rows to {outcome.column}")
    profile = profile_source(
        source, outcome=outcome.column, bad=outcome.bad, good=outcome.good, time=time.column
    )
    return Draft(name, profile, propose(profile, source, name, wishes))


def write_draft(drafted: Draft, path: Path) -> Contract:
    """Write the proposed contract, read it back, and only then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.proposed")
    try:
        beside.write_text(drafted.proposal.text, encoding="utf-8")
        contract = read_contract(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return contract


def lasting(source: Source) -> Source:
    """The source with a path that holds wherever the platform is started.

    A file below `LOAN_DATA_DIR` is called by its place there, so that a contract holds on every
    machine; any other by its full path.
    """
    if source.path is None or "://" in source.path:
        return source
    path = Path.cwd() / Path(source.path).expanduser()
    for folder in data_directories():
        if not Path(source.path).is_absolute() and _there(folder / source.path):
            return source
        if path.is_relative_to(folder):
            return source.model_copy(update={"path": str(path.relative_to(folder))})
    return source.model_copy(update={"path": str(path)})


def portfolio_name(source: Source, wanted: str | None) -> str:
    """The portfolio's name: as wanted, else from the file or table.

    Raises:
        ProposalError: it is none a portfolio can have, or nothing suggests one.
    """
    if wanted is not None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", wanted):
            raise ProposalError(
                f"{wanted!r} cannot name a portfolio; use lower-case letters, digits and _, "
                "a letter first, 60 at most"
            )
        return wanted
    if source.path is not None:
        plain = re.sub(r"\{partition\}|[*?\[\]]", "", Path(source.path).name)
        stem = re.sub(r"(\.(csv|parquet|gz|tsv|txt))+$", "", plain, flags=re.IGNORECASE)
        parent = Path(source.path).parent.name
        found = normalised(stem) or normalised(parent)
    else:
        found = normalised((source.table or "").split(".")[-1])
    found = found if not found[:1].isdigit() else f"book_{found}"
    if not found:
        raise ProposalError("nothing suggests a name for the portfolio; give one with --name")
    return found[:60].rstrip("_")


def _there(path: Path) -> bool:
    return path.exists() or any(path.parent.glob(path.name))
