"""The months of a portfolio as Dagster partitions.

Here: the partitions definition and what a run writes of it. Not here: calendar arithmetic
(`contract.calendar`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from loan_platform.contract import Contract
from loan_platform.contract.calendar import KEY_FORMAT

# Months a backfill run takes at once: one process start for several, a bounded run all the same.
MONTHS_PER_RUN = 6


def monthly(contract: Contract) -> dg.PartitionsDefinition[str]:
    """Months from the first of the book to the current one, which is included."""
    return dg.MonthlyPartitionsDefinition(
        start_date=contract.time.first_day.strftime(KEY_FORMAT), fmt=KEY_FORMAT, end_offset=1
    )


def backfill_policy() -> dg.BackfillPolicy:
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=MONTHS_PER_RUN)


class MonthByMonth:
    """Materializes months one by one, so that one that fails does not take the others down.

    What succeeded is recorded even when the run then fails for the months that did not.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.context = context
        self.failed: dict[str, str] = {}
        self._done: list[tuple[dg.AssetKey, str, Mapping[str, Any]]] = []

    def done(self, asset: dg.AssetKey, month: str, metadata: Mapping[str, Any]) -> None:
        self._done.append((asset, month, metadata))

    def fail(self, month: str, error: Exception) -> None:
        # Another library's message may quote the offending row, so of those only the kind is kept.
        ours = type(error).__module__.startswith("loan_platform.") or isinstance(error, dg.Failure)
        said = getattr(error, "description", None) or str(error)
        self.failed[month] = said if ours else type(error).__name__
        self.context.log.error(f"{month}: {self.failed[month]}")

    def results(self) -> list[dg.MaterializeResult[Any]]:
        """One result for each asset of the run.

        Raises:
            dg.Failure: some month failed; it names them, and the others are materialized.
        """
        if self.failed:
            for asset, month, metadata in self._done:
                self.context.log_event(
                    dg.AssetMaterialization(asset, partition=month, metadata=metadata)
                )
            raise dg.Failure(
                f"{len(self.failed)} of the run's months failed, the others are materialized. "
                + "; ".join(f"{month}: {why}" for month, why in self.failed.items()),
                metadata={"failed_months": list(self.failed)},
                allow_retries=False,
            )
        for asset, month, metadata in self._done:
            self.context.add_asset_metadata(metadata, asset_key=asset, partition_key=month)
        assets = self.context.selected_asset_keys
        return [dg.MaterializeResult(asset_key=key) for key in self._in_order(assets)]

    def _in_order(self, assets: Any) -> list[dg.AssetKey]:
        """Selected assets, upstream ones first, as Dagster expects their results."""
        written = [asset for asset, _, _ in self._done]
        return [*dict.fromkeys(written), *(key for key in assets if key not in written)]
