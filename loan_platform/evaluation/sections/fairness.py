"""How the model treats the groups of protected columns."""

from __future__ import annotations

import dataclasses

from loan_platform.evaluation.section import Figures, Subject
from loan_platform.training.fairness import below


def figures(subject: Subject) -> Figures:
    settings = subject.bundle.contract.fairness
    return {
        "minimum_ratio": settings.minimum_ratio,
        "minimum_rows": settings.minimum_rows,
        "gate": settings.gate,
        "accepted": list(settings.accepted),
        "columns": [
            {
                **dataclasses.asdict(one),
                "groups": [
                    {**dataclasses.asdict(group), "line": below(group, settings.minimum_ratio)}
                    for group in one.groups
                ],
            }
            for one in subject.evaluation.fairness
        ],
    }
