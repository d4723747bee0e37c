"""The asset that compares a month with what the champion learnt from.

Here: drift_report and its check `no_drift`. Not here: the statistics (`drift`), or what follows
from a failed check (`retraining`, `alerting`).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from loan_platform.components.automation import fill_gaps
from loan_platform.components.book import read_bins
from loan_platform.components.champion import counts_of
from loan_platform.components.months import MonthByMonth, backfill_policy, monthly
from loan_platform.components.presentation import asset_spec, picture
from loan_platform.contract import Contract
from loan_platform.engine.files import write_text
from loan_platform.engine.home import Home

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
        partitions_def=monthly(contract),
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

        baseline_file = home.portfolio(contract.name) / "baseline_stats.parquet"
        if not baseline_file.is_file():
            raise dg.Failure(
                f"{contract.name} has no baseline yet; "
                f"materialize {contract.name}/champion and {contract.name}/baseline_stats first.",
                allow_retries=False,
            )
        baseline = pq.read_table(baseline_file)
        bins = read_bins(contract, home)
        if (baseline.schema.metadata or {}).get(b"bins_hash") != bins.bins_hash.encode():
            raise dg.Failure(
                f"{contract.name}'s baseline was counted in other bins than there are now; "
                f"materialize {contract.name}/baseline_stats again.",
                allow_retries=False,
            )
        months = MonthByMonth(context)
        drifted: dict[str, str] = {}
        for month in context.partition_keys:
            (counts,) = counts_of(contract, home, bins, [month])
            report = compare(contract, bins, baseline, counts, month)
            path = home.partition(contract.name, "drift_report", month).with_suffix(".json")
            write_text(report.model_dump_json(indent=1), path)
            months.done(
                spec.key,
                month,
                {
                    "dagster/uri": path.as_uri(),
                    "dagster/row_count": report.rows,
                    "drifted": report.drifted,
                    "features_drifted": sum(one.drifted for one in report.features),
                    "largest_psi": max((one.psi for one in report.features), default=0.0),
                    "summary": report.summary,
                    "features": dg.MetadataValue.md(report.to_markdown()),
                    "picture": picture(draw(report), f"drift of {month}"),
                },
            )
            if report.drifted:
                drifted[month] = report.summary
        yield from months.results()
        yield dg.AssetCheckResult(
            asset_key=spec.key,
            check_name=NO_DRIFT,
            passed=not drifted,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(drifted.values()) or "no feature moved beyond chance",
            metadata={"partitions": dg.MetadataValue.json(sorted(drifted))},
        )

    return [drift_report]
