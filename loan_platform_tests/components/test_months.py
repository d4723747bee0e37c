"""A run over several months: one that fails takes no other down, and is named."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from loan_platform.components.book import bins_path
from loan_platform.components.checks_history import FailedCheck, failed_checks
from loan_platform.components.months import MONTHS_PER_RUN, closed_monthly, monthly
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
    assert closed_monthly(contract).get_partition_keys() == keys[:-1]
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
    assert "2024-01: ValidationError, the run's log says where" in str(told.description)
    logged = [entry.user_message for entry in held.all_logs(result.run_id)]
    (january,) = [text for text in logged if text.startswith("2024-01: ValidationError")]
    assert "book.py" in january
    assert "314159" not in "".join([str(told.description), *logged])


def admitted(held: dg.DagsterInstance) -> list[FailedCheck]:
    return failed_checks(
        held, dg.AssetCheckKey(dg.AssetKey([NAME, "raw_loans"]), "admitted"), since=0
    )


def spoil(file: Path, rows: int) -> None:
    """The first `rows` applications of the file are for an amount no lender lends."""
    header, *lines = file.read_text().splitlines()
    at = header.split(",").index("loan amount")
    for number, line in enumerate(lines[:rows]):
        cells = line.split(",")
        cells[at] = "77777777"
        lines[number] = ",".join(cells)
    file.write_text("\n".join([header, *lines]) + "\n")


def test_months_of_which_too_little_is_admitted_are_reported(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    """More than a twentieth is refused: the check warns, and what was accepted goes on."""
    defs = definitions(contract, home)
    run(defs, held, NAME, "feature_bins")
    assert run(defs, held, NAME, *BOOK, months=SPAN).success
    assert admitted(held) == []

    spoil(files / "2024-02.csv", 10)
    spoil(files / "2024-03.csv", 2)  # of some fifty rows
    spoil(files / "2024-04.csv", 1000)
    assert run(defs, held, NAME, *BOOK, months=SPAN).success
    (failed,) = admitted(held)
    assert failed.partitions == ("2024-02", "2024-04")
    assert failed.severity is dg.AssetCheckSeverity.WARN
    february, april = str(failed.description).split("; ")
    rows = len((files / "2024-02.csv").read_text().splitlines()) - 1
    assert february.startswith(f"2024-02: 10 of {rows} rows lie in quarantine: ")
    assert "loan amount" in february
    assert february.endswith("(10)")
    rows = len((files / "2024-04.csv").read_text().splitlines()) - 1
    assert f"{rows} of {rows} rows" in april
    assert "77777777" not in str(failed.description)
    assert failed.metadata["largest_share"] == 1.0
    assert failed.metadata["quarantined"] == 12 + rows
    assert str(failed.mend).startswith("read the rows and their reasons in the quarantine files")
    assert pq.read_metadata(home.partition(NAME, "cleaned_features", "2024-02")).num_rows > 0


def test_the_contract_says_how_large_a_share_may_lie_in_quarantine(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    spoil(files / "2024-02.csv", 10)
    lenient = contract.model_copy(update={"maximum_quarantine_share": 0.5})
    run(definitions(lenient, home), held, NAME, "raw_loans", months=SPAN)
    assert admitted(held) == []
    spoil(files / "2024-02.csv", 1000)
    nothing = contract.model_copy(update={"maximum_quarantine_share": 1.0})
    run(definitions(nothing, home), held, NAME, "raw_loans", months=SPAN)
    assert [one.partitions for one in admitted(held)] == [("2024-02",)], "none was accepted"


def test_the_verdict_on_the_other_months_is_kept_when_one_fails(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    (files / "2024-01.csv").write_text("who,what\n1,2\n")
    spoil(files / "2024-02.csv", 10)
    assert not run(
        definitions(contract, home), held, NAME, "raw_loans", months=SPAN, check=False
    ).success
    assert [one.partitions for one in admitted(held)] == [("2024-02",)]
    assert months_of(held, NAME, "raw_loans") == {"2024-02", "2024-03", "2024-04"}


def test_columns_the_contract_does_not_list_are_named(
    contract: Contract, files: Path, home: Home, held: dg.DagsterInstance
):
    january = ("2024-01", "2024-01")
    defs = definitions(contract, home)
    run(defs, held, NAME, "raw_loans", months=january)
    assert latest(held, NAME, "raw_loans")["columns_unlisted"] == "none"
    lines = (files / "2024-01.csv").read_text().splitlines()
    wider = [lines[0] + ",branch,agent", *(f"{line},7,x" for line in lines[1:])]
    (files / "2024-01.csv").write_text("\n".join(wider) + "\n")
    run(defs, held, NAME, "raw_loans", months=january)
    assert latest(held, NAME, "raw_loans")["columns_unlisted"] == "branch, agent"


@pytest.mark.parametrize("asset", ["decisions", "outcomes"])
def test_a_month_of_the_log_that_cannot_be_kept_leaves_the_others(
    asset: str, contract: Contract, home: Home, held: dg.DagsterInstance
):
    in_the_way = home.partition(NAME, asset, "2024-02")
    in_the_way.mkdir(parents=True)
    (in_the_way / "something").touch()
    result = run(definitions(contract, home), held, NAME, asset, months=SPAN, check=False)
    assert not result.success
    assert months_of(held, NAME, asset) == {"2024-01", "2024-03", "2024-04"}
