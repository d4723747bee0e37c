"""A run over several months: one that fails takes no other down, and is named."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from loan_platform.components.book import bins_path
from loan_platform.components.months import MONTHS_PER_RUN, monthly
from loan_platform.contract import Contract
from loan_platform.engine.files import write_text
from loan_platform.engine.home import Home
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, latest, months_of, run

NAME = "home_loans"
BOOK = ("raw_loans", "cleaned_features", "feature_counts")
SPAN = ("2024-01", "2024-04")


@pytest.fixture
def held() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        yield instance


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Home loans of four months, a file each."""
    folder = tmp_path / "monthly"
    for month in home_loans.MONTHS[:4]:
        rows = [row for row in home_loans.rows(400) if row["applied_at"].startswith(month)]
        home_loans.write_csv(folder / f"{month}.csv", rows)
    return folder


@pytest.fixture
def contract(files: Path) -> Contract:
    return home_loans.contract(source={"path": str(files / "{partition}.csv")})


def test_the_current_month_is_a_partition_and_runs_are_bounded(contract: Contract):
    keys = monthly(contract).get_partition_keys()
    assert keys[0] == "2024-01"
    assert keys == sorted(keys)
    assert keys[-1] == f"{dt.datetime.now(dt.UTC):%Y-%m}"
    assert MONTHS_PER_RUN == 6


def test_a_poisoned_month_leaves_the_others_materialized(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    poisoned = files / "2024-02.csv"
    rows = poisoned.read_text()
    poisoned.write_text(rows.replace("debt-ratio", "ratio"))
    defs = definitions(contract, home)
    assert run(defs, held, NAME, "feature_bins").success

    result = run(defs, held, NAME, *BOOK, months=SPAN, check=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert told.description is not None
    assert told.description.startswith("1 of the run's months failed")
    assert "2024-02: home_loans: " in told.description
    assert "lacks the column debt-ratio" in told.description
    for asset in BOOK:
        assert months_of(held, NAME, asset) == {"2024-01", "2024-03", "2024-04"}
        assert set(home.partitions(NAME, asset)) == {"2024-01", "2024-03", "2024-04"}

    poisoned.write_text(rows)
    assert run(defs, held, NAME, *BOOK, months=("2024-02", "2024-02")).success
    assert months_of(held, NAME, "feature_counts") == set(home_loans.MONTHS[:4])


def test_each_month_is_recorded_with_its_own_figures(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    with (files / "2024-03.csv").open("a") as file:
        file.write("1,2\n")
    defs = definitions(contract, home)
    run(defs, held, NAME, "feature_bins")
    result = run(defs, held, NAME, *BOOK, months=SPAN)
    events = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]
    raw = {
        event.partition: event.metadata
        for event in events
        if event.asset_key.path[-1] == "raw_loans"
    }
    assert list(raw) == home_loans.MONTHS[:4]
    for month, figures in raw.items():
        assert month is not None
        written = pq.read_metadata(home.partition(NAME, "raw_loans", month))
        assert figures["dagster/row_count"].value == written.num_rows
        assert figures["quarantined"].value == (1 if month == "2024-03" else 0)
        rows_in = len((files / f"{month}.csv").read_text().splitlines()) - 1
        assert figures["rows_in"].value == rows_in
    assert "malformed line: missing columns | 1" in str(raw["2024-03"]["quarantine_reasons"].value)
    assert {event.asset_key.path[-1] for event in events} == set(BOOK)


def test_part_of_the_step_can_run_alone(
    contract: Contract, home: Home, held: dg.DagsterInstance, files: Path
):
    defs = definitions(contract, home)
    run(defs, held, NAME, "feature_bins")
    january = ("2024-01", "2024-01")
    run(defs, held, NAME, *BOOK, months=january)
    for file in files.iterdir():
        file.unlink()  # what comes after raw_loans needs no book
    run(defs, held, NAME, "cleaned_features", "feature_counts", months=january)
    records = held.fetch_materializations(dg.AssetKey([NAME, "raw_loans"]), limit=50).records
    assert sorted(str(record.partition_key) for record in records) == ["2024-01"]


def test_counting_without_bins_says_what_to_materialize(
    contract: Contract, home: Home, held: dg.DagsterInstance
):
    result = run(definitions(contract, home), held, NAME, *BOOK, months=SPAN, check=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert "materialize home_loans/feature_bins first" in str(told.description)
    assert months_of(held, NAME, "raw_loans") == set(home_loans.MONTHS[:4])
    assert months_of(held, NAME, "feature_counts") == set()


def test_bins_stay_until_they_are_fitted_anew_on_purpose(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    defs = definitions(contract, home)
    run(defs, held, NAME, "feature_bins")
    first = latest(held, NAME, "feature_bins")["bins_hash"]
    (files / "2024-04.csv").unlink()
    run(defs, held, NAME, "feature_bins")
    assert latest(held, NAME, "feature_bins")["bins_hash"] == first
    refit = {"ops": {"home_loans_feature_bins": {"config": {"refit": True}}}}
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=held,
        asset_selection=[dg.AssetKey([NAME, "feature_bins"])],
        run_config=refit,
    )
    assert latest(held, NAME, "feature_bins")["bins_hash"] != first


def test_what_another_library_says_of_a_row_is_not_repeated(
    contract: Contract, home: Home, held: dg.DagsterInstance
):
    """Pydantic, as DuckDB, quotes what it was given; here that stands for an applicant's value."""
    write_text('{"portfolio": 314159}', bins_path(contract, home))
    result = run(definitions(contract, home), held, NAME, *BOOK, months=SPAN, check=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert "2024-01: ValidationError" in str(told.description)
    assert "314159" not in str(told.description)
