"""The model card: all a reviewer asks of one version, on one page that holds its own pictures.

Here: what people read. Not here: any figure of it (`evaluate`, `fairness`), the pictures
(`pictures`), or where cards are kept (`registry.models`). A card goes to people who may not see
applicants: it holds rates of groups, and the usual approved application, which is nobody's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from loan_platform.contract import Contract
from loan_platform.contract.settings import PolicySettings
from loan_platform.model.bundle import Bundle, TrainingRecord
from loan_platform.model.calibrator import Calibrator
from loan_platform.training.evaluate import Evaluation
from loan_platform.training.fairness import below
from loan_platform.training.pictures import draw

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
SHARES = ("share", "rate", "approved")  # how the names of shares end
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
CHOSEN = {
    "youden": "the largest difference between the shares of bad and of good loans flagged (Youden)",
    "f1": "the largest F1 of the flagged",
    "profit": "the largest profit, by the terms below",
}


def model_card(
    bundle: Bundle,
    evaluation: Evaluation,
    *,
    version: str | None = None,
    pictures: Mapping[str, bytes] | None = None,
    runs: Mapping[str, str] | None = None,
) -> str:
    """The page, as HTML that loads nothing from elsewhere.

    `version` is its number in the registry; `pictures` are those of `draw`, drawn where not given;
    `runs`: name -> id of the runs that made it. What is not known is left out.
    """
    contract, record = bundle.contract, bundle.record
    environment = Environment(
        loader=PackageLoader("loan_platform.training"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "number": _number, "rows": _rows, "plain": _plain}
    drawn = draw(bundle, evaluation) if pictures is None else pictures
    return environment.get_template("card.html").render(
        contract=contract,
        record=record,
        policy=bundle.policy,
        version=version,
        outcome=contract.outcome_column,
        figures=list(_figures(evaluation.metrics, record.out_of_time)),
        evaluation=evaluation,
        pictures={
            name: (CAPTIONS.get(name, name), base64.b64encode(png).decode())
            for name, png in drawn.items()
        },
        chosen=_chosen(contract.policy),
        calibrator=_calibrated(bundle.calibrator),
        ingredients=_ingredients(record),
        inputs=_inputs(bundle),
        ignored=_by_reason(contract),
        fairness=[
            (one, [(group, below(group, contract.fairness.minimum_ratio)) for group in one.groups])
            for one in evaluation.fairness
        ],
        protected_accepted=protected_accepted(contract),
        reference=[
            (column, bundle.reference[column.name])
            for column in contract.request_columns
            if column.name in bundle.reference
        ],
        runs=dict(runs or {}),
        environment_hash=environment_hash(record),
    )


def protected_accepted(contract: Contract) -> dict[str, str]:
    """Input columns used although they are protected attributes, with the reason."""
    return {
        c.name: c.protected_accepted
        for c in contract.input_columns
        if c.protected_accepted is not None
    }


def environment_hash(record: TrainingRecord) -> str:
    """12 hex digits over the versions of what computed the probabilities."""
    text = json.dumps(record.environment, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Figure:
    """One line of the table of figures: on the judging rows, and on the newest months alone."""

    title: str
    meaning: str
    value: str
    interval: str
    newest: str
    newest_interval: str


def _figures(metrics: dict[str, float], newest: dict[str, float]) -> Iterator[_Figure]:
    def told(of: dict[str, float], name: str, suffix: str = "") -> str:
        if name + suffix not in of:
            return ""
        value = of[name + suffix]
        if name.startswith("profit"):
            return f"{value:,.2f}"
        return _share(value) if name.endswith(SHARES) else f"{value:.4f}"

    def interval(of: dict[str, float], name: str) -> str:
        if f"{name}_low" not in of:
            return ""
        return f"{told(of, name, '_low')} to {told(of, name, '_high')}"

    for name, (title, meaning) in METRICS.items():
        if name in metrics or name in newest:
            yield _Figure(
                title,
                meaning,
                told(metrics, name),
                interval(metrics, name),
                told(newest, name),
                interval(newest, name),
            )


def _ingredients(record: TrainingRecord) -> list[dict[str, str]]:
    """What each model of the blend is, with all its settings, those left at their default too."""
    told = []
    for number, one in enumerate(record.ingredients, start=1):
        before = f"{number}." if len(record.ingredients) > 1 else ""
        settings = {
            name.removeprefix(before): value
            for name, value in record.parameters.items()
            if name.startswith(before)
        }
        told.append(
            {
                "family": str(one["family"]),
                "weight": f"{one['weight']:.3g}",
                "size": f"{one['size']:,}" if one["size"] else "",
                "settings": ", ".join(
                    f"{name} {value}" for name, value in settings.items() if name not in one
                ),
            }
        )
    return told


def _calibrated(calibrator: Calibrator) -> str:
    if calibrator.kind == "sigmoid":
        return (
            "Platt's sigmoid on the log-odds, with slope "
            f"{calibrator.slope:.4f} and intercept {calibrator.intercept:+.4f}"
        )
    return f"isotonic on the log-odds, with {len(calibrator.points)} points"


def _chosen(settings: PolicySettings) -> str:
    """How the policy came about, as the end of a sentence."""
    if settings.bands is not None:
        return "by hand: the contract says these bands"
    if settings.threshold == "approval_rate":
        told = f"so that {settings.approval_rate:.0%} of the applications are approved"
    else:
        told = f"at {CHOSEN[settings.threshold]}"
    return f"{told}, with {settings.refer_share:.0%} of the applications around it referred"


def _inputs(bundle: Bundle) -> list[dict[str, str]]:
    """What the model sees, with the direction it is held to."""
    contract = bundle.contract
    directions = dict(zip(contract.model_inputs, contract.monotone_directions, strict=True))
    held = {1: "rises with it", -1: "falls with it", 0: ""}
    columns = [(c.name, c.description or "", c.unit, c.type) for c in contract.feature_columns]
    derived = [
        (name, f.description or f.sql, f.unit, "derived") for name, f in contract.features.items()
    ]
    return [
        {
            "name": name,
            "told": f"{told} ({unit})" if unit else told,
            "type": kind,
            "direction": held[directions[name]],
        }
        for name, told, unit, kind in (*columns, *derived)
    ]


def _by_reason(contract: Contract) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in contract.ignored_columns.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rows(value: float) -> str:
    return f"{value:,.0f}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.6g}"
