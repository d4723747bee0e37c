"""`dg scaffold defs loan_platform.components.LoanPortfolio portfolios/my_book --book FILE`.

Here: the contract of a new portfolio, proposed from its book, where Dagster wants it. Not here:
what it says (`proposal`); `loan-platform init` does the same and shows more.
"""

from __future__ import annotations

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field


class Book(BaseModel):
    """Where the book lies, and what is known of it; the options of `loan-platform init`."""

    model_config = ConfigDict(extra="forbid")

    book: str = Field(description="CSV, CSV.gz, Parquet, a glob, s3://..., or postgresql://...")
    table: str | None = Field(None, description="With a database: the table")
    query: str | None = Field(None, description="With a database: one SELECT")
    outcome: str | None = Field(None, description="The column of what became of a loan")
    bad: list[str] = Field([], description="Outcomes that are bad")
    good: list[str] = Field([], description="Outcomes that are good")
    time: str | None = Field(None, description="The column of the application's date")
    key: str | None = Field(None, description="The column that numbers applications")
    use: list[str] = Field([], description="Columns to use all the same")
    ignore: list[str] = Field([], description="Columns to leave out")


class PortfolioScaffolder(dg.Scaffolder[Book]):
    """Writes `defs.yaml` of a portfolio that is named as its folder."""

    @classmethod
    def get_scaffold_params(cls) -> type[Book]:
        return Book

    def scaffold(self, request: dg.ScaffoldRequest[Book]) -> None:
        import click

        from loan_platform.contract import ContractError
        from loan_platform.contract.portfolios import FOLDER
        from loan_platform.ingest.source import SourceError, source_at
        from loan_platform.proposal.drafting import draft, write_draft
        from loan_platform.proposal.propose import ProposalError, Wishes

        asked, path = request.params, request.target_path / "defs.yaml"
        if request.scaffold_format != "yaml" or request.append:
            raise click.ClickException("a portfolio is one contract in a defs.yaml of its own")
        wishes = Wishes(
            outcome=asked.outcome,
            bad=tuple(asked.bad),
            good=tuple(asked.good),
            time=asked.time,
            key=asked.key,
            use=tuple(asked.use),
            ignore=tuple(asked.ignore),
        )
        try:
            source = source_at(asked.book, asked.table, asked.query)
            drafted = draft(source, request.target_path.name, wishes, click.echo)
            write_draft(drafted, path)
        except (ContractError, ProposalError, SourceError) as problem:
            if request.target_path.is_dir() and not any(request.target_path.iterdir()):
                request.target_path.rmdir()
            raise click.ClickException(str(problem)) from None
        click.echo(f"Wrote {path}. Check:")
        for what in drafted.proposal.to_check:
            click.echo(f"- {what}")
        if request.target_path.parent != FOLDER:
            click.echo(f"- only portfolios in {FOLDER} are served: move the folder there")
