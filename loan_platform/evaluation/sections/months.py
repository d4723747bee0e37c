"""How the model did on the judge rows of each month of application."""

from __future__ import annotations

import dataclasses

from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures | None:
    by_month = subject.evaluation.by_month
    return {"months": [dataclasses.asdict(one) for one in by_month]} if by_month else None
