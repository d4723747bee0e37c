"""The assets from the lender's file and the service's log to counted features.

Here: decisions, outcomes, raw_loans, cleaned_features, feature_bins, feature_counts.
Not here: what they compute (`ingest`, `drift.counts`, `decisions`).
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from loan_platform.components.automation import fill_gaps
from loan_platform.components.contract_checks import contract_check_results, contract_check_specs
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
from loan_platform.ingest.cleaning import clean, write_book_features
from loan_platform.ingest.source import SourceError, locate
from loan_platform.ingest.staging import Book, open_book


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
        "outcomes": "What became of the month's decided loans, where it is known, and since when. "
        "Takes in the contract's reports of outcomes, and keeps every word on every loan beside.",
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
        # Once a run, not once a month: reports are of all months together.
        of_month, told = (_decisions if name == "decisions" else _outcomes)(contract, home)

        def copy(month: str) -> Iterator[Recorded]:
            table = of_month(month)
            path = home.partition(contract.name, name, month)
            write_parquet(table, path)
            yield spec.key, {**file_metadata(path, len(table)), **told}

        months = MonthByMonth(context)
        months.each(copy)
        yield from months.results()

    return snapshot


Snapshot = tuple[Callable[[str], pa.Table], dict[str, Any]]
"""What a month's file holds, and what there is to tell of the run."""


def _decisions(contract: Contract, home: Home) -> Snapshot:
    from loan_platform.decisions.log import read_decisions

    return lambda month: read_decisions(home, contract.name, month), {}


def _outcomes(contract: Contract, home: Home) -> Snapshot:
    """Outcomes of the applications decided in a month, once the reports have been taken in.

    Beside the months lies every word on every loan: a loan of the lender's book was decided in no
    month, and a training as of some moment asks what was known then.
    """
    import pyarrow.compute as pc

    from loan_platform.decisions.outcomes import (
        history_path,
        newest_words,
        read_outcome_history,
    )

    told = _take_in_reports(contract, home)
    history = read_outcome_history(home, contract.name)
    write_parquet(history, history_path(home, contract.name))
    newest = newest_words(history)

    def of_month(month: str) -> pa.Table:
        decided = home.partition(contract.name, "decisions", month)
        if not decided.is_file():
            return newest.slice(0, 0)
        ids = pq.read_table(decided, columns=["application_id"])["application_id"]
        return newest.filter(pc.is_in(newest["application_id"], value_set=ids.combine_chunks()))

    return of_month, told


def _take_in_reports(contract: Contract, home: Home) -> dict[str, Any]:
    """Record what the contract's reports of outcomes say; give what came of it."""
    from loan_platform.ingest.reports import take_in

    if contract.outcome.reports is None:
        return {}
    taken = take_in(contract, home, contract.outcome.reports)
    reasons = "\n".join(f"| {reason} | {n} |" for reason, n in taken.reasons.items())
    return {
        "report": contract.outcome.reports.name,
        "report_rows": taken.rows,
        "report_recorded": taken.recorded,
        "report_already_known": taken.already_known,
        "report_refused": taken.refused,
        **(
            {
                "report_reasons": dg.MetadataValue.md(f"| reason | rows |\n|---|---|\n{reasons}"),
                "report_refused_file": dg.MetadataValue.path(str(taken.refused_file)),
            }
            if taken.refused_file
            else {}
        ),
    }


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
            with tempfile.TemporaryDirectory(prefix="loan_platform_") as folder:
                bins = fit_bins(contract, _whole_book(contract, home, Path(folder)))
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


def _whole_book(contract: Contract, home: Home, folder: Path) -> list[Path]:
    """Write features of every admissible row there is, over all files of the source."""
    location = locate(contract, home)
    if not contract.source.one_file_a_partition:
        with open_book(contract, location) as book:
            write_book_features(contract, book, folder / "book.parquet")
        return [folder / "book.parquet"]
    found = []
    for month in monthly(contract).get_partition_keys():
        try:
            with open_book(contract, location, month) as book:
                if book.missing is None:
                    write_book_features(contract, book, folder / f"{month}.parquet")
                    found.append(folder / f"{month}.parquet")
        except SourceError:
            continue  # a month that cannot be read fails in its own partition, with the reason
    if not found:
        raise SourceError(
            f"{contract.name}: no month's file of {location.source.name} can be read, so no bins "
            "can be fitted. Put the files there and materialize feature_bins again."
        )
    return found


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
        check_specs=contract_check_specs(contract, raw.key),
        can_subset=True,
        backfill_policy=backfill_policy(),
    )
    def book(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Iterator[Any]:
        selected = context.selected_asset_keys
        if raw.key not in selected and context.selected_asset_check_keys:
            raise dg.Failure(
                "the contract's checks judge rows as they are taken in; "
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
                rows = clean(contract, home, month)
                path = home.partition(contract.name, "cleaned_features", month)
                yield cleaned.key, file_metadata(path, rows)
            if counts.key in selected:
                yield counts.key, _count(contract, home, month)

        months = MonthByMonth(context)
        with _books(contract, home, wanted=raw.key in selected) as open_month:
            months.each(take_in)
        asked = {key.name for key in context.selected_asset_check_keys} if admissions else set()
        yield from months.results(
            verdict
            for verdict in contract_check_results(contract, home, raw.key, admissions)
            if verdict.check_name in asked
        )

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
                stack.close()  # of the month before
                return stack.enter_context(open_book(contract, location, month))

            yield open_month
        else:
            whole = stack.enter_context(open_book(contract, location))
            yield lambda _month: whole


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
