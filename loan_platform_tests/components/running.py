"""Runs a portfolio's assets in this process, on a state folder and an instance of the test."""

from __future__ import annotations

from typing import Any

import dagster as dg

from loan_platform.components.loan_portfolio import portfolio_definitions
from loan_platform.contract import Contract
from loan_platform.definitions import with_platform_policy
from loan_platform.defs.resources import platform_resources
from loan_platform.engine.home import Home


def definitions(contract: Contract, home: Home) -> dg.Definitions:
    """The portfolio as the code location has it, alone."""
    return bound(portfolio_definitions(contract), home)


def bound(portfolio: dg.Definitions, home: Home) -> dg.Definitions:
    return with_platform_policy(portfolio, dg.Definitions(resources=platform_resources(home)))


def run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    portfolio: str,
    *assets: str,
    months: tuple[str, str] | None = None,
    check: bool = True,
) -> dg.ExecuteInProcessResult:
    """Materialize assets, over a range of months where they have them."""
    first, last = months or (None, None)
    tags: dict[str, Any] = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey([portfolio, asset]) for asset in assets],
        tags=tags if months else None,
        raise_on_error=check,
    )


def latest(instance: dg.DagsterInstance, portfolio: str, asset: str) -> dict[str, Any]:
    """Metadata of the newest materialization, as plain values."""
    event = instance.get_latest_materialization_event(dg.AssetKey([portfolio, asset]))
    assert event is not None, f"{asset} was never materialized"
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def months_of(instance: dg.DagsterInstance, portfolio: str, asset: str) -> set[str]:
    """Months that are materialized."""
    return instance.get_materialized_partitions(dg.AssetKey([portfolio, asset]))
