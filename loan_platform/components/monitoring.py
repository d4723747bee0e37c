"""The asset that compares a month with what the champion learnt from.

Here: drift_report and its check `no_drift`. Not here: the statistics (`drift`), or what follows
from a failed check (`retraining`, `alerting`).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from loan_platform.components.automation import fill_gaps
from loan_platform.components.book import read_bins
from loan_platform.components.champion import MODEL_ASSETS, counts_of
from loan_platform.components.checks_history import MEND, PARTITIONS
from loan_platform.components.months import (
    MonthByMonth,
    Recorded,
    backfill_policy,
    closed_monthly,
)
from loan_platform.components.presentation import asset_spec, picture
from loan_platform.contract import Contract
from loan_platform.engine.files import write_text
from loan_platform.engine.home import Home

if TYPE_CHECKING:
    from loan_platform.drift.report import DriftReport

NO_DRIFT = "no_drift"


def drift_check_key(contract: Contract) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(dg.AssetKey([contract.name, "drift_report"]), NO_DRIFT)


def monitoring_assets(contract: Contract) -> list[dg.AssetsDefinition]:
    spec = asset_spec(
        contract,
        "drift_report",
        "The month's feature counts against the champion's training months: which feature moved, "
        "by how much, and whether that is more than chance.",
        kinds={"scipy", "json"},
        deps=["feature_counts", "baseline_stats"],
        # Closed months only: the published rate of false alarms holds for one look at a month.
        partitions_def=closed_monthly(contract),
        automation=fill_gaps(),
    )

    @dg.multi_asset(
        name=f"{contract.name}_drift_report",
        specs=[spec],
        # Unpartitioned on purpose: a run over several months gives one verdict that lists them.
        check_specs=[
            dg.AssetCheckSpec(
                NO_DRIFT,
                asset=spec.key,
                description="No feature moved beyond chance and beyond what matters.",
            )
        ],
        backfill_policy=backfill_policy(),
    )
    def drift_report(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]
    ) -> Iterator[Any]:
        from loan_platform.drift.report import compare
        from loan_platform.drift.report import picture as draw

        bins = read_bins(contract, home)
        baseline = _baseline(contract, home, bins.bins_hash)
        simulated = baseline.schema.metadata.get(b"simulated") == b"True"
        months = MonthByMonth(context)
        reports: dict[str, DriftReport] = {}

        def judge(month: str) -> Iterator[Recorded]:
            (counts,) = counts_of(contract, home, bins, [month])
            report = compare(contract, bins, baseline, counts, month)
            path = home.partition(contract.name, "drift_report", month).with_suffix(".json")
            write_text(report.model_dump_json(indent=1), path)
            metadata = {
                "dagster/uri": path.as_uri(),
                "dagster/row_count": report.rows,
                "drifted": report.drifted,
                "simulated": simulated,
                "features_drifted": sum(one.drifted for one in report.features),
                "largest_psi": max((one.psi for one in report.features), default=0.0),
                "summary": report.summary,
                "features": dg.MetadataValue.md(report.to_markdown()),
                "picture": picture(draw(report), f"drift of {month}"),
            }
            yield spec.key, metadata
            reports[month] = report

        months.each(judge)
        yield from months.results([_verdict(contract, spec.key, reports)] if reports else [])

    return [drift_report]


def _baseline(contract: Contract, home: Home, bins_hash: str) -> pa.Table:
    """Counts of what the present champion learnt from.

    Raises:
        dg.Failure: there are none, they were counted in other bins, or they are another model's.
    """
    from loan_platform.registry.versions import Versions

    again = f"materialize {contract.name}/baseline_stats again."
    file = home.portfolio(contract.name) / "baseline_stats.parquet"
    if not file.is_file():
        raise dg.Failure(
            f"{contract.name} has no baseline yet; "
            f"materialize {contract.name}/champion and {contract.name}/baseline_stats first.",
            allow_retries=False,
        )
    baseline = pq.read_table(file)
    origin = baseline.schema.metadata or {}
    if origin.get(b"bins_hash") != bins_hash.encode():
        raise dg.Failure(
            f"{contract.name}'s baseline was counted in other bins than there are now; {again}",
            allow_retries=False,
        )
    champion = Versions(home, contract.name).version_of("champion")
    learnt_by = origin.get(b"model_version", b"unknown").decode()
    if learnt_by != champion:
        raise dg.Failure(
            f"{contract.name}'s baseline is what version {learnt_by} learnt from, but the champion "
            f"is version {champion}; {again}",
            allow_retries=False,
        )
    return baseline


def _verdict(
    contract: Contract, asset: dg.AssetKey, reports: Mapping[str, "DriftReport"]
) -> dg.AssetCheckResult:
    """One for all months of the run; it names those that drifted."""
    drifted = {month: report.summary for month, report in reports.items() if report.drifted}
    metadata: dict[str, Any] = {PARTITIONS: dg.MetadataValue.json(sorted(drifted))}
    if drifted:
        metadata[MEND] = _mend(contract)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=NO_DRIFT,
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(drifted.values()) or "no feature moved beyond chance",
        metadata=metadata,
    )


def _mend(contract: Contract) -> str:
    if contract.retrain.on_drift:
        follows = "a challenger is trained by itself, unless one was for this month or a later one"
    else:
        models = ", ".join(f"{contract.name}/{name}" for name in MODEL_ASSETS)
        follows = f"retraining is off in the contract; to retrain, materialize {models}"
    return (
        f"read in the drift report what moved. Where the applicants changed: {follows}. Where the "
        f"data are at fault, mend them and materialize the month again from {contract.name}/"
        "raw_loans on"
    )
