"""The real daemon: a backfill with a poisoned month, a gap filled, drift, a retrain, alerts.

One `dagster dev` for all of it: the first fixture sets everything going, and each test waits for
its part. What is sensed here is only what a daemon can show; the rules have their own fast tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from loan_platform.engine.home import Home
from loan_platform_tests.daemon import DagsterDev, dagster_dev
from loan_platform_tests.daemon_tests.book import months, poison_month, write_month
from loan_platform_tests.receiver import HttpReceiver, http_receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LOCATION = Path(__file__).with_name("location.py")
SNAPSHOTS = ("decisions", "outcomes")
BOOK = ("raw_loans", "cleaned_features", "feature_counts")
MODEL = ("trained_model", "champion", "baseline_stats", "loan_service")
POISONED = months()[2]
DRIFTED = months()[-1]


@dataclass
class Stage:
    """What the tests watch: the daemon, the receiver, the books, and what was set going."""

    dev: DagsterDev
    receiver: HttpReceiver
    books: Path
    backfill: str
    drift_run: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """`gappy` is being backfilled with a poisoned month; `steady` has a champion and then drifts.

    The receiver of alerts is down.
    """
    root = tmp_path_factory.mktemp("daemon")
    books = root / "books"
    for month in months():
        write_month(books, "gappy", month)
        write_month(books, "steady", month)
    write_month(books, "steady", DRIFTED, rows=600, shift=3)
    poison_month(books, "gappy", POISONED)
    home = Home.at(root / "home")
    with pytest.MonkeyPatch.context() as patch, http_receiver(up=False) as receiver:
        patch.setenv("LOAN_PLATFORM_HOME", str(home.root))
        patch.setenv("LOAN_DATA_DIR", str(books))
        patch.setenv("DAGSTER_HOME", str(home.dagster))
        settings = {
            "LOAN_PLATFORM_ALERT_URLS": receiver.url,
            "LOAN_PLATFORM_GAPS_CRON": "* * * * *",
        }
        with dagster_dev(home, LOCATION, settings) as dev:
            dev.stop_sensor("partition_gaps")
            here = InThisProcess()
            here.materialize("gappy", "feature_bins")
            backfill = dev.launch_backfill([f"gappy/{name}" for name in SNAPSHOTS + BOOK], months())
            here.materialize("steady", "feature_bins")
            here.materialize("steady", *SNAPSHOTS, *BOOK, range_of=months()[:-1])
            here.materialize("steady", *MODEL)
            here.materialize("steady", "drift_report", range_of=months()[:-1])
            monthly = [f"steady/{name}" for name in (*SNAPSHOTS, *BOOK, "drift_report")]
            drift_run = dev.launch_run(monthly, DRIFTED)
            yield Stage(dev, receiver, books, backfill, drift_run)


class InThisProcess:
    """Materializes on the daemon's instance without a worker: what is not under test here."""

    def __init__(self) -> None:
        from loan_platform_tests.daemon_tests.location import defs

        self.instance = dg.DagsterInstance.get()
        self.job = defs.resolve_implicit_global_asset_job_def()

    def materialize(self, portfolio: str, *names: str, range_of: list[str] | None = None) -> None:
        tags = {}
        if range_of:
            tags = {
                "dagster/asset_partition_range_start": range_of[0],
                "dagster/asset_partition_range_end": range_of[-1],
            }
        selection = [dg.AssetKey([portfolio, name]) for name in names]
        self.job.execute_in_process(instance=self.instance, asset_selection=selection, tags=tags)


def test_a_poisoned_month_fails_alone_and_is_named(stage: Stage):
    """Whatever shares its run is materialized all the same."""

    def failed() -> list[str]:
        return stage.dev.partitions("gappy/raw_loans", "FAILED")

    assert stage.dev.wait_for("the poisoned month fails", failed, 120) == [POISONED]
    beside = set(months()[:6]) - {POISONED}
    assert beside <= set(stage.dev.partitions("gappy/feature_counts"))
    write_month(stage.books, "gappy", POISONED)
    stage.dev.start_sensor("partition_gaps")


def test_a_failed_drift_check_leads_to_exactly_one_retrain(stage: Stage):
    def retrained() -> list[dict[str, Any]]:
        runs = stage.dev.runs(loan__retrain="steady")
        return [run for run in runs if run["status"] in ("SUCCESS", "FAILURE")]

    stage.dev.wait_for("the retrain ends", retrained, 180)
    (run,) = stage.dev.runs(loan__retrain="steady")
    assert run["status"] == "SUCCESS"
    assert run["tags"]["loan/trigger_run"] == stage.drift_run
    assert run["tags"]["loan/trigger_check"] == "steady/drift_report:no_drift"
    assert run["tags"]["loan/drifted_partition"] == DRIFTED
    assert {"/".join(key["path"]) for key in run["assetSelection"]} == {
        f"steady/{name}" for name in MODEL
    }


def test_a_backfill_of_24_months_leaves_no_other_month_out(stage: Stage):
    def present() -> bool:
        return all(len(stage.dev.partitions(f"gappy/{name}")) >= len(months()) - 1 for name in BOOK)

    stage.dev.wait_for("23 sound months are there", present, 180)
    runs = stage.dev.runs(dagster__backfill=stage.backfill)
    assert len(runs) <= 3 * len(months()) // 6


def test_the_gap_schedule_fills_the_month_once_its_file_is_mended(stage: Stage):
    def filled() -> bool:
        return all(stage.dev.partitions(f"gappy/{name}") == months() for name in BOOK)

    stage.dev.wait_for("every month of the book is there", filled, 200)
    assert stage.dev.partitions("gappy/raw_loans", "FAILED") == []


def test_alerts_arrive_once_each_although_the_receiver_was_down(stage: Stage):
    def owed() -> bool:
        ticks = stage.dev.sensor("alerts")["ticks"]
        return any("2 still owed" in (tick["skipReason"] or "") for tick in ticks)

    stage.dev.wait_for("two alerts are owed", owed, 60)
    stage.receiver.up()
    stage.dev.wait_for("the alerts arrive", lambda: len(stage.receiver.messages) >= 2, 60)
    ticks = len(stage.dev.sensor("alerts")["ticks"])
    assert ticks
    assert Counter(stage.receiver.titles) == {
        "gappy: a run failed": 1,
        "steady: check no_drift failed on drift_report": 1,
    }


def test_no_second_retrain_follows(stage: Stage):
    """The sensor has ticked on after the retrain, and waits."""

    def said() -> bool:
        ticks = stage.dev.sensor("steady_retrain_on_drift")["ticks"]
        return "no drift failure since" in (ticks[0]["skipReason"] or "")

    stage.dev.wait_for("the sensor waits", said, 60)
    assert len(stage.dev.runs(loan__retrain="steady")) == 1
