"""The durable log of what the service decided, and what became of those loans.

Here: both tables, in SQLite files or in PostgreSQL, written and read.
Not here: who decides (`bento`), or the monthly snapshots made from these (`components.book`).
"""

from loan_platform.decisions.log import Decision, DecisionLog, read_decisions
from loan_platform.decisions.outcomes import (
    Outcome,
    read_outcome_history,
    read_outcomes,
    record_outcomes,
)

__all__ = [
    "Decision",
    "DecisionLog",
    "Outcome",
    "read_decisions",
    "read_outcome_history",
    "read_outcomes",
    "record_outcomes",
]
