"""Which applications the model learnt from and was judged on, and which columns stay out."""

from __future__ import annotations

from loan_platform.contract import Contract
from loan_platform.evaluation.section import Figures, Subject


def figures(subject: Subject) -> Figures:
    record = subject.bundle.record
    return {
        "first_month": record.partitions[0],
        "last_month": record.partitions[-1],
        "months": len(record.partitions),
        "as_of": record.as_of.strftime("%Y-%m-%d %H:%M %Z"),
        "rows": dict(record.rows),
        "left_out": [
            {"reason": reason, "columns": names}
            for reason, names in _by_reason(subject.bundle.contract).items()
        ],
    }


def _by_reason(contract: Contract) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in contract.ignored_columns.items():
        reasons.setdefault(reason, []).append(name)
    return reasons
