"""When a portfolio's assets run by themselves: gaps, and the current months.

Here: conditions and schedules. Not here: retraining (`retraining`) or alerts (`alerting`).
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import dagster as dg

from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys, partition_key

# Operators move it where nights are not quiet.
GAPS_CRON = os.environ.get("LOAN_PLATFORM_GAPS_CRON") or "0 3 * * *"


def fill_gaps() -> dg.AutomationCondition[Any]:
    """Once a night, every month that is missing or failed and whose inputs are there and settled.

    Behind a cron tick: a month that stays broken is asked for once a night, not at every tick.
    """
    condition = dg.AutomationCondition
    gap = (
        condition.cron_tick_passed(GAPS_CRON)
        & (condition.missing() | condition.execution_failed())
        & ~condition.in_progress()
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
    )
    return gap.with_label("gap_filled_at_night")


def current_months_schedule(
    contract: Contract, selection: dg.AssetSelection
) -> dg.ScheduleDefinition:
    """Every night: the months that may still change, the current one and those still maturing.

    `selection`: what changes with them. A drift report is not among it: a month is judged once,
    when it is over, or its many looks would make chance look like drift.
    """

    job = dg.define_asset_job(f"{contract.name}_current_months", selection=selection)

    @dg.schedule(
        name=f"{contract.name}_current_months",
        job=job,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def current_months(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        first, last = open_months(contract, context.scheduled_execution_time)
        if first > last:
            return dg.SkipReason(f"the book ended with {last}, and all its outcomes are known")
        return dg.RunRequest(
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            }
        )

    return current_months


def open_months(contract: Contract, now: dt.datetime) -> tuple[str, str]:
    """First and last month whose rows or outcomes may still change at `now`.

    A month is open until the outcome of its last day has matured and had the contract's time to
    be reported. Of a book that has ended there may be none left: first is then after last.
    """
    outcome = contract.outcome
    days = outcome.matures_after_days + outcome.reported_within_days + 1
    earliest = now.astimezone(dt.UTC) - dt.timedelta(days=days)
    first = max(partition_key(earliest), keys(contract.time.first_day, 1)[0])
    last = partition_key(now)
    return first, min(last, partition_key(contract.time.end)) if contract.time.end else last
