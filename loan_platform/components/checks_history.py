"""What Dagster remembers of asset checks: the one place that touches a non-public API of it.

Here: failed evaluations of one check, as plain values. Not here: what anyone does about them
(`retraining`, `alerting`).

Dagster has no public way to ask for the history of a check. Check evaluations are stored without
an asset key, so event queries by asset miss them; on SQLite their storage ids restart with each
run; and a row's id is given when its run is planned, not when the check ends. So: read the check's
own history, filter on the time of the evaluation, never keep an id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

# A check says which partitions its result is about with this metadata: a JSON list of keys. Its
# spec stays unpartitioned, because partitioned check specs lose results in range runs.
PARTITIONS = "partitions"
# And with this, what is to be done about a failure: one sentence for a person.
MEND = "mend"
PAGE = 100


@dataclass(frozen=True)
class FailedCheck:
    """One failed evaluation.

    `run_id` is "" for an evaluation that was reported outside a run; `timestamp` is the time of
    the evaluation in epoch seconds; `metadata` holds plain values.
    """

    key: dg.AssetCheckKey
    run_id: str
    timestamp: float
    severity: dg.AssetCheckSeverity
    description: str | None
    metadata: Mapping[str, Any]
    partitions: tuple[str, ...]

    @property
    def mend(self) -> str | None:
        """What to do about it, where the check says so."""
        said = self.metadata.get(MEND)
        return str(said) if said else None


def failed_checks(
    instance: dg.DagsterInstance, check_key: dg.AssetCheckKey, *, since: float
) -> list[FailedCheck]:
    """The check's failed evaluations later than `since` (epoch seconds), newest first."""
    found: list[FailedCheck] = []
    cursor: int | None = None
    while True:
        page: Sequence[AssetCheckExecutionRecord] = (
            instance.event_log_storage.get_asset_check_execution_history(
                check_key,
                limit=PAGE,
                cursor=cursor,
                status={AssetCheckExecutionRecordStatus.FAILED},
            )
        )
        recent = [failed for record in page if (failed := _read(record)).timestamp > since]
        found.extend(recent)
        # Ids follow the time of planning, so the edge is not sharp; a whole page of older failures
        # between two newer ones would take that many overlapping runs of one check.
        if len(page) < PAGE or not recent:
            break
        cursor = page[-1].id
    return sorted(found, key=lambda failed: failed.timestamp, reverse=True)


def _read(record: AssetCheckExecutionRecord) -> FailedCheck:
    evaluation = record.evaluation
    assert record.event is not None  # a FAILED row holds its event
    assert evaluation is not None
    metadata = {name: value.value for name, value in evaluation.metadata.items()}
    return FailedCheck(
        key=record.key,
        run_id=record.run_id,
        timestamp=record.event.timestamp,
        severity=evaluation.severity,
        description=evaluation.description,
        metadata=metadata,
        partitions=_partitions(metadata.get(PARTITIONS), evaluation.partition),
    )


def _partitions(listed: Any, of_the_check: str | None) -> tuple[str, ...]:
    if isinstance(listed, list | tuple):
        return tuple(sorted(str(key) for key in listed))
    return (of_the_check,) if of_the_check else ()
