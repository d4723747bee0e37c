"""Failed asset checks, failed runs and overdue assets become alerts: one sensor for the location.

Here: finding the failures in Dagster's storage and keeping each receiver's ledger in the sensor's
cursor. Not here: the wording, the ledger's rules and the sending (`loan_platform.alerts`).

At least once: a message is sent, then the ledger is stored. A receiver that is down is owed its
messages and holds up no other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster import DagsterEventType
from dagster._core.execution.plan.objects import StepFailureData
from pydantic import TypeAdapter

from loan_platform.alerts.delivery import VARIABLE, Delivery, Receiver, deliver, receivers
from loan_platform.alerts.ledger import Ledger, pending
from loan_platform.alerts.message import Alert, failed_check, failed_run, overdue_asset
from loan_platform.components.checks_history import failed_checks

Settled = Callable[[str, float], bool]

# Events of a run that say what it was to make and why it did not.
TELLING = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.RUN_FAILURE,
}

LEDGERS = TypeAdapter(dict[str, Ledger])


def alert_sensor() -> dg.SensorDefinition:
    """The sensor `alerts`: tells every receiver in `LOAN_PLATFORM_ALERT_URLS` of each failure."""

    @dg.sensor(
        name="alerts",
        description=f"Sends failed checks, failed runs and overdue assets to {VARIABLE}.",
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found, problems = receivers()
        for problem in problems:
            context.log.warning(problem)
        if not found:
            said = "; ".join(problems) or f"no receiver: {VARIABLE} is not set, so nothing is sent"
            return dg.SensorResult(skip_reason=said, cursor=context.cursor)
        assert context.repository_def is not None
        ledgers, said = tell(
            context.instance,
            context.repository_def,
            found,
            LEDGERS.validate_json(context.cursor) if context.cursor else {},
            now=dt.datetime.now(dt.UTC).timestamp(),
        )
        return dg.SensorResult(skip_reason=said, cursor=LEDGERS.dump_json(ledgers).decode())

    return alerts


def tell(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    found: list[Receiver],
    ledgers: dict[str, Ledger],
    *,
    now: float,
) -> tuple[dict[str, Ledger], str]:
    """Tell each receiver what it is owed; the new ledgers by receiver, and a line on what was done.

    The ledger of a receiver that is no longer configured is dropped.
    """
    before = {one.identity: ledgers.get(one.identity) or Ledger.opened(now) for one in found}

    def settled(key: str, failed_at: float) -> bool:
        return all(ledger.settled(key, failed_at) for ledger in before.values())

    since = min(ledger.since for ledger in before.values())
    failures = list(failures_since(instance, repository, since, settled))
    due = {identity: pending(failures, ledger) for identity, ledger in before.items()}
    # One thread a receiver: one that hangs until it times out costs the others nothing.
    with ThreadPoolExecutor(max_workers=len(found)) as pool:
        deliveries = list(pool.map(lambda one: deliver(due[one.identity], one), found))
    after = {
        one.identity: before[one.identity].after(
            due[one.identity],
            delivered=delivery.delivered,
            refused=delivery.refused,
            now=now,
        )
        for one, delivery in zip(found, deliveries, strict=True)
    }
    return after, "; ".join(
        _said(one, delivery, after[one.identity])
        for one, delivery in zip(found, deliveries, strict=True)
    )


def failures_since(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    since: float,
    settled: Settled,
) -> Iterator[Alert]:
    """Alerts on everything that failed later than `since` (epoch seconds) and is not `settled`."""
    yield from _failed_checks(instance, repository, since)
    yield from _failed_runs(instance, since, settled)
    yield from _overdue_assets(instance, repository, since)


def _failed_checks(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, since: float
) -> Iterator[Alert]:
    for check_key in sorted(repository.asset_graph.asset_check_keys):
        for failed in failed_checks(instance, check_key, since=since):
            yield failed_check(
                asset=failed.key.asset_key.path,
                check=failed.key.name,
                partitions=failed.partitions,
                description=failed.description,
                mend=failed.mend,
                warning=failed.severity is dg.AssetCheckSeverity.WARN,
                run_id=failed.run_id,
                failed_at=failed.timestamp,
            )


def _failed_runs(instance: dg.DagsterInstance, since: float, settled: Settled) -> Iterator[Alert]:
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE],
            updated_after=dt.datetime.fromtimestamp(since, dt.UTC),
        )
    )
    for record in records:
        run = record.dagster_run
        failed_at = record.end_time or record.update_timestamp.timestamp()
        if failed_at <= since or settled(f"run:{run.run_id}", failed_at):
            continue
        assets, reason = _post_mortem(instance, run.run_id)
        if reason is None:
            continue
        yield failed_run(
            run_id=run.run_id,
            job=run.job_name,
            assets=[key.path for key in assets],
            partitions=_partitions_of(run),
            reason=reason,
            failed_at=failed_at,
        )


def _post_mortem(instance: dg.DagsterInstance, run_id: str) -> tuple[set[dg.AssetKey], str | None]:
    """The assets a run was to make, and why it failed.

    No reason where failed blocking checks alone explain it: those have a message of their own.
    """
    assets: set[dg.AssetKey] = set()
    steps: list[str] = []
    explained = False
    said = None
    for entry in instance.all_logs(run_id, of_type=TELLING):
        event = entry.dagster_event
        assert event is not None  # of_type asks for Dagster's own events only
        match event.event_type:
            case DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
                assets |= {event.asset_key} if event.asset_key else set()
            case DagsterEventType.STEP_FAILURE:
                failure = event.step_failure_data
                if failure.error and failure.error.cls_name == "DagsterAssetCheckFailedError":
                    explained = True
                else:
                    steps.append(f"step {event.step_key} failed: {_quotable(failure)}")
            case _:
                said = event.message
    if steps:
        return assets, "; ".join(steps)
    return assets, None if explained else said or "the run ended without saying why"


def _quotable(failure: StepFailureData) -> str:
    """What may leave the house of a step's error.

    Errors worded by this project are quoted. The text of any other may hold a value from an
    applicant's row, so of those the class is named.
    """
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description  # a dg.Failure
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "no error was recorded"
    if error.message.startswith("loan_platform."):
        return error.message.partition(": ")[2].strip()
    return error.cls_name or "an error without a class"


def _partitions_of(run: dg.DagsterRun) -> str | None:
    tags = run.tags
    first = tags.get("dagster/asset_partition_range_start")
    if first:
        return f"{first} to {tags.get('dagster/asset_partition_range_end')}"
    return tags.get("dagster/partition")


def _overdue_assets(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, since: float
) -> Iterator[Alert]:
    """Assets whose freshness policy fails now; Dagster keeps a record of each change of state."""
    keys = list(repository.asset_graph.materializable_asset_keys)
    for key, record in instance.get_freshness_state_records(keys).items():
        changed_at = record.updated_at.timestamp()
        if record.freshness_state.value == "FAIL" and changed_at > since:
            yield overdue_asset(asset=key.path, failed_at=changed_at)


def _said(receiver: Receiver, delivery: Delivery, ledger: Ledger) -> str:
    text = f"{receiver.name}: {len(delivery.delivered)} told"
    if ledger.owed:
        text += f", {len(ledger.owed)} still owed (it did not take them; retried at the next tick)"
    return text
