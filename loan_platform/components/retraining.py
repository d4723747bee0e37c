"""A failed drift check asks for the model again: when, and with what on record.

Here: the decision, as a function of evidence, and the sensor that gathers the evidence.
Not here: what is materialized (`loan_portfolio`), how drift is judged (`loan_platform.drift`).

The sensor keeps no cursor. What it knows is what Dagster's storage knows (failed checks, the last
model, the last retrain), so a restart, a lost tick or a second daemon changes nothing; and the run
key is made from the evidence, so Dagster itself refuses to launch the same answer twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from loan_platform.components.checks_history import FailedCheck, failed_checks
from loan_platform.contract import Contract

# Metadata of the model's materialization: the last partition ("YYYY-MM") it was trained on.
TRAINED_THROUGH = "trained_through"

RETRAIN_TAG = "loan/retrain"
TRIGGER_RUN_TAG = "loan/trigger_run"
TRIGGER_CHECK_TAG = "loan/trigger_check"
DRIFTED_PARTITION_TAG = "loan/drifted_partition"
REASON_TAG = "loan/reason"
# Not the run's creation time in storage: that has whole seconds on SQLite and the server's own time
# zone on PostgreSQL.
REQUESTED_AT_TAG = "loan/requested_at"

OPEN = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Evidence:
    """What is known when the sensor ticks. Times are epoch seconds.

    `failures` are those later than `answered_at`: the start of the training that made the present
    model or the last request for a retrain, whichever is later (None: neither ever was).
    `answered_through`: the drifted month that the last successful retrain was asked for.
    """

    now: float
    failures: Sequence[FailedCheck]
    answered_at: float | None = None
    trained_through: str | None = None
    answered_through: str | None = None
    open_run: str | None = None


@dataclass(frozen=True)
class Retrain:
    """Train again: the key that stands for this evidence, and the tags of the run."""

    run_key: str
    tags: dict[str, str]
    reason: str


@dataclass(frozen=True)
class Wait:
    """Do not train now, and why."""

    reason: str


def decide(portfolio: str, cooldown_minutes: float, evidence: Evidence) -> Retrain | Wait:
    """Whether the evidence calls for a retrain.

    Several failures make one retrain, with the newest as its trigger. A failure makes none where
    the model was already trained through all its partitions, or a retrain that ended well was
    asked for by them: judged again, such a month fails again (its outcomes are not known yet, or
    no better model came of it), and training again on the same rows would go round for ever. The
    next month that drifts asks anew.
    """
    if evidence.open_run:
        return Wait(f"a retrain is already open: run {evidence.open_run}")
    if not evidence.failures:
        return Wait("no drift failure since the model was trained or a retrain was asked for")
    through = evidence.trained_through
    known = max(filter(None, (through, evidence.answered_through)), default=None)
    new = [failure for failure in evidence.failures if _beyond(failure, known)]
    if not new:
        drifted = ", ".join(sorted({key for f in evidence.failures for key in f.partitions}))
        why = (
            f"the model is trained through {through}"
            if known == through
            else f"a retrain has answered the drift of {known}"
        )
        return Wait(f"{drifted} drifted, but {why} already; a person should look at the report")
    if evidence.answered_at is not None:
        ready_at = evidence.answered_at + cooldown_minutes * 60
        if evidence.now < ready_at:
            until = dt.datetime.fromtimestamp(ready_at, dt.UTC)
            return Wait(f"cooling down until {until:%Y-%m-%d %H:%M:%S} UTC")
    trigger = max(new, key=lambda failure: failure.timestamp)
    check = trigger.key.to_user_string()
    drifted_keys = sorted({key for failure in new for key in failure.partitions})
    what = f"{len(new)} failures" if len(new) > 1 else "1 failure"
    of_what = f" of {', '.join(drifted_keys)}" if drifted_keys else ""
    model = f"a model trained through {through}" if through else "the model before"
    reason = f"{what} of {check}{of_what} since {model}"
    tags = {
        RETRAIN_TAG: portfolio,
        TRIGGER_CHECK_TAG: check,
        REASON_TAG: reason,
        REQUESTED_AT_TAG: dt.datetime.fromtimestamp(evidence.now, dt.UTC).isoformat(),
    }
    if trigger.run_id:  # an evaluation reported outside a run has none
        tags[TRIGGER_RUN_TAG] = trigger.run_id
    if drifted_keys:
        tags[DRIFTED_PARTITION_TAG] = drifted_keys[-1]
    run_key = f"{portfolio}:{trigger.run_id or 'runless'}:{trigger.timestamp:.6f}"
    return Retrain(run_key, tags, reason)


def _beyond(failure: FailedCheck, through: str | None) -> bool:
    """Whether a failure tells of a partition later than `through` (or does not say which)."""
    if through is None or not failure.partitions:
        return True
    return any(key > through for key in failure.partitions)


def gather(
    instance: dg.DagsterInstance,
    portfolio: str,
    *,
    check_key: dg.AssetCheckKey,
    model: dg.AssetKey,
    now: float,
) -> Evidence:
    """Read the evidence from Dagster's storage."""
    newest = instance.get_runs(dg.RunsFilter(tags={RETRAIN_TAG: portfolio}), limit=1)
    still_open = instance.get_runs(
        dg.RunsFilter(tags={RETRAIN_TAG: portfolio}, statuses=OPEN), limit=1
    )
    trained_at, trained_through = _training(instance, model)
    requested_at = _requested_at(newest[0]) if newest else None
    answered_at = max((at for at in (trained_at, requested_at) if at is not None), default=None)
    return Evidence(
        now=now,
        failures=failed_checks(instance, check_key, since=answered_at or 0.0),
        answered_at=answered_at,
        trained_through=trained_through,
        answered_through=_answered_through(instance, portfolio),
        open_run=still_open[0].run_id if still_open else None,
    )


def _requested_at(run: dg.DagsterRun) -> float | None:
    text = run.tags.get(REQUESTED_AT_TAG)
    return dt.datetime.fromisoformat(text).timestamp() if text else None


def _answered_through(instance: dg.DagsterInstance, portfolio: str) -> str | None:
    """The month that the newest successful retrain was asked for, where one names a month."""
    succeeded = instance.get_runs(
        dg.RunsFilter(tags={RETRAIN_TAG: portfolio}, statuses=[dg.DagsterRunStatus.SUCCESS])
    )
    return next((key for run in succeeded if (key := run.tags.get(DRIFTED_PARTITION_TAG))), None)


def _training(instance: dg.DagsterInstance, model: dg.AssetKey) -> tuple[float | None, str | None]:
    """When the training of the present model began, and the last partition it used.

    Began, not ended: a failure that arrives while a model is being trained is news to that model.
    """
    event = instance.get_latest_materialization_event(model)
    if event is None or event.asset_materialization is None:
        return None, None
    through = event.asset_materialization.metadata.get(TRAINED_THROUGH)
    run = instance.get_run_record_by_id(event.run_id) if event.run_id else None
    began = run.start_time if run and run.start_time else event.timestamp
    return began, str(through.value) if through else None


def retrain_sensor(
    contract: Contract,
    *,
    check_key: dg.AssetCheckKey,
    model: dg.AssetKey,
    selection: dg.AssetSelection,
) -> dg.SensorDefinition | None:
    """The sensor `<portfolio>_retrain_on_drift`, or None where `retrain.on_drift` is false.

    It materializes `selection` (unpartitioned assets) when `check_key` has failed on something
    that `model` does not know.
    """
    if not contract.retrain.on_drift:
        return None

    @dg.sensor(
        name=f"{contract.name}_retrain_on_drift",
        description=f"Trains {model.to_user_string()} again when {check_key.name} fails.",
        target=selection,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def retrain_on_drift(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = dt.datetime.now(dt.UTC).timestamp()
        evidence = gather(
            context.instance, contract.name, check_key=check_key, model=model, now=now
        )
        decision = decide(contract.name, contract.retrain.cooldown_minutes, evidence)
        if isinstance(decision, Wait):
            return dg.SkipReason(decision.reason)
        context.log.info(decision.reason)
        return dg.RunRequest(run_key=decision.run_key, tags=decision.tags)

    return retrain_on_drift
