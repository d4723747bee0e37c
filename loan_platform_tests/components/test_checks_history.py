"""The contract with Dagster's check history, in memory and on every storage the platform has."""

from typing import Any

import dagster as dg

from loan_platform.components.checks_history import PAGE, failed_checks
from loan_platform_tests.components.conftest import everywhere

pytestmark = everywhere

REPORT = dg.AssetKey(["toy", "drift_report"])
CHECK = dg.AssetCheckKey(REPORT, "no_drift")
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2024-01", end_date="2025-01", fmt="%Y-%m")


def report(instance: dg.DagsterInstance, *, passed: bool = False, **metadata: Any) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=REPORT,
            check_name="no_drift",
            passed=passed,
            metadata=metadata,
            severity=dg.AssetCheckSeverity.WARN,
            description="income moved",
        )
    )


def drift_report(passed: bool) -> dg.AssetsDefinition:
    """A partitioned asset whose unpartitioned check tells of every partition of the run."""

    @dg.asset(
        key=REPORT,
        partitions_def=MONTHS,
        check_specs=[dg.AssetCheckSpec("no_drift", asset=REPORT)],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def report_of_the_month(context: dg.AssetExecutionContext):
        keys = list(context.partition_keys)
        result = dg.AssetCheckResult(
            check_name="no_drift", passed=passed, metadata={"partitions": keys, "psi": 0.3}
        )
        return dg.MaterializeResult(check_results=[result])

    return report_of_the_month


def run_range(instance: dg.DagsterInstance, first: str, last: str, *, passed: bool) -> str:
    job = dg.Definitions(assets=[drift_report(passed)]).resolve_implicit_global_asset_job_def()
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    return job.execute_in_process(instance=instance, tags=tags).run_id


def test_a_failed_evaluation_comes_back_as_plain_values(instance: dg.DagsterInstance):
    report(instance, passed=True)
    report(instance, partitions=["2025-05", "2025-04"], psi=0.31)
    (failed,) = failed_checks(instance, CHECK, since=0)
    assert (failed.key, failed.run_id, failed.description) == (CHECK, "", "income moved")
    assert failed.severity is dg.AssetCheckSeverity.WARN
    assert failed.partitions == ("2025-04", "2025-05")
    assert failed.metadata["psi"] == 0.31


def test_what_a_check_says_is_to_be_done_comes_back(instance: dg.DagsterInstance):
    report(instance)
    report(instance, mend="read the report")
    assert [one.mend for one in failed_checks(instance, CHECK, since=0)] == [
        "read the report",
        None,
    ]


def test_an_evaluation_that_names_no_partition_has_none(instance: dg.DagsterInstance):
    report(instance)
    assert failed_checks(instance, CHECK, since=0)[0].partitions == ()


def test_a_failure_followed_by_a_pass_is_not_lost(instance: dg.DagsterInstance):
    report(instance)
    report(instance, passed=True)
    assert len(failed_checks(instance, CHECK, since=0)) == 1


def test_the_newest_come_first_and_since_is_not_included(instance: dg.DagsterInstance):
    for number in range(4):
        report(instance, number=number)
    newest_first = failed_checks(instance, CHECK, since=0)
    assert [failed.metadata["number"] for failed in newest_first] == [3, 2, 1, 0]
    assert failed_checks(instance, CHECK, since=newest_first[1].timestamp) == newest_first[:1]


def test_more_failures_than_a_page_are_all_found(instance: dg.DagsterInstance):
    for _ in range(PAGE + 1):
        report(instance)
    assert len(failed_checks(instance, CHECK, since=0)) == PAGE + 1


def test_another_check_and_another_asset_are_not_ours(instance: dg.DagsterInstance):
    report(instance)
    assert failed_checks(instance, dg.AssetCheckKey(REPORT, "other"), since=0) == []
    other = dg.AssetCheckKey(dg.AssetKey(["toy", "other"]), "no_drift")
    assert failed_checks(instance, other, since=0) == []


def test_a_range_run_gives_one_failure_with_its_partitions(instance: dg.DagsterInstance):
    """Storage holds a planned row for each partition beside the one that was evaluated."""
    run_id = run_range(instance, "2024-02", "2024-04", passed=False)
    run_range(instance, "2024-05", "2024-05", passed=True)
    (failed,) = failed_checks(instance, CHECK, since=0)
    assert failed.run_id == run_id
    assert failed.partitions == ("2024-02", "2024-03", "2024-04")
    assert failed.severity is dg.AssetCheckSeverity.ERROR
