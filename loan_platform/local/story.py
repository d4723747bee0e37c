"""What happened in a demo, as data: told by `demo`, shown by `report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loan_platform.contract import Contract
from loan_platform.drift.report import DriftReport
from loan_platform.local.applications import Answers


@dataclass(frozen=True)
class Retraining:
    """What the sensor's run did: the version it trained, and the decision about it."""

    reason: str
    version: str
    decision: str
    reasons: list[str]
    champion_before: str
    champion_after: str


@dataclass
class MonthStory:
    """What happened in one month of the demo."""

    month: str
    shifted: bool
    answers: Answers
    outcomes_reported: int = 0
    drift: DriftReport | None = None
    retrain: Retraining | None = None


@dataclass
class Story:
    """Everything the closing table and the report tell."""

    contract: Contract
    simulated: bool
    source: str
    seed: int
    shift: str  # the planted one, in words
    history: dict[str, Any] = field(default_factory=dict)
    first_champion: dict[str, Any] = field(default_factory=dict)
    bento: str = ""
    months: list[MonthStory] = field(default_factory=list)
    afterwards: Answers = field(default_factory=Answers)

    @property
    def answers(self) -> Answers:
        return sum((month.answers for month in self.months), Answers()) + self.afterwards
