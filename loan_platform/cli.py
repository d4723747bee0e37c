"""The small command line. Here: options and exit codes. Not here: what a command does (`local`).

Imports lie inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loan_platform import __version__

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold passwords and applicants' data
)


@app.callback()
def quieted() -> None:
    """A loan book from raw file to served decision, and kept honest afterwards."""
    # What MLflow does with its tables is nothing to read for whoever asked for something else.
    # Its warnings and errors are; and whoever set a level of their own keeps it.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="The book; else LOAN_DATA_DIR's, else a simulated one")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed tells the same story")] = 7,
) -> None:
    """Run the whole loop on one book: history, live months, a planted shift, a new champion."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.ingest.source import SourceError
    from loan_platform.local.demo import DemoError, run_demo
    from loan_platform.local.platform_runs import RunError
    from loan_platform.local.processes import Interrupted, ProcessError

    try:
        run_demo(data=data, seed=seed, say=Console(highlight=False, soft_wrap=True))
    except (ContractError, DemoError, ProcessError, RunError, SourceError) as problem:
        _fail(problem)
    except Interrupted:
        raise typer.Exit(130) from None


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    dagster_port: Annotated[int | None, typer.Option(help="Dagster's page; default 3000")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="MLflow's page; default 5000")] = None,
    service_port: Annotated[
        int | None, typer.Option(help="The first service, the others follow; default 3001")
    ] = None,
    code_port: Annotated[
        int | None, typer.Option(help="Dagster's code server; default 4000")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Run one process in the foreground: code, webserver, daemon, mlflow, "
            "or service-PORTFOLIO"
        ),
    ] = None,
) -> None:
    """Start Dagster, MLflow and the services, print their links, stop them on Ctrl-C.

    A port left out is its default, or the next free one.
    """
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.engine.home import Home
    from loan_platform.local import up as platform
    from loan_platform.local.processes import ProcessError

    home = Home.from_environment()
    asked = {
        "dagster": dagster_port,
        "mlflow": mlflow_port,
        "service": service_port,
        "code": code_port,
    }
    try:
        if only:
            platform.only(home, only, host=host, asked=asked)
        platform.up(home, host=host, asked=asked, say=Console(highlight=False, soft_wrap=True))
    except (ProcessError, ContractError) as problem:
        _fail(problem)


@app.command()
def init(
    book: Annotated[
        str, typer.Argument(help="CSV, CSV.gz, Parquet, a glob, s3://..., or postgresql://...")
    ],
    name: Annotated[str | None, typer.Option(help="The portfolio; else the file's name")] = None,
    table: Annotated[str | None, typer.Option(help="With a database: the table")] = None,
    query: Annotated[str | None, typer.Option(help="With a database: one SELECT")] = None,
    outcome: Annotated[str | None, typer.Option(help="The column of what became of a loan")] = None,
    bad: Annotated[list[str] | None, typer.Option(help="An outcome that is bad; repeat it")] = None,
    good: Annotated[list[str] | None, typer.Option(help="One that is good; repeat it")] = None,
    time: Annotated[str | None, typer.Option(help="The column of the application's date")] = None,
    key: Annotated[str | None, typer.Option(help="The column that numbers applications")] = None,
    use: Annotated[
        list[str] | None, typer.Option(help="A column to use all the same; repeat it")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; repeat it")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of portfolios; else the platform's own")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a contract")] = False,
) -> None:
    """Write a contract for a loan book from what is in it, and say what to check."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.ingest.source import SourceError, source_at
    from loan_platform.local.init import write_contract
    from loan_platform.proposal.propose import ProposalError, Wishes

    wishes = Wishes(
        outcome=outcome,
        bad=tuple(bad or ()),
        good=tuple(good or ()),
        time=time,
        key=key,
        use=tuple(use or ()),
        ignore=tuple(ignore or ()),
    )
    try:
        write_contract(
            source_at(book, table, query),
            name=name,
            wishes=wishes,
            into=into,
            overwrite=overwrite,
            say=Console(highlight=False, soft_wrap=True),
        )
    except (ContractError, ProposalError, SourceError) as problem:
        _fail(problem)


@app.command()
def stats(
    book: Annotated[str, typer.Argument(help="As for init")],
    table: Annotated[str | None, typer.Option(help="With a database: the table")] = None,
    query: Annotated[str | None, typer.Option(help="With a database: one SELECT")] = None,
    outcome: Annotated[str | None, typer.Option(help="The column of what became of a loan")] = None,
    bad: Annotated[list[str] | None, typer.Option(help="An outcome that is bad; repeat it")] = None,
    time: Annotated[str | None, typer.Option(help="The column of the application's date")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the page here")] = None,
) -> None:
    """Print the profile of a book as JSON."""
    from loan_platform.ingest.leaks import as_json, evidence
    from loan_platform.ingest.profile import ProfileError, profile_source
    from loan_platform.ingest.profile_page import write_page
    from loan_platform.ingest.source import SourceError, source_at

    try:
        profile = profile_source(
            source_at(book, table, query), outcome=outcome, bad=tuple(bad or ()), time=time
        )
    except (ProfileError, SourceError) as problem:
        _fail(problem)
    typer.echo(as_json(profile, evidence(profile)))
    if html:
        write_page(profile, html)


@app.command()
def migrate(
    file: Annotated[str, typer.Argument(help="CSV, CSV.gz, Parquet, a glob or s3://...")],
    url: Annotated[str, typer.Argument(help="postgresql://user@host/database")],
    table: Annotated[str, typer.Option(help="`loans` or `schema.loans`")],
) -> None:
    """Load a file into a PostgreSQL table: all of it or nothing; again is harmless."""
    from rich.console import Console

    from loan_platform.ingest.migrate import migrate as load
    from loan_platform.ingest.source import SourceError, source_at

    try:
        load(
            source_at(file),
            url,
            table,
            say=Console(highlight=False, soft_wrap=True),
        )
    except SourceError as problem:
        _fail(problem)


@app.command()
def outcomes(
    portfolio: Annotated[str, typer.Argument(help="The portfolio the loans are of")],
    reports: Annotated[
        str,
        typer.Argument(
            help="A file or database with application_id, outcome, known_at and perhaps source"
        ),
    ],
    table: Annotated[str | None, typer.Option(help="With a database: the table")] = None,
    query: Annotated[str | None, typer.Option(help="With a database: one SELECT")] = None,
    source: Annotated[str, typer.Option(help="Who observed them, where no column says")] = "lender",
) -> None:
    """Record what became of loans; again is harmless, and what is refused is kept aside."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.ingest.source import SourceError, source_at
    from loan_platform.local.outcomes import record

    try:
        record(
            portfolio,
            source_at(reports, table, query),
            source,
            say=Console(highlight=False, soft_wrap=True),
        )
    except (ContractError, SourceError) as problem:
        _fail(problem)


@app.command()
def materialize(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    search: Annotated[
        bool, typer.Option("--search", help="First search for the model's recipe: minutes")
    ] = False,
) -> None:
    """Make everything of a portfolio, from its book to its packaged champion."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.ingest.source import SourceError
    from loan_platform.local.materialize import materialize as make
    from loan_platform.local.platform_runs import RunError

    try:
        make(portfolio, say=Console(highlight=False, soft_wrap=True), search=search)
    except (ContractError, RunError, SourceError) as problem:
        _fail(problem)


@app.command()
def search(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials, earlier ones included")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="No trial begins after that long")] = None,
) -> None:
    """Search families and settings for a recipe of the model, which later trainings follow."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.local.platform_runs import RunError
    from loan_platform.local.search import search as find

    say = Console(highlight=False, soft_wrap=True)
    try:
        find(portfolio, say, trials=trials, minutes=minutes)
    except (ContractError, RunError) as problem:
        _fail(problem)


@app.command()
def promote(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    version: Annotated[str | None, typer.Option(help="Which one; else the newest")] = None,
    by: Annotated[
        str | None, typer.Option(help="Who says so; else LOAN_PLATFORM_USER, else the login name")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept")] = "",
    despite: Annotated[
        str | None, typer.Option(help="Why, although something stands against it; it is kept")
    ] = None,
) -> None:
    """Make a version champion; where two persons are needed, ask for it."""
    from loan_platform.local import champions

    with _moving() as say:
        champions.promote(portfolio, say, version=version, by=by, reason=reason, despite=despite)


@app.command()
def approve(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    by: Annotated[str | None, typer.Option(help="Who says so, as for promote")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept")] = "",
) -> None:
    """Promote what somebody else asked for."""
    from loan_platform.local import champions

    with _moving() as say:
        champions.approve(portfolio, say, by=by, reason=reason)


@app.command()
def rollback(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    to: Annotated[str | None, typer.Option(help="An earlier champion; else the one before")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so, as for promote")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept")] = "",
) -> None:
    """Go back to the champion before, in seconds."""
    from loan_platform.local import champions

    with _moving() as say:
        champions.rollback(portfolio, say, to=to, by=by, reason=reason)


@app.command()
def history(
    portfolio: Annotated[str, typer.Argument(help="The portfolio")],
    as_of: Annotated[
        str | None, typer.Option(help="A day (its end, UTC), or a time with its zone")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One entry a line, with its evidence")
    ] = False,
) -> None:
    """Print who made which version challenger or champion, when and why, and prove it unchanged."""
    from loan_platform.local import champions

    with _moving() as say:
        proved = champions.history(portfolio, say, as_of=as_of, as_json=as_json)
    if not proved:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what is wrong with versions, folders, ports, databases, alerts, and what to do."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from loan_platform.engine.home import Home
    from loan_platform.local.doctor import examine, worst

    findings = examine(Home.from_environment())
    table = Table("", "what", box=None, pad_edge=False)
    for heading in ("seen", "what to do"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    for finding in findings:
        level = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.subject, escape(finding.seen), escape(finding.mend))
    Console(highlight=False).print(table)
    if worst(findings) == "problem":
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@contextmanager
def _moving() -> Iterator[Console]:
    """Where a command on the champion says what it did; what stands in its way ends it."""
    from rich.console import Console

    from loan_platform.contract import ContractError
    from loan_platform.model.bundle import BundleError
    from loan_platform.registry.ledger import LedgerError
    from loan_platform.registry.versions import RegistryError

    try:
        yield Console(highlight=False, soft_wrap=True)
    except (BundleError, ContractError, LedgerError, RegistryError) as problem:
        _fail(problem)


def _fail(problem: Exception) -> NoReturn:
    typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
