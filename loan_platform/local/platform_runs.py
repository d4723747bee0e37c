"""Runs a portfolio's assets in this process, on the instance the daemon watches.

Here: what the demo asks of Dagster. Not here: what it tells of it (`demo`).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import dagster as dg

from loan_platform.components.automation import open_months
from loan_platform.components.loan_portfolio import MONTHLY_ASSETS
from loan_platform.components.retraining import DRIFTED_PARTITION_TAG, OPEN, RETRAIN_TAG
from loan_platform.contract import Contract
from loan_platform.contract.calendar import window
from loan_platform.drift.report import DriftReport
from loan_platform.engine.home import Home
from loan_platform.local.processes import Supervisor

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunError(RuntimeError):
    """A run failed or did not come: says which and why."""


class PlatformRuns:
    """Materializes assets of one portfolio and reads what was recorded of them."""

    def __init__(self, contract: Contract, home: Home) -> None:
        self.contract = contract
        self.home = home

    def __enter__(self) -> PlatformRuns:
        from loan_platform.definitions import defs

        self.instance = dg.DagsterInstance.get()
        self.instance.get_runs_count()  # makes the databases of a new home
        self.job = defs().resolve_implicit_global_asset_job_def()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.instance.dispose()

    def found_before(self) -> str | None:
        """Where something of the portfolio is kept already, or None: the stores are new to it."""
        from loan_platform.decisions.log import read_decisions

        if self.instance.get_asset_keys(prefix=[self.contract.name]):
            return "Dagster's storage"
        if self.champion_version() is not None:
            return "the model registry"
        if len(read_decisions(self.home, self.contract.name)):
            return "the decision log"
        return None

    def materialize(
        self,
        *names: str,
        months: list[str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        """Materialize assets of the portfolio, for a range of months where they are monthly.

        `config`: of the one asset named.
        """
        asked = {f"{self.contract.name}_{names[0]}": {"config": config}} if config else {}
        tags = {}
        if months:
            tags = {
                "dagster/asset_partition_range_start": months[0],
                "dagster/asset_partition_range_end": months[-1],
            }
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[self._key(name) for name in names],
            tags=tags,
            run_config={**QUIET, "ops": asked},
            raise_on_error=False,
        )
        if not result.success:
            failures = [event for event in result.all_events if event.is_step_failure]
            why = "; ".join(_why(event.step_failure_data) for event in failures)
            raise RunError(f"{', '.join(names)} failed: {why}")

    def close_month(self, month: str) -> None:
        """What the nightly schedule did in `month`: every month that changed meanwhile."""
        first, _ = open_months(self.contract, window(month)[0])
        self.materialize(*MONTHLY_ASSETS, months=[first, month])
        self.materialize("drift_report", months=[month])

    def metadata(self, name: str) -> dict[str, Any]:
        """Metadata of the newest materialization, as plain values."""
        event = self.instance.get_latest_materialization_event(self._key(name))
        assert event is not None
        assert event.asset_materialization is not None
        return {key: value.value for key, value in event.asset_materialization.metadata.items()}

    def monthly_metadata(self, name: str, months: list[str]) -> dict[str, dict[str, Any]]:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=self._key(name), asset_partitions=months), limit=1000
        ).records
        found: dict[str, dict[str, Any]] = {}
        for record in records:  # newest first
            materialization = record.asset_materialization
            assert materialization is not None
            found.setdefault(
                str(materialization.partition),
                {key: value.value for key, value in materialization.metadata.items()},
            )
        return {month: found[month] for month in months}

    def drift_report(self, month: str) -> DriftReport:
        path = self.home.partition(self.contract.name, "drift_report", month).with_suffix(".json")
        return DriftReport.model_validate_json(path.read_text(encoding="utf-8"))

    def champion_version(self) -> str | None:
        from loan_platform.registry.models import Registry

        return Registry(self.home, self.contract.name).version_of("champion")

    def await_retrain(self, month: str, timeout: float, supervisor: Supervisor) -> dg.DagsterRun:
        """Wait for the end of the run the sensor requests for the drift of `month`.

        Raises:
            RunError: it failed, did not come or did not end.
        """
        deadline = time.monotonic() + timeout
        wanted = dg.RunsFilter(tags={RETRAIN_TAG: self.contract.name, DRIFTED_PARTITION_TAG: month})
        while time.monotonic() < deadline:
            for _ in range(5):  # a second: what is waited for needs the cores, and the database
                supervisor.check()
            runs = self.instance.get_runs(wanted, limit=1)
            if runs and runs[0].status not in OPEN:
                if runs[0].status is not dg.DagsterRunStatus.SUCCESS:
                    raise RunError(f"the retraining run {runs[0].run_id} failed; see its log")
                return runs[0]
        raise RunError(f"no retraining run ended within {timeout:.0f} s; the daemon's log says why")

    def _key(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([self.contract.name, name])


def _why(failure: Any) -> str:
    """What an asset said of its failure, or what was raised in it."""
    if failure.user_failure_data and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error.cause:  # Dagster's own error says only which step it was
        error = error.cause
    return str(error.message).strip()
