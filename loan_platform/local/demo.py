"""The whole loop on one book, told while it happens: `loan-platform demo`.

A year of the book is history. The following months arrive at the real service over HTTP, from
the second of them on with a planted shift. Sensor, daemon, registry and service are those of
`loan-platform up`; the months are closed in this process, as the nightly schedule would, because a
demo does not wait for the night.

Here: the story, and what it needs running. Not here: the lender's side of it (`applications`),
the page written at the end (`report`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loan_platform.components.retraining import REASON_TAG
from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys, window
from loan_platform.contract.portfolios import CHOICE, contract_of
from loan_platform.engine.home import Home
from loan_platform.ingest.source import Location, locate, stand_in_path
from loan_platform.ingest.staging import open_book
from loan_platform.local.applications import (
    Answers,
    Application,
    applications,
    report_outcomes,
    scaled,
    send,
    write_months,
)
from loan_platform.local.instance import environment, prepare
from loan_platform.local.platform_runs import PlatformRuns
from loan_platform.local.processes import Supervisor, holder, only_one
from loan_platform.local.report import closing_table, write_report
from loan_platform.local.story import MonthStory, Retraining, Story
from loan_platform.local.up import LOCK, LOOPBACK, SERVICE, Place, Ports, choose_ports, programs

PORTFOLIO = "credit_risk"
HISTORY_MONTHS = 12
CALM_MONTHS = 1
SHIFTED_MONTHS = 2
APPLICATIONS_AFTERWARDS = 300

SHIFT_COLUMN, SHIFT_FACTOR = "person_income", 0.4
SHIFT_STORY = f"applicants earn {SHIFT_FACTOR:.0%} of what they did, at the same risk"

NEVER = "0 0 1 1 *"  # the nightly gap schedule would fill in the months that are yet to come
START_TIMEOUT_SECONDS = 90.0
RETRAIN_TIMEOUT_SECONDS = 120.0
FOLLOW_TIMEOUT_SECONDS = 30.0


def run_demo(*, data: Path | None, seed: int, say: Console) -> Path:
    """Run the loop in a home of its own, emptied first; return the path of the report.

    `data`: the book; without it the file in `LOAN_DATA_DIR`, and without that a simulated one.
    The same `seed` tells the same story.
    """
    home = _fresh_home()
    contract = contract_of(PORTFOLIO)
    location = _location(contract, home, data, seed)
    story = Story(contract, location.simulated, Path(location.source.name).name, seed, SHIFT_STORY)
    narrator = Narrator(say)
    narrator.tell(
        f"[bold]{contract.title}[/bold]: "
        + (
            "a SIMULATED book, drawn from the contract's figures"
            if story.simulated
            else f"the book {location.source.name}"
        )
    )
    first = contract.time.first_day
    months = keys(first, HISTORY_MONTHS + CALM_MONTHS + SHIFTED_MONTHS + 1)
    with open_book(contract, location) as book:
        future = {month: applications(contract, book, month) for month in months[HISTORY_MONTHS:]}
        history = write_months(
            contract, book, months[:HISTORY_MONTHS], _history_path(contract, home, location)
        )
    narrator.tell(
        f"{history:,} loans of {months[0]} to {months[HISTORY_MONTHS - 1]} are history; "
        "later months will arrive at the service"
    )
    os.environ.update(environment(home))
    _play(story, home, months, future, narrator)

    say.print(closing_table(story))
    path = home.root / "report.html"
    write_report(story, home, path)
    say.print(f"Report with pictures: [bold]{path}[/bold]")
    say.print(f"Look around in it: LOAN_PLATFORM_HOME={home.root} loan-platform up")
    narrator.tell("done")
    return path


def _fresh_home() -> Home:
    """The demo's own home, below the ordinary one.

    Raises:
        DemoError: something runs in it.
    """
    root = Home.from_environment().root / "demo"
    if (running := holder(root / LOCK)) is not None:
        raise DemoError(f"process {running} runs on {root}, which the demo would empty; stop it")
    if root.exists():
        shutil.rmtree(root)
    os.environ["LOAN_PLATFORM_HOME"] = str(root)
    os.environ["LOAN_PLATFORM_GAPS_CRON"] = NEVER
    os.environ[CHOICE] = PORTFOLIO
    return Home.at(root)


def _location(contract: Contract, home: Home, data: Path | None, seed: int) -> Location:
    """The whole book: the file given, the one in `LOAN_DATA_DIR`, or one drawn with `seed`."""
    if data is not None:
        if not data.is_file():
            raise DemoError(f"there is no file {data}; give --data the path of a book")
        return Location.of_file(data.absolute())
    if os.environ.get("LOAN_DATA_DIR"):
        return locate(contract, home)
    from loan_platform.ingest.simulate import write_simulated

    drawn = home.root / "book" / "simulated.csv.gz"
    write_simulated(contract, drawn, seed)
    return Location.of_file(drawn, simulated=True)


def _history_path(contract: Contract, home: Home, whole: Location) -> Path:
    """Where the platform will look for the history: in a data folder, or as its own stand-in."""
    if whole.simulated:
        os.environ.pop("LOAN_DATA_DIR", None)
        return stand_in_path(contract, home)
    folder = home.root / "book"
    os.environ["LOAN_DATA_DIR"] = str(folder)
    return folder / contract.source.name


def _play(
    story: Story,
    home: Home,
    months: list[str],
    future: dict[str, list[Application]],
    narrator: Narrator,
) -> None:
    contract = story.contract
    prepare(home)
    with (
        only_one(home.root / LOCK) as lock,
        Supervisor(home.root / "logs", keep_open=(lock,)) as supervisor,
        PlatformRuns(contract, home) as runs,
    ):
        # Only now: on a new home this process has just made Dagster's databases.
        place = Place(LOOPBACK, LOOPBACK, _free_ports())
        found = programs(home, place)
        if store := runs.found_before():
            raise DemoError(
                f"{store} knows {contract.name} already, and the demo tells its story from the "
                "beginning; unset LOAN_PLATFORM_DAGSTER_URL, LOAN_PLATFORM_DECISIONS_URL and "
                "MLFLOW_TRACKING_URI, or point them at empty databases"
            )
        supervisor.start(found["code"])
        # Its health is asked for through the webserver, which the demo has no need of.
        supervisor.start(dataclasses.replace(found["daemon"], ready=lambda: True))
        narrator.tell("Dagster's code server and daemon are starting beside the work")
        _take_in_history(story, runs, months[:HISTORY_MONTHS], narrator)
        packaged = programs(home, place, serve=(story.bento,))[SERVICE + PORTFOLIO]
        supervisor.start(packaged)
        service = str(packaged.link)
        supervisor.wait_until_ready(START_TIMEOUT_SECONDS)
        _await_version(service, runs.champion_version(), supervisor)
        narrator.tell(f"the service answers at {service}, the daemon watches")
        asked: list[Application] = []
        for month in months[HISTORY_MONTHS:-1]:
            shifted = month > months[HISTORY_MONTHS + CALM_MONTHS - 1]
            arriving = _arriving(future[month], shifted)
            asked += arriving
            told = MonthStory(month, shifted, _send(service, arriving, month, shifted, narrator))
            story.months.append(told)
            _close_month(told, contract, home, runs, asked, narrator)
            if told.drift and told.drift.drifted:
                told.retrain = _await_retraining(runs, month, supervisor, narrator)
                _await_version(service, runs.champion_version(), supervisor)
        last = _arriving(future[months[-1]][:APPLICATIONS_AFTERWARDS], True)
        story.afterwards = _send(service, last, months[-1], True, narrator)


def _free_ports() -> Ports:
    return choose_ports(LOOPBACK, {}, services=1, say=Console(quiet=True))


def _take_in_history(
    story: Story, runs: PlatformRuns, months: list[str], narrator: Narrator
) -> None:
    runs.materialize("profile", "feature_bins")
    with narrator.waiting(f"ingesting {len(months)} months"):
        runs.materialize("raw_loans", "cleaned_features", "feature_counts", months=months)
    admitted = runs.monthly_metadata("raw_loans", months)
    story.history = {
        "months": months,
        "rows": sum(int(one["rows_in"]) for one in admitted.values()),
        "accepted": sum(int(one["dagster/row_count"]) for one in admitted.values()),
        "quarantined": sum(int(one["quarantined"]) for one in admitted.values()),
        "by_month": {month: int(one["rows_in"]) for month, one in admitted.items()},
    }
    narrator.tell(
        f"{story.history['rows']:,} rows = {story.history['accepted']:,} accepted + "
        f"{story.history['quarantined']} quarantined, each with its reason"
    )
    with narrator.waiting("training the first model, packaging it"):
        runs.materialize("trained_model", "champion", "baseline_stats", "loan_service")
    story.first_champion = runs.metadata("trained_model")
    story.bento = str(runs.metadata("loan_service")["bento_tag"])
    figures = story.first_champion
    narrator.tell(
        f"version {figures['model_version']}: AUC {figures['auc']:.3f} "
        f"[{figures['auc_low']:.3f}, {figures['auc_high']:.3f}] on rows it never touched; "
        f"packaged as {story.bento}"
    )


def _arriving(month: list[Application], shifted: bool) -> list[Application]:
    return scaled(month, SHIFT_COLUMN, SHIFT_FACTOR) if shifted else month


def _send(
    service: str, arriving: list[Application], month: str, shifted: bool, narrator: Narrator
) -> Answers:
    what = f"{month}: {len(arriving):,} applications" + (" (shifted)" if shifted else "")
    with narrator.counting(what, len(arriving)) as advance:
        answers = send(service, arriving, advance)
    narrator.tell(
        f"{what}: {answers.decided:,} decided by version {', '.join(sorted(answers.versions))}, "
        f"{answers.refused} refused as invalid, {answers.failed} failed"
    )
    return answers


def _close_month(
    told: MonthStory,
    contract: Contract,
    home: Home,
    runs: PlatformRuns,
    asked: list[Application],
    narrator: Narrator,
) -> None:
    """The month is over: outcomes that matured come in, and its assets are brought up to date."""
    _, end = window(told.month)
    told.outcomes_reported = report_outcomes(contract, home, asked, end)
    with narrator.waiting(f"closing {told.month}"):
        runs.close_month(told.month)
    told.drift = runs.drift_report(told.month)
    narrator.tell(
        f"month closed, {told.outcomes_reported:,} outcomes became known. {told.drift.summary}"
    )


def _await_retraining(
    runs: PlatformRuns, month: str, supervisor: Supervisor, narrator: Narrator
) -> Retraining:
    """Wait for the run that the sensor, in the daemon, asks for."""
    with narrator.waiting("the drift check failed; waiting for the sensor to retrain"):
        run = runs.await_retrain(month, RETRAIN_TIMEOUT_SECONDS, supervisor)
    champion = runs.metadata("champion")
    retraining = Retraining(
        reason=run.tags.get(REASON_TAG, ""),
        version=str(champion["challenger_version"]),
        decision=str(champion["decision"]),
        reasons=[line.removeprefix("- ") for line in str(champion["reasons"]).splitlines()],
        champion_before=str(champion["champion_before"]),
        champion_after=str(champion["champion_version"]),
    )
    narrator.tell(
        f"the sensor retrained ({retraining.reason}): version {retraining.version} "
        f"[bold]{retraining.decision}[/bold]: {'; '.join(retraining.reasons)}"
    )
    return retraining


def _await_version(service: str, version: str | None, supervisor: Supervisor) -> None:
    """Wait until the running service answers with `version`."""
    deadline = time.monotonic() + FOLLOW_TIMEOUT_SECONDS
    with httpx.Client(base_url=service, trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            supervisor.check()
            with contextlib.suppress(httpx.TransportError):
                response = client.get("/health")
                if response.status_code == 200 and response.json()["model_version"] == version:
                    return
    raise DemoError(f"the service did not follow to version {version} in time; see its log")


class DemoError(RuntimeError):
    """The demo cannot go on; says why and what to do."""


class Narrator:
    """Says what happens, with the seconds since the start."""

    def __init__(self, say: Console) -> None:
        self.say = say
        self.begun = time.monotonic()

    def tell(self, text: str) -> None:
        self.say.print(f"[dim]{time.monotonic() - self.begun:5.0f} s[/dim]  {text}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        with self.say.status(f"{what} ..."):
            yield

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Any]:
        columns = (
            TextColumn(f"         {what}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.say, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda n: progress.advance(task, n)
