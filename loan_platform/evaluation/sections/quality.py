"""Every metric with its interval, on the judge rows and on the newest months alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loan_platform.evaluation.section import Figures, Subject

# What is told of each metric, in this order.
METRICS = {
    "auc": ("AUC", "how often a bad loan scores above a good one; 0.5 is chance"),
    "gini": ("Gini", "2 x AUC - 1"),
    "ks": ("KS", "largest distance between the scores of bad and good loans"),
    "pr_auc": ("PR-AUC", "mean precision over recall; by chance the bad rate"),
    "log_loss": ("log loss", "of the probabilities, in nats; less is better"),
    "brier": ("Brier", "mean squared distance of probability and outcome; less is better"),
    "calibration_error": ("calibration error", "mean distance of promised and observed bad rate"),
    "accuracy": ("accuracy", "at the threshold"),
    "precision": ("precision", "bad loans among the flagged"),
    "recall": ("recall", "flagged among the bad loans"),
    "specificity": ("specificity", "not flagged among the good loans"),
    "f1": ("F1", "of precision and recall"),
    "bad_rate": ("bad rate", "of the judging rows"),
    "bad_rate_approved": ("bad rate of the approved", "had this policy decided"),
    "approve_share": ("approved", "share of the judging rows"),
    "refer_share": ("referred", "share of the judging rows"),
    "decline_share": ("declined", "share of the judging rows"),
    "profit_per_loan": ("profit", "an application, in the book's money, by the terms below"),
    "profit_per_loan_all": ("profit if all were approved", "an application"),
}
KEY = ("auc", "log_loss", "calibration_error", "approve_share", "bad_rate", "bad_rate_approved")
SHARES = ("share", "rate", "approved")  # how the names of shares end


def figures(subject: Subject) -> Figures:
    record, metrics = subject.bundle.record, subject.evaluation.metrics
    table = list(_lines(metrics, record.out_of_time))
    return {
        "rows": len(subject.evaluation.outcome),
        "confidence": subject.bundle.contract.training.confidence,
        "notes": list(record.notes),
        "out_of_time": bool(record.out_of_time),
        "metrics": table,
        "key": [line for line in table if line["name"] in KEY],
    }


def _lines(metrics: dict[str, float], newest: dict[str, float]) -> Iterator[dict[str, Any]]:
    """One for each metric: as text, on the judge rows and on the newest months alone."""

    def told(of: dict[str, float], name: str, suffix: str = "") -> str:
        if name + suffix not in of:
            return ""
        value = of[name + suffix]
        if name.startswith("profit"):
            return f"{value:,.2f}"
        return f"{value:.1%}" if name.endswith(SHARES) else f"{value:.4f}"

    def interval(of: dict[str, float], name: str) -> str:
        if f"{name}_low" not in of:
            return ""
        return f"{told(of, name, '_low')} to {told(of, name, '_high')}"

    for name, (title, meaning) in METRICS.items():
        if name in metrics or name in newest:
            yield {
                "name": name,
                "title": title,
                "meaning": meaning,
                "value": told(metrics, name),
                "interval": interval(metrics, name),
                "newest": told(newest, name),
                "newest_interval": interval(newest, name),
            }
