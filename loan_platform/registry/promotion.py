"""Whether a challenger becomes champion: evidence on rows neither of them learnt from.

**The rows.** Both models answer the same rows of the judge part, a stable hash of the application
id, so no version of any time was fitted, calibrated or thresholded on one. Two sets are looked at:

- *recent*: rows whose outcome became known after the older of the two was trained, which is as a
  rule the champion. They are today's applicants, and what a retrain is for. With at least
  `RECENT_ROWS` of them, and `LEAST_OF_A_CLASS` of each outcome, they decide.
- *all*: every judge row known by now. They decide where recent rows are too few, and otherwise
  guard: what was gained lately may not be paid for by a worse ranking of everyone else.

**The rule.** With a paired percentile bootstrap over the deciding rows (each resample is drawn
once and scored by both), gain of AUC and gain of log loss get an interval each at the contract's
`training.confidence`; so does the gain of profit per application where the contract has its terms.
The challenger is promoted when

- *gain*: the lower end of the interval of AUC or of log loss is above 0;

and none of these objects:

- *contract*: it was trained under the present contract;
- *book*: it did not learn from a simulated book what a champion learnt from a real one;
- *leak*: asked again on the judge rows, the leak guard blocks none of its columns;
- *floor*: its AUC on the deciding rows is at least `training.floor_auc`;
- *loss*: no gain on the deciding rows, profit included, lies below 0 with its whole interval;
- *everyone*: where recent rows decide, nor does the gain of AUC on all rows. Not of log loss or
  profit: they follow the level of the bad rate, and a challenger that promises today's rates is
  worse on yesterday's loans without being worse;
- *calibration*: its calibration error on the deciding rows is not surely above
  `promotion.maximum_calibration_error`, unless the champion's is no smaller;
- *fairness*: on the judge rows no group is surely below the contract's line, unless the champion
  treats that group no better.

The last two are lines that a book can cross by itself, after a shift or with a line drawn later.
Then both models may lie beyond, and refusing the one that is nearer would keep the other: so beyond
a line the champion may only be replaced by what is no further from it.

**Why this holds.** At a confidence of 95 % each lower end is
above 0 with a chance of 2.5 % when there is no gain, so the two ways in add up to at most 5 %
false promotions; all objections only take away. Profit is one of these and no third way in: that
would make it 7.5 %, for a figure that depends on the policy more than on the model. Where people
have changed the policy since the champion was trained, profit is shown and does not object: a
lender who wants to approve fewer has chosen to earn less. A challenger that equals the champion
has gains of exactly 0 and is refused. Log loss is a way in of its own because a shift of the bad
rate leaves the ranking, and so the AUC, as it was.

A *first* champion cannot gain: it has to pass the floor surely, with the lower end of its AUC's
interval, on at least `LEAST_OF_A_CLASS` judge rows of each outcome, and the other guards. So has a
challenger where there is nobody to compare it with: the champion is lost or damaged, needs columns
the contract no longer has (it cannot be asked about today's rows, by us or by the service), or
learnt from a simulated book what the challenger learnt from a real one.

Here: the judgement. Not here: the rows (`population`), the figures (`comparison`, `swap_set`), how
they are shown (`evidence`), moving the alias (`moves`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_platform.contract import Contract
from loan_platform.engine import duck
from loan_platform.model.bundle import Bundle
from loan_platform.registry.comparison import (
    Comparison,
    Measured,
    compare,
    measured_auc,
    measured_calibration_error,
)
from loan_platform.registry.population import population
from loan_platform.registry.swap_set import SwapSet, swap_set
from loan_platform.training.evaluate import RESAMPLES
from loan_platform.training.guard import refuse_leaks
from loan_platform.training.profit import profit_if_approved
from loan_platform.training.rows import Rows, TrainingError

if TYPE_CHECKING:
    from loan_platform.training.fairness import Attribute

RECENT_ROWS = 300
LEAST_OF_A_CLASS = 30


@dataclass(frozen=True)
class Objection:
    """What stands against a promotion: a rule of the module, and in words by how much."""

    rule: str
    sentence: str


@dataclass(frozen=True)
class Finding:
    """What one part of the judgement has to say, what it objects to, and its figures."""

    told: list[str] = field(default_factory=list)
    objections: list[Objection] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Promote or not, why in sentences, and the figures behind it (JSON-ready).

    `swap_set`: None where there is no champion that answers the same rows.
    """

    promote: bool
    reasons: list[str]
    evidence: dict[str, Any] = field(default_factory=dict)
    swap_set: SwapSet | None = None


@dataclass(frozen=True)
class Case:
    """A challenger before its judge, with the answers of both models to the n judge rows.

    `champion` and `rival`, its probabilities, are None where there is nobody to compare with.
    `unknown`: decisions of challenger and champion on applications without an outcome.
    """

    contract: Contract
    rows: Rows
    challenger: Bundle
    probability: np.ndarray
    champion: Bundle | None = None
    rival: np.ndarray | None = None
    unknown: tuple[np.ndarray, np.ndarray] | None = None
    resamples: int = RESAMPLES

    @property
    def bootstrap(self) -> dict[str, Any]:
        """How every interval is made."""
        settings = self.contract.training
        return {
            "confidence": settings.confidence,
            "seed": settings.seed,
            "count": self.resamples,
        }

    @cached_property
    def earned(self) -> np.ndarray | None:
        """Money each row brings if approved, (n,); None where the contract has no terms."""
        return profit_if_approved(self.contract, self.rows)

    @property
    def older(self) -> tuple[str, dt.datetime]:
        """Which of the two knows less of what became of loans, and until when it knows (UTC)."""
        known_by = {"challenger": self.challenger.record.as_of.astimezone(dt.UTC)}
        if self.champion is not None:
            known_by["champion"] = self.champion.record.as_of.astimezone(dt.UTC)
        return min(reversed(known_by.items()), key=lambda one: one[1])

    @cached_property
    def recent(self) -> np.ndarray:
        """Which rows' outcomes became known since the older of the two was trained, (n,)."""
        return np.asarray(self.rows.known_at > np.datetime64(self.older[1].replace(tzinfo=None)))

    @cached_property
    def recent_decide(self) -> bool:
        there = self.rows.outcome[self.recent]
        if self.champion is None:
            return False
        return len(there) >= RECENT_ROWS and min(_classes(there)) >= LEAST_OF_A_CLASS

    @property
    def deciding(self) -> np.ndarray:
        return self.recent if self.recent_decide else np.ones(len(self.rows), dtype=bool)

    @cached_property
    def decisions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of challenger and champion on the judge rows, each by its own policy."""
        if self.champion is None or self.rival is None:
            return None
        theirs = self.champion.policy.decide(self.rival)
        return self.challenger.policy.decide(self.probability), theirs

    def compared(self, chosen: np.ndarray) -> Comparison:
        """Both models on the rows of the mask `chosen`."""
        assert self.rival is not None
        assert self.decisions is not None
        profit = None
        if self.earned is not None:
            ours, theirs = (
                np.where(decided == "approve", self.earned, 0.0)[chosen]
                for decided in self.decisions
            )
            profit = ours, theirs
        return compare(
            self.rows.outcome[chosen],
            self.probability[chosen],
            self.rival[chosen],
            profit=profit,
            **self.bootstrap,
        )

    @property
    def swapped(self) -> SwapSet | None:
        """Both models' decisions, on applications with an outcome and without."""
        if self.decisions is None:
            return None
        ours, theirs = self.decisions
        outcome, earned = self.rows.outcome.astype(np.float64), self.earned
        if self.unknown is not None:
            nothing = np.full(len(self.unknown[0]), np.nan)
            ours = np.concatenate([ours, self.unknown[0]])
            theirs = np.concatenate([theirs, self.unknown[1]])
            outcome = np.concatenate([outcome, nothing])
            earned = None if earned is None else np.concatenate([earned, nothing])
        return swap_set(
            ours,
            theirs,
            outcome,
            earned=earned,
            confidence=self.contract.training.confidence,
        )


def judge(
    contract: Contract,
    challenger: Bundle,
    champion: Bundle | None,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    raw: dict[str, Path] | None = None,
    reported: Path | None = None,
    lost: str | None = None,
) -> Verdict:
    """Decide by the module's rule, on the judge rows of `cleaned` with outcomes known by `as_of`.

    `raw` and `reported`: the raw layer, with the groups that fairness compares and the terms of
    profit, and every outcome ever reported, as `training.rows.known_rows` takes them. `lost`: why
    there is no `champion` although there was one.

    Raises:
        TrainingError: as `population` does.
    """
    if objection := _incomparable(contract, challenger, champion):
        return _verdict([Finding(objections=[objection])])

    alone = _nobody_to_compare_with(contract, challenger, champion, lost)
    found = population(
        contract,
        cleaned,
        as_of,
        champions=champion.contract if champion and not alone else None,
        raw=raw,
        reported=reported,
    )
    rows = found.rows
    case = Case(contract, rows, challenger, challenger.probability(rows.matrix, duck.THREADS))
    if champion is not None and not alone:
        case = dataclasses.replace(
            case,
            champion=champion,
            rival=champion.probability(found.champion, duck.THREADS),
            unknown=(
                _decisions(challenger, found.unknown[0]),
                _decisions(champion, found.unknown[1]),
            ),
        )
    return decide(case, alone, _leaks(contract, cleaned, rows))


def decide(case: Case, alone: str | None = None, *before: Finding) -> Verdict:
    """The rule, on a case. `alone`: why there is nobody to compare with; `before`: found so far."""
    findings = [
        _by_floor(case, alone) if alone else _by_gain(case),
        *before,
        _calibration(case),
        _fairness(case),
    ]
    return _verdict(findings, case.swapped)


def _verdict(findings: list[Finding], swapped: SwapSet | None = None) -> Verdict:
    objections = [one for finding in findings for one in finding.objections]
    evidence: dict[str, Any] = {"refused_by": [one.rule for one in objections]}
    for finding in findings:
        evidence |= finding.evidence
    if swapped is not None:
        evidence["swap_set"] = swapped.figures()
    end = [f"refused by the rule {one.rule}: {one.sentence}" for one in objections]
    return Verdict(
        promote=not objections,
        reasons=[
            *(sentence for finding in findings for sentence in finding.told),
            *(end or ["promoted: no rule objects"]),
        ],
        evidence=evidence,
        swap_set=swapped,
    )


def _incomparable(
    contract: Contract, challenger: Bundle, champion: Bundle | None
) -> Objection | None:
    """Why a challenger is refused before it is asked about any row."""
    hashes = {challenger.record.contract_hash, challenger.contract.contract_hash}
    if hashes != {contract.contract_hash}:
        out = contract.ignored_columns
        used = [c.name for c in challenger.contract.input_columns if c.name in out]
        told = "".join(f"; it uses {name}, which stays out now ({out[name]})" for name in used)
        return Objection(
            "contract",
            f"the challenger was trained under contract {challenger.contract.contract_hash}, and "
            f"the contract is now {contract.contract_hash}{told}; train again",
        )
    if champion and challenger.record.simulated and not champion.record.simulated:
        return Objection(
            "book",
            "the challenger learnt from a simulated book, and the champion from a real one; "
            "set LOAN_DATA_DIR to the folder of the real book, materialize its months again "
            "and train again",
        )
    return None


def _nobody_to_compare_with(
    contract: Contract, challenger: Bundle, champion: Bundle | None, lost: str | None
) -> str | None:
    """Why the challenger stands alone; None where it is compared with the champion."""
    if champion is None:
        return lost or "there is no champion yet"
    if champion.record.simulated and not challenger.record.simulated:
        return "the champion learnt from a simulated book"
    if lacking := _lacking(champion.contract, contract):
        return f"the champion needs {lacking}, which the contract no longer has"
    return None


def _by_gain(case: Case) -> Finding:
    settings = case.contract.training
    everyone = case.compared(np.ones(len(case.rows), dtype=bool))
    deciding = case.compared(case.recent) if case.recent_decide else everyone
    older, since = case.older
    recent = f"outcomes known since {since:%Y-%m-%d}, when the {older} was trained"
    which = recent if case.recent_decide else "all outcomes"
    told = [f"judged on {which}: {_sentence(deciding)}"]
    objections = []
    reached = deciding.auc.challenger
    if reached < settings.floor_auc:
        objections.append(_floor(settings.floor_auc, reached, "its AUC"))
    if not any(gain.surely_above for gain in _ways_in(deciding)):
        short = " and ".join(f"{abs(gain.low):.4f}" for gain in _ways_in(deciding))
        objections.append(
            Objection(
                "gain",
                "neither AUC nor log loss is surely better: the lower ends of the intervals of "
                f"their gains are {short} short of a gain",
            )
        )
    policy_changed = case.champion is not None and (
        case.champion.contract.policy != case.contract.policy
    )
    if policy_changed and deciding.profit:
        told.append(
            "the contract's policy was changed since the champion was trained, so profit is shown "
            "and does not object"
        )
    for name, gain in deciding.lost.items():
        if name != "profit" or not policy_changed:
            objections.append(_loss("loss", name, gain))
    if case.recent_decide and everyone.auc.gain.surely_below:
        objections.append(_loss("everyone", "on all outcomes AUC", everyone.auc.gain))
    evidence = {
        "deciding_rows": "recent" if case.recent_decide else "all",
        "recent_rows": int(case.recent.sum()),
        "recent_since": since.isoformat(),
        "all": everyone.figures(),
        **({"recent": deciding.figures()} if case.recent_decide else {}),
        "floor_auc": settings.floor_auc,
        "confidence": settings.confidence,
    }
    return Finding(told, objections, evidence)


def _by_floor(case: Case, why: str) -> Finding:
    settings = case.contract.training
    reached = measured_auc(case.rows.outcome, case.probability, **case.bootstrap)
    good, bad = _classes(case.rows.outcome)
    told = [
        f"{why}, so only the floor counts: AUC {reached.value:.4f} ({reached.low:.4f} to "
        f"{reached.high:.4f}) on {len(case.rows):,} rows"
    ]
    objections = []
    if reached.low < settings.floor_auc:
        lower = "the lower end of its AUC's interval"
        objections.append(_floor(settings.floor_auc, reached.low, lower))
    if min(good, bad) < LEAST_OF_A_CLASS:
        objections.append(
            Objection(
                "floor",
                f"{bad} bad and {good} good loans are too few to judge on; at least "
                f"{LEAST_OF_A_CLASS} of each are needed: ingest more months, or wait for outcomes",
            )
        )
    evidence = {
        "deciding_rows": "all",
        "no_champion": why,
        "all": {
            "rows": len(case.rows),
            "bad": bad,
            "challenger_auc": reached.value,
            "challenger_interval": [reached.low, reached.high],
        },
        "floor_auc": settings.floor_auc,
        "confidence": settings.confidence,
    }
    return Finding(told, objections, evidence)


def _leaks(contract: Contract, cleaned: dict[str, Path], rows: Rows) -> Finding:
    """The leak guard of training, asked again: a bundle may have been made some other way."""
    accepted = contract.leaks_accepted
    told = [f"{name} is used although it leaks: {why}" for name, why in accepted.items()]
    evidence: dict[str, Any] = {"leaks_accepted": dict(accepted)}
    try:
        refuse_leaks(contract, cleaned, rows)
    except TrainingError as error:
        return Finding(told, [Objection("leak", str(error))], evidence)
    return Finding(told, [], evidence)


def _calibration(case: Case) -> Finding:
    allowed = case.contract.promotion.maximum_calibration_error
    outcome = case.rows.outcome[case.deciding]

    def apart(probability: np.ndarray) -> Measured:
        return measured_calibration_error(outcome, probability[case.deciding], **case.bootstrap)

    ours = apart(case.probability)
    told, objections = [], []
    evidence = {"calibration_error": list(ours), "maximum_calibration_error": allowed}
    if ours.low > allowed:
        why = (
            f"promised and observed bad rates are {ours.value:.4f} apart ({ours.low:.4f} to "
            f"{ours.high:.4f}), surely more than promotion.maximum_calibration_error {allowed:g}, "
            f"by {ours.low - allowed:.4f} or more"
        )
        theirs = None if case.rival is None else apart(case.rival)
        if theirs is not None:
            evidence["champion_calibration_error"] = list(theirs)
        if theirs is not None and theirs.value >= ours.value:
            told.append(f"{why}; the champion's are {theirs.value:.4f}, so it does not object")
        else:
            objections.append(Objection("calibration", why))
    return Finding(told, objections, evidence)


def _fairness(case: Case) -> Finding:
    from loan_platform.training.fairness import compare_groups, refusals

    contract, settings = case.contract, case.contract.training

    def compared(probability: np.ndarray, bundle: Bundle) -> list[Attribute]:
        return compare_groups(
            contract,
            case.rows,
            probability,
            bundle.policy,
            confidence=settings.confidence,
            seed=settings.seed,
        )

    ours = compared(case.probability, case.challenger)
    refused, told = refusals(contract, ours), []
    if refused and case.champion is not None and case.rival is not None:
        left = refusals(contract, _treated_worse(ours, compared(case.rival, case.champion)))
        told = [
            f"{sentence}; the champion treats this group no better, so it does not object"
            for sentence in refused
            if sentence not in left
        ]
        refused = left
    evidence = {
        "fairness": [
            {"column": one.column, "group": group.name, "ratio": group.ratio}
            | {"ratio_interval": [group.ratio_low, group.ratio_high]}
            for one in ours
            for group in one.groups
        ]
    }
    return Finding(told, [Objection("fairness", sentence) for sentence in refused], evidence)


def _treated_worse(ours: list[Attribute], theirs: list[Attribute]) -> list[Attribute]:
    """`ours` with only the groups whose ratio is below the one they have in `theirs`.

    A ratio below the line may rise to another below it: a challenger that mends part of what the
    champion does is not refused for the rest.
    """
    before = {(one.column, group.name): group.ratio for one in theirs for group in one.groups}

    def worse(column: str, name: str, ratio: float | None) -> bool:
        was = before.get((column, name))
        return ratio is None or was is None or ratio < was

    return [
        dataclasses.replace(
            one, groups=[g for g in one.groups if worse(one.column, g.name, g.ratio)]
        )
        for one in ours
    ]


def _floor(floor: float, reached: float, what: str) -> Objection:
    return Objection(
        "floor",
        f"{what} of {reached:.4f} is {floor - reached:.4f} below training.floor_auc {floor:g}",
    )


def _loss(rule: str, what: str, gain: Measured) -> Objection:
    return Objection(
        rule,
        f"{what} is surely worse, by {-gain.value:.4f} ({-gain.high:.4f} to {-gain.low:.4f})",
    )


def _ways_in(compared: Comparison) -> Iterator[Measured]:
    yield from (compared.auc.gain, compared.log_loss.gain)


def _sentence(compared: Comparison) -> str:
    parts = [
        f"{name} {pair.challenger:.4f} against the champion's {pair.champion:.4f}, a gain of "
        f"{pair.gain.value:+.4f} ({pair.gain.low:+.4f} to {pair.gain.high:+.4f})"
        for name, pair in compared.measures.items()
    ]
    return f"on {compared.rows:,} rows {'; '.join(parts)}"


def _classes(outcome: np.ndarray) -> tuple[int, int]:
    """Good and bad loans."""
    return int((outcome == 0).sum()), int((outcome == 1).sum())


def _decisions(bundle: Bundle, matrix: np.ndarray) -> np.ndarray:
    return bundle.policy.decide(bundle.probability(matrix, duck.THREADS))


def _lacking(old: Contract, new: Contract) -> str:
    """Input columns of `old` that rows cleaned under `new` do not have, or have otherwise."""
    there = {column.name: column.type for column in new.input_columns}
    return ", ".join(c.name for c in old.input_columns if there.get(c.name) != c.type)
