"""The bands, how they were chosen, and what a loan earns."""

from __future__ import annotations

from loan_platform.contract.settings import PolicySettings
from loan_platform.evaluation.section import Figures, Subject

CHOSEN = {
    "youden": "the largest difference between the shares of bad and of good loans flagged (Youden)",
    "f1": "the largest F1 of the flagged",
    "profit": "the largest profit, by the terms below",
}


def figures(subject: Subject) -> Figures:
    settings, policy = subject.bundle.contract.policy, subject.bundle.policy
    bands = {"approve": policy.approve, "refer": policy.refer, "decline": policy.decline}
    return {
        "threshold": policy.threshold,
        "bands": [
            {
                "decision": name,
                "from": band[0],
                "below": band[1],
                "share": subject.evaluation.metrics.get(f"{name}_share"),
            }
            for name, band in bands.items()
        ],
        "chosen": _chosen(settings),
        "by_hand": settings.bands is not None,
        "profit": settings.profit.model_dump(mode="json") if settings.profit else None,
    }


def _chosen(settings: PolicySettings) -> str:
    """How the policy came about, as the end of a sentence."""
    if settings.bands is not None:
        return "by hand: the contract says these bands"
    if settings.threshold == "approval_rate":
        told = f"so that {settings.approval_rate:.0%} of the applications are approved"
    else:
        told = f"at {CHOSEN[settings.threshold]}"
    return f"{told}, with {settings.refer_share:.0%} of the applications around it referred"
