"""The months of a portfolio as Dagster partitions.

Here: the partitions definitions and what a run writes of them. Not here: calendar arithmetic
(`contract.calendar`).
"""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from loan_platform.contract import Contract
from loan_platform.contract.calendar import KEY_FORMAT, partition_key, window

# Months a backfill run takes at once: one process start for several, a bounded run all the same.
MONTHS_PER_RUN = 6

Recorded = tuple[dg.AssetKey, Mapping[str, Any]]
"""What was made of one asset for one month: its key, and metadata for the materialization."""


def monthly(contract: Contract) -> dg.PartitionsDefinition[str]:
    """Months from the first of the book to the current one, or to its last, which is included."""
    return _months(contract, end_offset=1)


def closed_monthly(contract: Contract) -> dg.PartitionsDefinition[str]:
    """Months from the first of the book to the last one of it that is over."""
    return _months(contract, end_offset=0)


def _months(contract: Contract, end_offset: int) -> dg.PartitionsDefinition[str]:
    first, last = contract.time.first_day, contract.time.end
    over = last is not None and window(partition_key(last))[1] <= dt.datetime.now(dt.UTC)
    return dg.MonthlyPartitionsDefinition(
        start_date=first.strftime(KEY_FORMAT),
        # Dagster leaves the month out that its end lies in.
        end_date=window(partition_key(last))[1].strftime(KEY_FORMAT) if over and last else None,
        fmt=KEY_FORMAT,
        end_offset=0 if over else end_offset,
    )


def backfill_policy() -> dg.BackfillPolicy:
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=MONTHS_PER_RUN)


class MonthByMonth:
    """Works through the months of a run so that one that fails does not take the others down.

    What succeeded is recorded, with what the checks found in it, even when the run then fails for
    the months that did not.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.context = context
        self._failed: dict[str, str] = {}
        self._done: list[tuple[dg.AssetKey, str, Mapping[str, Any]]] = []

    def each(self, work: Callable[[str], Iterable[Recorded]]) -> None:
        """Do `work` for each month; what it gave before it raised is kept."""
        for month in self.context.partition_keys:
            try:
                for asset, metadata in work(month):
                    self._done.append((asset, month, metadata))
            except Exception as error:  # `results` raises for the run once all months are done
                self._fail(month, error)
            else:
                self.context.log.info(f"{month} done")

    def _fail(self, month: str, error: Exception) -> None:
        # Another library's message may quote the offending row: of those only the kind is told,
        # and where in the code it happened.
        if type(error).__module__.startswith("loan_platform.") or isinstance(error, dg.Failure):
            why = getattr(error, "description", None) or str(error)
            self.context.log.error(f"{month}: {why}")
        else:
            why = f"{type(error).__name__}, the run's log says where"
            frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            self.context.log.error(f"{month}: {type(error).__name__}\n{frames}")
        self._failed[month] = why

    def results(
        self, checks: Iterable[dg.AssetCheckResult] = ()
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """One result for each asset of the run, then `checks`.

        Raises:
            dg.Failure: some month failed; it names them. The others are materialized and the
                checks recorded.
        """
        if self._failed:
            for asset, month, metadata in self._done:
                self.context.log_event(
                    dg.AssetMaterialization(asset, partition=month, metadata=metadata)
                )
            yield from checks
            raise dg.Failure(
                f"{len(self._failed)} of the run's months failed, the others are materialized. "
                + "; ".join(f"{month}: {why}" for month, why in self._failed.items()),
                metadata={"failed_months": list(self._failed)},
                allow_retries=False,
            )
        for asset, month, metadata in self._done:
            self.context.add_asset_metadata(metadata, asset_key=asset, partition_key=month)
        for key in self._in_order(self.context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)
        yield from checks

    def _in_order(self, assets: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
        """Selected assets, upstream ones first, as Dagster expects their results."""
        written = [asset for asset, _, _ in self._done]
        return [*dict.fromkeys(written), *(key for key in assets if key not in written)]
