"""What a contract says about how its book is judged: policy, training, promotion, monitoring.

Here: the settings, each with a default that suits most books. Not here: what the book is, and
every rule that ties the two together (`portfolio`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[float, float], Field(description="[low, high], both included")]
Decision = Literal["approve", "refer", "decline"]


class Section(BaseModel):
    """A part of a contract: unknown keys are errors, so a typo never passes silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bands(Section):
    """Probability of default -> decision: three ranges that cover [0, 1] without overlap."""

    approve: Interval
    refer: Interval
    decline: Interval


class Profit(Section):
    """What an approved loan earns or costs: the terms of the expected profit.

    A good loan earns amount x rate x years, a bad one costs amount x loss_given_default; a loan
    that is not approved does neither.
    """

    amount: str = Field(description="The column of the amount lent, in money")
    rate: str | float = Field(
        description="Yearly interest: a column, or one number for all as a fraction (0.11)"
    )
    rate_unit: Literal["percent", "fraction"] = Field(
        "fraction", description="How the column of rates is written: 11.5 or 0.115"
    )
    years: float = Field(1.0, gt=0, description="For how long interest is earned")
    loss_given_default: Probability = Field(
        0.6, description="Share of the amount that a bad loan loses"
    )

    @property
    def columns(self) -> list[str]:
        """The columns of the book it is computed from."""
        return [self.amount, *([self.rate] if isinstance(self.rate, str) else [])]


class PolicySettings(Section):
    """How the threshold is set: by hand with `bands`, else in training, off the judging rows."""

    threshold: Literal["youden", "f1", "profit", "approval_rate"] = "youden"
    profit: Profit | None = Field(
        None, description="Needed by threshold: profit; with it every version's profit is told"
    )
    approval_rate: Probability = Field(
        0.8, description="Share of applications approved, with threshold: approval_rate"
    )
    refer_share: Probability = Field(
        0.1,
        description="Share of applications that a person looks at, half on either side of the "
        "threshold",
    )
    bands: Bands | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if self.threshold == "profit" and self.profit is None:
            yield "threshold", "profit needs its terms; add profit: {amount: ..., rate: ...}"
        if self.bands is None:
            if self.threshold == "approval_rate" and self.approval_rate + self.refer_share > 1:
                yield (
                    "refer_share",
                    f"{self.approval_rate:g} approved and {self.refer_share:g} referred are more "
                    "than all applications; lower one of the two",
                )
            return
        ranges = [(name, getattr(self.bands, name)) for name in ("approve", "refer", "decline")]
        for name, (low, high) in ranges:
            if low >= high:
                yield f"bands.{name}", f"low {low:g} is not below high {high:g}; write [low, high]"
        for (left, (_, end)), (right, (begin, _)) in itertools.pairwise(ranges):
            if begin < end:
                yield (
                    f"bands.{right}",
                    f"overlaps {left}: {right} begins at {begin:g}, {left} ends at {end:g}; "
                    "let each band begin where the one before ends",
                )
            elif begin > end:
                yield (
                    f"bands.{right}",
                    f"leaves a gap after {left}, {end:g} to {begin:g}; "
                    "let each band begin where the one before ends",
                )
        if ranges[0][1][0] != 0 or ranges[-1][1][1] != 1:
            yield "bands", "the bands must cover 0 to 1; begin approve at 0 and end decline at 1"


Family = Literal[
    "lightgbm",
    "random_forest",
    "gradient_boosting",
    "hist_gradient_boosting",
    "logistic",
    "neural_net",
    "xgboost",
    "catboost",
]


class Search(Section):
    """What the asset model_search may try; without a search, one LightGBM with good settings."""

    families: list[Family] = Field(
        [
            "lightgbm",
            "logistic",
            "hist_gradient_boosting",
            "random_forest",
            "gradient_boosting",
            "neural_net",
        ],
        min_length=1,
        description="xgboost and catboost need the extra [families], and are left out without it",
    )
    trials: int = Field(16, ge=1, description="Most trials; those of an earlier search count")
    minutes: float | None = Field(None, gt=0, description="No trial begins after that long")
    metric: Literal["log_loss", "auc"] = "log_loss"
    folds: int = Field(3, ge=2, le=10, description="Of the inner cross-validation")
    members: int = Field(4, ge=1, le=8, description="Most models of a blend; 1: the best alone")


class Training(Section):
    seed: int = 7
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: bad loans weigh as much as good ones while fitting"
    )
    search: Search = Search()
    segments: list[str] = Field(
        [],
        description="Columns by whose values every version is measured; else its categories",
    )
    minimum_rows: int = Field(
        500, ge=50, description="Fewer rows with a known outcome: no training"
    )
    floor_auc: Probability = Field(0.6, description="No version below this is ever promoted")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Promotion(Section):
    """Who moves the alias champion, and what a version must show besides being better."""

    mode: Literal["automatic", "manual", "two_person"] = Field(
        "automatic",
        description="manual: a person promotes; two_person: one asks, another approves",
    )
    maximum_calibration_error: Probability = Field(
        0.05, description="No version whose promised and observed rates are further apart"
    )
    alias_moved_by_hand: Literal["put_back", "adopt"] = Field(
        "put_back", description="What becomes of a champion that the ledger does not know"
    )


class Fairness(Section):
    """How the groups of protected columns are compared on the judging rows."""

    minimum_ratio: Probability = Field(
        0.8, description="Approval rate of a group over that of the best group: four fifths"
    )
    minimum_rows: int = Field(100, ge=1, description="Smaller groups are shown and do not judge")
    gate: Literal["refuse", "report"] = Field(
        "refuse", description="What a ratio surely below the minimum does to a challenger"
    )
    accepted: dict[str, str] = Field(
        {}, description="Columns whose groups may lie below it, each with the reason"
    )


class Drift(Section):
    """Rule E of docs/drift.md."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.005
    psi_floor: float = Field(0.01, ge=0, description="Bias-corrected PSI below this is immaterial")
    minimum_rows: int = Field(300, ge=50)
    fine_bins: int = Field(64, ge=10, le=256)
    decision_bins: int = Field(10, ge=4, le=20)


class Checks(Section):
    """Settings of the checks on a month's rows."""

    row_count_factor: float = Field(
        3.0, gt=1, description="A month with that many times more or fewer rows is reported"
    )
    row_count_months: int = Field(6, ge=1, description="Against the median of this many before it")


class Retrain(Section):
    on_drift: bool = True
    cooldown_minutes: float = Field(360, ge=0, description="Least time between two retrains")


class Freshness(Section):
    """Days since the last materialization after which an asset warns, and fails."""

    warn_after_days: float = Field(32, gt=0, description="Monthly assets")
    fail_after_days: float = Field(40, gt=0, description="Monthly assets")
    model_warn_after_days: float = Field(180, gt=0, description="Bins, model, champion, service")
    model_fail_after_days: float = Field(270, gt=0, description="Bins, model, champion, service")

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if self.warn_after_days >= self.fail_after_days:
            yield "warn_after_days", "warns after it fails; make it smaller than fail_after_days"
        if self.model_warn_after_days >= self.model_fail_after_days:
            yield (
                "model_warn_after_days",
                "warns after it fails; make it smaller than model_fail_after_days",
            )
