"""The real daemon: a backfill with a poisoned month, a gap filled, drift, a retrain, alerts.

One `dagster dev` for all of it, on PostgreSQL (the demo's is on SQLite): the first fixture sets
everything going, and each test waits for its part. What is sensed here is only what a daemon can
show; the rules have their own fast tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from loan_platform.components.months import MONTHS_PER_RUN
from loan_platform.engine.home import Home
from loan_platform_tests.daemon import DagsterDev, dagster_dev
from loan_platform_tests.daemon_tests.book import months, poison_month, write_month
from loan_platform_tests.receiver import HttpReceiver, http_receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LOCATION = Path(__file__).with_name("location.py")
SNAPSHOTS = ("decisions", "outcomes")
BOOK = ("raw_loans", "cleaned_features", "feature_counts")
MODEL = ("trained_model", "champion", "baseline_stats", "loan_service")
GAPPY, STEADY = months("gappy"), months("steady")
POISONED = GAPPY[2]
DRIFTED = STEADY[-2]  # the last month that is over

URLS = ("LOAN_PLATFORM_DAGSTER_URL", "LOAN_PLATFORM_DECISIONS_URL", "MLFLOW_TRACKING_URI")
ALERTS = {"gappy: a run failed": 1, "steady: check no_drift failed on drift_report": 1}


@dataclass
class Stage:
    """What the tests watch: the daemon, the receiver, and what was set going.

    `beside_the_poison`: months that are there when the poisoned one has failed; it is mended then.
    """

    dev: DagsterDev
    receiver: HttpReceiver
    backfill: str
    beside_the_poison: Future[set[str]]
    drift_run: str


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Stage]:
    """`gappy` is being backfilled with a poisoned month; `steady` has a champion and then drifts.

    The receiver of alerts is down. Daemons have half a minute to wait for a backfill, a whole one
    for a gap: these pass side by side, and while the champion is trained.
    """
    root = tmp_path_factory.mktemp("daemon")
    books = root / "books"
    for name in ("gappy", "steady"):
        for month in months(name):
            write_month(books, name, month)
    write_month(books, "steady", DRIFTED, rows=600, shift=3)
    poison_month(books, "gappy", POISONED)
    with pytest.MonkeyPatch.context() as patch, http_receiver(up=False) as receiver:
        for name in URLS:
            patch.setenv(name, new_database())
        home = Home.at(root / "home")
        patch.setenv("LOAN_PLATFORM_HOME", str(home.root))
        patch.setenv("LOAN_DATA_DIR", str(books))
        patch.setenv("DAGSTER_HOME", str(home.dagster))
        settings = {
            "LOAN_PLATFORM_ALERT_URLS": receiver.url,
            "LOAN_PLATFORM_GAPS_CRON": "* * * * *",
        }
        with dagster_dev(home, LOCATION, settings) as dev, ThreadPoolExecutor(1) as beside:
            here = InThisProcess()
            here.materialize("gappy", "feature_bins")
            backfill = dev.launch_backfill([f"gappy/{name}" for name in SNAPSHOTS + BOOK], GAPPY)
            poison = beside.submit(mend_the_poison, dev, books)
            here.materialize("steady", "feature_bins")
            here.materialize("steady", *SNAPSHOTS, *BOOK, range_of=STEADY[:-2])
            here.materialize("steady", *MODEL[:-1])  # the retrain packages what it trains
            monthly = [f"steady/{name}" for name in (*SNAPSHOTS, *BOOK, "drift_report")]
            drift_run = dev.launch_run(monthly, DRIFTED)
            here.materialize("steady", "drift_report", range_of=STEADY[-3:-2])
            # After the month before it, or the check `last_month` would miss that one.
            dev.wait_for(
                "the month that drifts is there",
                lambda: DRIFTED in dev.partitions("steady/raw_loans"),
                120,
            )
            here.materialize("steady", *SNAPSHOTS, *BOOK, range_of=STEADY[-1:])
            yield Stage(dev, receiver, backfill, poison, drift_run)


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


def mend_the_poison(dev: DagsterDev, books: Path) -> set[str]:
    """Mend the poisoned month once it has failed; the months that were there by then."""
    failed = dev.wait_for(
        "the poisoned month fails", lambda: dev.partitions("gappy/raw_loans", "FAILED"), 120
    )
    assert failed == [POISONED]
    beside = set(dev.partitions("gappy/feature_counts"))
    write_month(books, "gappy", POISONED)
    dev.start_sensor("partition_gaps")
    return beside


def test_a_poisoned_month_does_not_take_down_those_in_its_run(stage: Stage):
    beside = stage.beside_the_poison.result()
    assert set(GAPPY[:6]) - {POISONED} <= beside
    assert POISONED not in beside


def test_a_backfill_of_24_months_goes_in_bounded_runs(stage: Stage):
    def present() -> bool:
        return all(len(stage.dev.partitions(f"gappy/{name}")) >= len(GAPPY) - 1 for name in BOOK)

    stage.dev.wait_for("23 sound months are there", present, 180)
    runs = stage.dev.runs(dagster__backfill=stage.backfill)
    spans = [
        GAPPY.index(run["tags"]["dagster/asset_partition_range_end"])
        - GAPPY.index(run["tags"]["dagster/asset_partition_range_start"])
        + 1
        for run in runs
    ]
    assert sum(spans) == len(GAPPY)
    assert max(spans) <= MONTHS_PER_RUN


def test_alerts_arrive_once_each_although_the_receiver_was_down(stage: Stage):
    def told() -> str:
        return str(stage.dev.sensor("alerts")["ticks"][0]["skipReason"])

    stage.dev.wait_for("two alerts are owed", lambda: "2 still owed" in told(), 120)
    stage.receiver.up()
    stage.dev.wait_for("the alerts arrive", lambda: len(stage.receiver.messages) >= 2, 60)
    stage.dev.wait_for("the sensor is done", lambda: told() == "json #1: 0 told", 60)
    assert Counter(stage.receiver.titles) == ALERTS


def test_the_gap_schedule_fills_the_month_once_its_file_is_mended(stage: Stage):
    def filled() -> bool:
        return all(stage.dev.partitions(f"gappy/{name}") == GAPPY for name in BOOK)

    stage.dev.wait_for("every month of the book is there", filled, 200)
    assert stage.dev.partitions("gappy/raw_loans", "FAILED") == []


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
    assert {"/".join(asset["key"]["path"]) for asset in run["assets"]} == {
        f"steady/{name}" for name in MODEL
    }


def test_no_second_retrain_and_no_other_alert_follows(stage: Stage):
    """The sensors have ticked on after the retrain and the gaps, and wait."""

    def said() -> bool:
        ticks = stage.dev.sensor("steady_retrain_on_drift")["ticks"]
        return "no drift failure since" in (ticks[0]["skipReason"] or "")

    stage.dev.wait_for("the sensor waits", said, 60)
    assert len(stage.dev.runs(loan__retrain="steady")) == 1
    assert Counter(stage.receiver.titles) == ALERTS


def test_nothing_falls_back_to_sqlite(stage: Stage):
    assert not list(stage.dev.log.parent.rglob("*.db"))
