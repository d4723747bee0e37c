"""The assets from the lender's file and the service's log to counted features.

Here: decisions, outcomes, raw_loans, cleaned_features, feature_bins, feature_counts.
Not here: what they compute (`ingest`, `drift.counts`, `decisions`).
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from loan_platform.components.automation import fill_gaps
from loan_platform.components.checks_history import MEND, PARTITIONS
from loan_platform.components.months import MonthByMonth, Recorded, backfill_policy, monthly
from loan_platform.components.presentation import (
    asset_spec,
    features_lineage,
    features_schema,
    file_metadata,
    raw_schema,
)
from loan_platform.contract import Contract
from loan_platform.engine.files import write_parquet, write_text
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import Admission, admit, kept_columns
from loan_platform.ingest.cleaning import book_features, clean
from loan_platform.ingest.source import Book, SourceError, locate, open_book

ADMITTED = "admitted"
REASONS_TOLD = 3


class BinsConfig(dg.Config):
    refit: bool = False
    """Fit the bins anew. Every month must then be counted again."""


def book_assets(contract: Contract) -> list[dg.AssetsDefinition]:
    return [
        _service_snapshot(contract, "decisions"),
        _service_snapshot(contract, "outcomes"),
        _feature_bins(contract),
        _book(contract),
    ]


def _service_snapshot(contract: Contract, name: str) -> dg.AssetsDefinition:
    """decisions or outcomes: a month of the service's database as Parquet."""
    describe = {
        "decisions": "Every answer of the service to an application of the month, as logged.",
        "outcomes": "What became of the month's decided loans, where it is known, and since when.",
    }
    spec = asset_spec(
        contract,
        name,
        describe[name],
        kinds={"parquet", "sqlite"},
        deps=["decisions"] if name == "outcomes" else [],
        partitions_def=monthly(contract),
        automation=fill_gaps(),
    )

    @dg.multi_asset(name=f"{contract.name}_{name}", specs=[spec], backfill_policy=backfill_policy())
    def snapshot(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Iterator[Any]:
        def copy(month: str) -> Iterator[Recorded]:
            table = (_decisions if name == "decisions" else _outcomes)(contract, home, month)
            path = home.partition(contract.name, name, month)
            write_parquet(table, path)
            yield spec.key, file_metadata(path, len(table))

        months = MonthByMonth(context)
        months.each(copy)
        yield from months.results()

    return snapshot


def _decisions(contract: Contract, home: Home, month: str) -> pa.Table:
    from loan_platform.decisions.log import read_decisions

    return read_decisions(home, contract.name, month)


def _outcomes(contract: Contract, home: Home, month: str) -> pa.Table:
    """Outcomes of the applications decided in `month`."""
    from loan_platform.decisions.outcomes import read_outcomes

    outcomes = read_outcomes(home, contract.name)
    decided = home.partition(contract.name, "decisions", month)
    if not decided.is_file():
        return outcomes.slice(0, 0)
    import pyarrow.compute as pc

    ids = pq.read_table(decided, columns=["application_id"])["application_id"]
    return outcomes.filter(pc.is_in(outcomes["application_id"], value_set=ids.combine_chunks()))


def _feature_bins(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "feature_bins",
        "The fine bins every feature is counted in: fitted once when the book is taken in, "
        "changed only on purpose (refit), since counts in other bins do not add up.",
        kinds={"duckdb", "json"},
        automation=dg.AutomationCondition.on_missing(),
    )

    @dg.multi_asset(name=f"{contract.name}_feature_bins", specs=[spec])
    def feature_bins(
        context: dg.AssetExecutionContext, config: BinsConfig, home: dg.ResourceParam[Home]
    ) -> dg.MaterializeResult[Any]:
        from loan_platform.drift.counts import fit_bins

        path = bins_path(contract, home)
        if path.is_file() and not config.refit:
            bins = read_bins(contract, home)
            context.log.info("the bins are there already; refit: true fits them anew")
        else:
            bins = fit_bins(contract, _whole_book(contract, home))
            write_text(bins.model_dump_json(indent=1), path)
        return dg.MaterializeResult(
            metadata={"bins_hash": bins.bins_hash, "dagster/uri": path.as_uri()}
        )

    return feature_bins


def bins_path(contract: Contract, home: Home) -> Path:
    return home.portfolio(contract.name) / "feature_bins.json"


def read_bins(contract: Contract, home: Home) -> Any:
    """The `drift.counts.Bins` of today.

    Raises:
        dg.Failure: none were fitted yet.
    """
    from loan_platform.drift.counts import Bins

    path = bins_path(contract, home)
    if not path.is_file():
        raise dg.Failure(
            f"{contract.name} has no feature bins yet; "
            f"materialize {contract.name}/feature_bins first.",
            allow_retries=False,
        )
    return Bins.model_validate_json(path.read_text())


def _whole_book(contract: Contract, home: Home) -> pa.Table:
    """Features of every admissible row there is, over all files of the source."""
    location = locate(contract, home)
    if not contract.source.one_file_a_partition:
        with open_book(contract, location) as book:
            return book_features(contract, book)
    found = []
    for month in monthly(contract).get_partition_keys():
        try:
            with open_book(contract, location, month) as book:
                if book.missing is None:
                    found.append(book_features(contract, book))
        except SourceError:
            continue  # a month that cannot be read fails in its own partition, with the reason
    if not found:
        raise SourceError(
            f"{contract.name}: no month's file of {location.path} can be read, so no bins can be "
            "fitted. Put the files there and materialize feature_bins again."
        )
    return pa.concat_tables(found)


def _book(contract: Contract) -> dg.AssetsDefinition:
    """raw_loans, cleaned_features and feature_counts, month by month in one step."""
    partitions = monthly(contract)
    raw = asset_spec(
        contract,
        "raw_loans",
        "The month's applications, typed as received: from the lender's book and from the service. "
        "Rows the contract refuses lie beside them in quarantine, each with its reason.",
        kinds={"duckdb", "parquet"},
        deps=["decisions", "outcomes"],
        partitions_def=partitions,
        automation=fill_gaps(),
        metadata={"dagster/column_schema": raw_schema(kept_columns(contract))},
    )
    cleaned = asset_spec(
        contract,
        "cleaned_features",
        "Cleaned columns and the contract's SQL features of every accepted application, "
        "with its outcome where known.",
        kinds={"duckdb", "parquet"},
        deps=["raw_loans"],
        partitions_def=partitions,
        automation=fill_gaps(),
        metadata={
            "dagster/column_schema": features_schema(contract),
            "dagster/column_lineage": features_lineage(contract),
        },
    )
    counts = asset_spec(
        contract,
        "feature_counts",
        "How many applications of the month fall into each fine bin of each feature. "
        "Any window is a sum; every drift statistic comes from these.",
        kinds={"duckdb", "parquet"},
        deps=["cleaned_features", "feature_bins"],
        partitions_def=partitions,
        automation=fill_gaps(),
    )

    @dg.multi_asset(
        name=f"{contract.name}_book",
        specs=[raw, cleaned, counts],
        # Unpartitioned, as `no_drift` is: one verdict on all months of a run.
        check_specs=[
            dg.AssetCheckSpec(
                ADMITTED,
                asset=raw.key,
                description="The contract accepts some of the month's rows, and no more than "
                f"{contract.maximum_quarantine_share:.1%} of them lie in quarantine.",
            )
        ],
        can_subset=True,
        backfill_policy=backfill_policy(),
    )
    def book(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Iterator[Any]:
        selected = context.selected_asset_keys
        if raw.key not in selected and context.selected_asset_check_keys:
            raise dg.Failure(
                f"{ADMITTED} judges the rows as they are taken in; "
                f"materialize {contract.name}/raw_loans with it.",
                allow_retries=False,
            )
        admissions: dict[str, Admission] = {}

        def take_in(month: str) -> Iterator[Recorded]:
            if raw.key in selected:
                staged = open_month(month)
                admission = admit(contract, home, month, staged)
                admissions[month] = admission
                yield raw.key, _admission_metadata(contract, home, month, admission, staged)
            if cleaned.key in selected:
                rows = len(clean(contract, home, month))
                path = home.partition(contract.name, "cleaned_features", month)
                yield cleaned.key, file_metadata(path, rows)
            if counts.key in selected:
                yield counts.key, _count(contract, home, month)

        months = MonthByMonth(context)
        with _books(contract, home, wanted=raw.key in selected) as open_month:
            months.each(take_in)
        asked = bool(admissions and context.selected_asset_check_keys)
        yield from months.results([_admitted(contract, raw.key, admissions)] if asked else [])

    return book


@contextmanager
def _books(contract: Contract, home: Home, *, wanted: bool) -> Iterator[Any]:
    """A function from month to staged book: one file is staged once, a file a month each time."""
    with ExitStack() as stack:
        if not wanted:
            yield None
            return
        location = locate(contract, home)
        if contract.source.one_file_a_partition:

            def open_month(month: str) -> Book:
                return stack.enter_context(open_book(contract, location, month))

            yield open_month
        else:
            whole = stack.enter_context(open_book(contract, location))
            yield lambda _month: whole


def _admitted(
    contract: Contract, asset: dg.AssetKey, admissions: Mapping[str, Admission]
) -> dg.AssetCheckResult:
    """One for all months of the run; it names those of which too little was accepted."""
    short = {
        month: one
        for month, one in admissions.items()
        if one.rows
        and (not one.accepted or one.quarantined > contract.maximum_quarantine_share * one.rows)
    }
    rows = sum(one.rows for one in admissions.values())
    quarantined = sum(one.quarantined for one in admissions.values())
    metadata: dict[str, Any] = {
        PARTITIONS: dg.MetadataValue.json(sorted(short)),
        "rows_in": rows,
        "quarantined": quarantined,
        "largest_share": max((one.quarantined / (one.rows or 1)) for one in admissions.values()),
        "maximum_share": contract.maximum_quarantine_share,
    }
    if short:
        metadata[MEND] = (
            "read the rows and their reasons in the quarantine files that the metadata of "
            f"{contract.name}/raw_loans names; mend the book, or the contract where the rows are "
            f"right, then materialize {contract.name}/raw_loans, cleaned_features and "
            "feature_counts of the month again"
        )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=ADMITTED,
        passed=not short,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(_shortfall(month, one) for month, one in sorted(short.items()))
        or f"{quarantined:,} of {rows:,} rows lie in quarantine",
        metadata=metadata,
    )


def _shortfall(month: str, admission: Admission) -> str:
    """What came of a month, with the commonest reasons: the contract's words, no row's values."""
    told = [f"{reason} ({n:,})" for reason, n in list(admission.reasons.items())[:REASONS_TOLD]]
    if more := len(admission.reasons) - len(told):
        told.append(f"{more} more reasons" if more > 1 else "1 more reason")
    return (
        f"{month}: {admission.quarantined:,} of {admission.rows:,} rows lie in quarantine: "
        + ", ".join(told)
    )


def _admission_metadata(
    contract: Contract, home: Home, month: str, admission: Admission, book: Book
) -> dict[str, Any]:
    reasons = "\n".join(f"| {reason} | {n} |" for reason, n in admission.reasons.items())
    table = f"| reason | rows |\n|---|---|\n{reasons}" if reasons else "none"
    return {
        **file_metadata(home.partition(contract.name, "raw_loans", month), admission.accepted),
        "rows_in": admission.rows,
        "quarantined": admission.quarantined,
        "quarantine_reasons": dg.MetadataValue.md(table),
        "quarantine_file": dg.MetadataValue.path(
            str(home.partition(contract.name, "quarantine", month))
        ),
        "from_service": admission.from_service,
        "with_outcome": admission.with_outcome,
        "simulated": book.simulated,
        **({"file_still_to_come": str(book.missing)} if book.missing else {}),
        "columns_unlisted": ", ".join(book.columns_unlisted) or "none",
    }


def _count(contract: Contract, home: Home, month: str) -> dict[str, Any]:
    from loan_platform.drift.counts import count

    bins = read_bins(contract, home)
    counts = count(contract, bins, [home.partition(contract.name, "cleaned_features", month)])
    path = home.partition(contract.name, "feature_counts", month)
    write_parquet(counts.replace_schema_metadata({"bins_hash": bins.bins_hash}), path)
    return {**file_metadata(path, len(counts)), "bins_hash": bins.bins_hash}
