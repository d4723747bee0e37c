"""Which months run by themselves, and when."""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import pytest

from loan_platform.components.automation import GAPS_CRON, fill_gaps, open_months
from loan_platform.components.loan_portfolio import MONTHLY_ASSETS
from loan_platform.components.months import closed_monthly, monthly
from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, months_of, run


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_a_book_that_has_ended_gets_no_months_after_its_last(home: Home):
    """Its months would be asked for, and reported as missing, for ever."""
    ended = home_loans.contract(time={"start": "2024-01-01", "end": "2024-08-01"})
    assert monthly(ended).get_partition_keys() == home_loans.MONTHS
    assert closed_monthly(ended).get_partition_keys() == home_loans.MONTHS
    goes_on = home_loans.contract(time={"start": "2024-01-01", "end": "2999-12-01"})
    assert (
        monthly(goes_on).get_partition_keys() == monthly(home_loans.contract()).get_partition_keys()
    )
    assert open_months(ended, at("2024-09-30T12:00")) == ("2024-07", "2024-08")

    schedule = definitions(ended, home).get_schedule_def("home_loans_current_months")
    context = dg.build_schedule_context(scheduled_execution_time=at("2025-06-30T02:00"))
    tick = schedule.evaluate_tick(context)
    assert not tick.run_requests
    assert "ended with 2024-08" in (tick.skip_message or "")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2024-06-30T12:00", ("2024-04", "2024-06")),  # 76 days before is 15 April
        ("2024-07-15T12:00", ("2024-04", "2024-07")),  # 45 + 30 days and the one that is not over
        ("2024-07-16T12:00", ("2024-05", "2024-07")),
        ("2024-01-05T00:00", ("2024-01", "2024-01")),  # not before the book begins
        ("2025-01-01T00:00", ("2024-10", "2025-01")),
    ],
)
def test_months_stay_open_until_their_outcomes_are_reported(now: str, expected: tuple[str, str]):
    assert open_months(home_loans.contract(), at(now)) == expected


def test_the_contract_says_how_late_an_outcome_may_come():
    outcome = {"bad": ["defaulted"], "good": ["paid"], "matures_after_days": 45}
    prompt = home_loans.contract(outcome={**outcome, "reported_within_days": 0})
    assert open_months(prompt, at("2024-06-30T12:00"))[0] == "2024-05"
    slow = home_loans.contract(outcome={**outcome, "reported_within_days": 100})
    assert open_months(slow, at("2024-06-30T12:00"))[0] == "2024-02"


def test_a_moment_of_another_zone_is_read_in_utc():
    evening = dt.datetime(2024, 5, 31, 22, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert open_months(home_loans.contract(), evening)[1] == "2024-06"


def test_the_schedule_asks_for_the_open_months_of_all_monthly_assets(home: Home):
    defs = definitions(home_loans.contract(), home)
    schedule = defs.get_schedule_def("home_loans_current_months")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(scheduled_execution_time=at("2024-06-30T02:00"))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == "2024-04"
    assert request.tags["dagster/asset_partition_range_end"] == "2024-06"
    job = defs.resolve_job_def(schedule.job_name)
    selected = {key.path[-1] for key in job.asset_layer.executable_asset_keys}
    assert selected == set(MONTHLY_ASSETS)
    assert "drift_report" not in selected, "a month is judged once, when it is over"


class Nights:
    """Evaluates the gap condition as the daemon does, at chosen moments."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.defs, self.instance = defs, instance
        self.cursor: Any = None

    def asked(self, moment: str) -> dict[str, set[str]]:
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, cursor=self.cursor, evaluation_time=at(moment)
        )
        self.cursor = result.cursor
        keys = self.defs.resolve_asset_graph().get_all_asset_keys()
        return {
            key.path[-1]: months
            for key in keys
            if (months := set(filter(None, result.get_requested_partitions(key))))
        }


def test_gaps_are_asked_for_once_a_night_where_their_inputs_are(
    tmp_path_factory: pytest.TempPathFactory, home: Home
):
    """Three months of decisions and outcomes are there, and January's book: two months miss it.

    No baseline is there, so no drift report is asked for.
    """
    folder = tmp_path_factory.mktemp("book")
    path = home_loans.write_csv(folder / "home_loans.csv", home_loans.rows(200))
    contract: Contract = home_loans.contract(source={"path": str(path)})
    defs = definitions(contract, home)
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        nights = Nights(defs, instance)
        nights.asked("2024-03-09T23:00")
        for asset in ("decisions", "outcomes"):
            run(defs, instance, "home_loans", asset, months=("2024-01", "2024-03"))
        run(defs, instance, "home_loans", "feature_bins")
        book = ("raw_loans", "cleaned_features", "feature_counts")
        run(defs, instance, "home_loans", *book, months=("2024-01", "2024-01"))
        assert nights.asked("2024-03-10T01:00") == {}  # nobody is asked by day
        gaps = {"2024-02", "2024-03"}
        assert nights.asked("2024-03-10T03:05") == dict.fromkeys(book, gaps)
        assert nights.asked("2024-03-10T03:06") == {}, "a gap that stays is not asked for at once"
        assert nights.asked("2024-03-11T03:05") == dict.fromkeys(book, gaps)
        a_month_later = nights.asked("2024-04-02T03:05")
        assert a_month_later["decisions"] == {"2024-04"}
        assert a_month_later["raw_loans"] == {"2024-02", "2024-03", "2024-04"}
        assert months_of(instance, "home_loans", "raw_loans") == {"2024-01"}


def test_a_month_is_judged_once_and_when_it_is_over(home: Home):
    """The gap condition asks for its drift report in the first night after it."""
    defs = definitions(home_loans.contract(), home)
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        nights = Nights(defs, instance)
        nights.asked("2024-03-30T23:00")
        recorded(instance, "feature_counts", "2024-01", "2024-02", "2024-03")
        recorded(instance, "drift_report", "2024-01", "2024-02")
        for asset in ("feature_bins", "champion", "baseline_stats"):
            recorded(instance, asset)
        assert "drift_report" not in nights.asked("2024-03-31T03:05")
        assert nights.asked("2024-04-01T03:05")["drift_report"] == {"2024-03"}
        recorded(instance, "drift_report", "2024-03")
        recorded(instance, "feature_counts", "2024-03")  # an outcome came late
        assert "drift_report" not in nights.asked("2024-04-02T03:05")


def recorded(instance: dg.DagsterInstance, asset: str, *months: str) -> None:
    for month in months or (None,):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(dg.AssetKey(["home_loans", asset]), partition=month)
        )


def test_the_gap_condition_has_a_name_and_a_nightly_hour():
    assert fill_gaps().get_label() == "gap_filled_at_night"
    assert GAPS_CRON == "0 3 * * *"
