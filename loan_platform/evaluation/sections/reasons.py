"""How reasons are made, and what is usual among approved loans."""

from __future__ import annotations

from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures:
    reference = subject.bundle.reference
    return {
        "usual": [
            {"column": column.name, "value": reference[column.name], "unit": column.unit}
            for column in subject.bundle.contract.request_columns
            if column.name in reference
        ]
    }
