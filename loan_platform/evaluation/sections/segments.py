"""How the model did on each value of the segments of the contract."""

from __future__ import annotations

import dataclasses

from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures | None:
    columns = [
        {"name": name, "slices": [dataclasses.asdict(one) for one in slices]}
        for name, slices in subject.evaluation.by_segment.items()
    ]
    return {"columns": columns} if columns else None
