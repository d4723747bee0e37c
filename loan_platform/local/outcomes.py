"""Records a report of outcomes from the command line, and says what came of it.

Not here: reading and recording (`ingest.reports`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loan_platform.contract.portfolio import Source
from loan_platform.contract.portfolios import contract_of
from loan_platform.engine.home import Home
from loan_platform.ingest.source import SourceError

if TYPE_CHECKING:
    from rich.console import Console

REASONS_TOLD = 5


def record(portfolio: str, source: Source, observed_by: str, say: Console) -> None:
    """Record the outcomes of `source` for a portfolio; rows that name nobody are `observed_by`'s.

    Raises:
        ContractError: there is no such portfolio, or its contract is not valid.
        SourceError: the report cannot be read, or its outcomes cannot be written.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from loan_platform.ingest.reports import take_in

    contract = contract_of(portfolio)
    home = Home.from_environment()
    try:
        taken = take_in(contract, home, source, observed_by)
    except SQLAlchemyError as error:
        # From None: a database's message may repeat a row.
        place = "LOAN_PLATFORM_DECISIONS_URL" if home.decisions_url else str(home.decisions)
        raise SourceError(
            f"the outcomes cannot be written ({type(error).__name__}); see that the database of "
            f"{place} can be reached and written, and give the report again: what was recorded "
            "is kept"
        ) from None
    say.print(
        f"{source.name}: {taken.rows:,} rows, {taken.recorded:,} recorded, "
        f"{taken.already_known:,} known already, {taken.refused:,} refused",
        markup=False,
    )
    for reason, rows in list(taken.reasons.items())[:REASONS_TOLD]:
        say.print(f"  {rows:,} refused: {reason}", markup=False)
    if (more := len(taken.reasons) - REASONS_TOLD) > 0:
        say.print(f"  and {more} more reasons")
    if taken.refused_file:
        say.print(
            f"The refused rows lie with their reasons in {taken.refused_file}; "
            "mend them and give them again",
            markup=False,
        )
    say.print(
        f"next: loan-platform materialize {portfolio}\n"
        "      (without it, the open months of the book take them up on their nightly run)",
        markup=False,
    )
