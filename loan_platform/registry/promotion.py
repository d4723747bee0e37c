"""Whether a challenger becomes champion: evidence on rows neither of them learnt from.

**The rows.** Both models answer the same rows of the judge part, a stable hash of the application
id, so no version of any time was fitted, calibrated or thresholded on one. Two sets are looked at:

- *recent*: rows whose outcome became known after the champion was trained. They are today's
  applicants, and what a retrain is for. With at least `RECENT_ROWS` of them, and
  `LEAST_OF_A_CLASS` of each outcome, they decide.
- *all*: every judge row known by now. They decide where recent rows are too few, and otherwise
  guard: what was gained lately may not be paid for by everyone else.

**The rule.** With a paired percentile bootstrap over the deciding rows (each resample is drawn
once and scored by both), gain of AUC and gain of log loss get an interval each at the contract's
`training.confidence`. The challenger is promoted when

1. its AUC on the deciding rows is at least `training.floor_auc`;
2. the lower end of the interval of one gain is above 0, and the upper end of the other's is not
   below 0;
3. where recent rows decide: on all rows neither interval lies wholly below 0.

Everything else leaves the champion. **Why this holds.** At a confidence of 95 % each lower end is
above 0 with a chance of 2.5 % when there is no gain, so the two ways in add up to at most 5 %
false promotions; conditions 1 and 3 only take away. A challenger that equals the champion has
gains of exactly 0 and is refused. Log loss is a way in of its own because a shift of the bad rate
leaves the ranking, and so the AUC, as it was.

A first champion has to pass the floor alone, but surely: the lower end of its AUC's interval
reaches it, on at least `LEAST_OF_A_CLASS` judge rows of each outcome. So has a challenger to a
champion whose columns the contract no longer has: such a champion cannot be asked about today's
rows, by us or by the service. And so has a challenger that learnt from a real book, to a champion
that learnt from a simulated one; the other way round, nothing is ever promoted.

Here: the judgement. Not here: moving the alias (`models`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loan_platform.contract import Contract
from loan_platform.engine import duck
from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import (
    RESAMPLES,
    auc,
    auc_interval,
    interval,
    log_losses,
    resamples,
    weighted_auc,
)
from loan_platform.training.rows import Rows, TrainingError, known_rows
from loan_platform.training.split import part

RECENT_ROWS = 300
LEAST_OF_A_CLASS = 30


@dataclass(frozen=True)
class Verdict:
    """Promote or not, why in sentences, and the figures behind it (JSON-ready)."""

    promote: bool
    reasons: list[str]
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same rows; a gain above 0 is in the challenger's favour.

    Gains come as (estimate, low, high): of AUC, and of mean log loss in nats (champion's minus
    challenger's).
    """

    rows: int
    challenger_auc: float
    champion_auc: float
    auc_gain: tuple[float, float, float]
    log_loss_gain: tuple[float, float, float]

    @property
    def better(self) -> bool:
        """One gain is surely above 0 and the other not surely below."""
        gains = (self.auc_gain, self.log_loss_gain)
        return any(low > 0 for _, low, _ in gains) and not self.worse

    @property
    def worse(self) -> bool:
        """A gain is surely below 0."""
        return self.auc_gain[2] < 0 or self.log_loss_gain[2] < 0

    @property
    def sentence(self) -> str:
        a, b = self.auc_gain, self.log_loss_gain
        return (
            f"on {self.rows:,} rows the challenger's AUC is {self.challenger_auc:.4f} against "
            f"{self.champion_auc:.4f}, a gain of {a[0]:+.4f} ({a[1]:+.4f} to {a[2]:+.4f}); "
            f"log loss gains {b[0]:+.4f} ({b[1]:+.4f} to {b[2]:+.4f})"
        )

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "challenger_auc": self.challenger_auc,
            "champion_auc": self.champion_auc,
            "auc_gain": list(self.auc_gain),
            "log_loss_gain": list(self.log_loss_gain),
        }


def judge(
    contract: Contract,
    challenger: Bundle,
    champion: Bundle | None,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    reported: Path | None = None,
) -> Verdict:
    """Decide by the module's rule, on the judge rows of `cleaned` with outcomes known by `as_of`.

    `reported`: every outcome ever reported, as `training.rows.known_rows` takes it.

    Raises:
        TrainingError: there are no judge rows of both outcomes, or the months changed while they
            were read.
    """
    if challenger.record.contract_hash != contract.contract_hash:
        return Verdict(
            False,
            [
                f"the challenger was trained under contract {challenger.record.contract_hash}, and "
                f"the contract is now {contract.contract_hash}; train again"
            ],
        )
    if champion and challenger.record.simulated and not champion.record.simulated:
        return Verdict(
            False,
            [
                "the challenger learnt from a simulated book, and the champion from a real one; "
                "set LOAN_DATA_DIR to the folder of the real book, materialize its months again "
                "and train again"
            ],
        )
    rows = _judge_rows(contract, cleaned, as_of, reported)
    probability = challenger.probability(rows.matrix, threads=duck.THREADS)
    if champion is None:
        return _first(contract, rows, probability, "there is no champion yet")
    if champion.record.simulated and not challenger.record.simulated:
        return _first(contract, rows, probability, "the champion learnt from a simulated book")
    if lacking := _lacking(champion.contract, contract):
        why = f"the champion needs {lacking}, which the contract no longer has"
        return _first(contract, rows, probability, why)

    asked = rows
    if champion.record.contract_hash != contract.contract_hash:
        asked = _judge_rows(contract, cleaned, as_of, reported, inputs_of=champion.contract)
        if not np.array_equal(asked.application_id, rows.application_id):
            raise TrainingError(
                f"cleaned_features of {contract.name} changed while they were read; "
                "materialize champion again once nothing else writes them"
            )
    rival = champion.probability(asked.matrix, threads=duck.THREADS)
    return _decide(contract, champion, rows, probability, rival)


def compare(
    outcome: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    count: int = RESAMPLES,
) -> Comparison:
    """Paired bootstrap of two models' probabilities for the same rows, each of shape (n,)."""
    saved = log_losses(outcome, champion) - log_losses(outcome, challenger)
    auc_gains, loss_gains = [], []
    for counts in resamples(len(outcome), count, seed):
        auc_gains.append(
            weighted_auc(outcome, challenger, counts) - weighted_auc(outcome, champion, counts)
        )
        loss_gains.append(counts @ saved / len(outcome))
    ours, theirs = auc(outcome, challenger), auc(outcome, champion)
    return Comparison(
        rows=len(outcome),
        challenger_auc=ours,
        champion_auc=theirs,
        auc_gain=(ours - theirs, *interval(np.concatenate(auc_gains), confidence)),
        log_loss_gain=(
            float(saved.mean()),
            *interval(np.concatenate(loss_gains), confidence),
        ),
    )


def _decide(
    contract: Contract,
    champion: Bundle,
    rows: Rows,
    probability: np.ndarray,
    rival: np.ndarray,
) -> Verdict:
    settings = contract.training

    def compared(chosen: np.ndarray) -> Comparison:
        return compare(
            rows.outcome[chosen],
            probability[chosen],
            rival[chosen],
            confidence=settings.confidence,
            seed=settings.seed,
        )

    trained = np.datetime64(champion.record.as_of.astimezone(dt.UTC).replace(tzinfo=None))
    recent = rows.known_at > trained
    bad, good = int(rows.outcome[recent].sum()), int((1 - rows.outcome[recent]).sum())
    enough = bad + good >= RECENT_ROWS and min(bad, good) >= LEAST_OF_A_CLASS
    everyone = compared(np.ones(len(rows), dtype=bool))
    deciding = compared(recent) if enough else everyone
    evidence = {
        "deciding_rows": "recent" if enough else "all",
        "recent_rows": bad + good,
        "all": everyone.figures(),
        **({"recent": deciding.figures()} if enough else {}),
        "floor_auc": settings.floor_auc,
        "confidence": settings.confidence,
    }
    which = "outcomes since the champion was trained" if enough else "all outcomes"
    reasons = [f"judged on {which}: {deciding.sentence}"]
    refused = []
    if deciding.challenger_auc < settings.floor_auc:
        refused.append(
            f"refused: its AUC of {deciding.challenger_auc:.4f} is "
            f"{settings.floor_auc - deciding.challenger_auc:.4f} below the floor of "
            f"{settings.floor_auc:g}"
        )
    if deciding.worse:
        refused.append("refused: one of the two gains is below 0 with its whole interval")
    elif not deciding.better:
        short = max(deciding.auc_gain[1], deciding.log_loss_gain[1])
        refused.append(
            "refused: neither gain is above 0 with its whole interval "
            f"(the nearer lower end is {short:+.4f})"
        )
    if enough and everyone.worse:
        refused.append(f"refused: it is worse on all outcomes: {everyone.sentence}")
    if not refused:
        reasons.append("promoted: a gain is above 0 with its whole interval, and no guard objects")
    return Verdict(not refused, reasons + refused, evidence)


def _first(contract: Contract, rows: Rows, probability: np.ndarray, why: str) -> Verdict:
    settings = contract.training
    reached = auc(rows.outcome, probability)
    low, high = auc_interval(rows.outcome, probability, settings.confidence, settings.seed)
    bad, good = int(rows.outcome.sum()), int((1 - rows.outcome).sum())
    sure = low >= settings.floor_auc
    reasons = [
        f"{why}, so only the floor counts: AUC {reached:.4f} ({low:.4f} to {high:.4f}) on "
        f"{len(rows):,} rows {'reaches' if sure else 'does not surely reach'} the floor of "
        f"{settings.floor_auc:g}"
    ]
    enough = min(bad, good) >= LEAST_OF_A_CLASS
    if not enough:
        reasons.append(
            f"refused: {bad} bad and {good} good loans are too few to judge on; at least "
            f"{LEAST_OF_A_CLASS} of each are needed: ingest more months, or wait for outcomes"
        )
    return Verdict(
        sure and enough,
        reasons,
        {
            "deciding_rows": "all",
            "all": {
                "rows": len(rows),
                "bad": bad,
                "challenger_auc": reached,
                "challenger_interval": [low, high],
            },
            "floor_auc": settings.floor_auc,
            "confidence": settings.confidence,
        },
    )


def _judge_rows(
    contract: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    reported: Path | None,
    inputs_of: Contract | None = None,
) -> Rows:
    known = known_rows(contract, cleaned, as_of, inputs_of=inputs_of, reported=reported)
    rows = known.where(part(known.application_id) == "judge")
    if len(set(rows.outcome.tolist())) < 2:
        raise TrainingError(
            f"the {len(rows):,} judge rows of {contract.name} do not have both outcomes; "
            "ingest more months, or wait until more outcomes are known"
        )
    return rows


def _lacking(old: Contract, new: Contract) -> str:
    """Input columns of `old` that rows cleaned under `new` do not have, or have otherwise."""
    there = {column.name: column.type for column in new.input_columns}
    return ", ".join(c.name for c in old.input_columns if there.get(c.name) != c.type)
