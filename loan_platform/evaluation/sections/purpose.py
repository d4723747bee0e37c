"""What the model is for, and what "bad" means."""

from __future__ import annotations

from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures:
    contract = subject.bundle.contract
    column = contract.outcome_column
    return {
        "outcome": column.name,
        "outcome_description": column.description or "",
        "bad": [str(value) for value in contract.outcome.bad],
        "good": [str(value) for value in contract.outcome.good],
        "matures_after_days": contract.outcome.matures_after_days,
    }
