"""What the model does not do, and what its figures do not say."""

from __future__ import annotations

from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures:
    return {"replay": subject.bundle.contract.time.replay is not None}
