"""The small command line. Here: options and exit codes. Not here: what a command does (`local`).

Imports lie inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loan_platform import __version__

app = typer.Typer(
    help="A loan book from raw file to served decision, and kept honest afterwards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold passwords and applicants' data
)


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


def _fail(problem: Exception) -> None:
    typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
