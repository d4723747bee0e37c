"""The pictures that show all of the model; a section's own stand in it."""

from __future__ import annotations

from loan_platform.evaluation.section import Figures, Subject

CAPTIONS = {
    "roc.png": "Bad loans found for good loans flagged, at every threshold",
    "precision_recall.png": "Bad loans among the flagged, for the share of them found",
    "calibration.png": "Promised and observed bad rate of each tenth of the scores, with 95 % bars",
    "score_distribution.png": "Scores of good and bad loans, and where the policy cuts",
    "confusion_matrix.png": "Good and bad loans, flagged and not, at the threshold",
    "lift.png": "Share of the bad loans in the riskiest tenths",
    "feature_importance.png": "Share of each input in what the model does",
    "fairness.png": "Approval rates of the groups of protected columns",
}


def figures(_subject: Subject) -> Figures:
    return {"shown": [{"file": file, "caption": words} for file, words in CAPTIONS.items()]}
