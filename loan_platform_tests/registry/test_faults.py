"""Kill -9 at every step from fit to alias, and in the middle of copying any one file of a version:
the champion is always whole, a re-run finishes the job.

Real processes are killed in the middle of the real steps (`killed`); what they leave behind is
looked at as the service looks at it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bento.champion import Champions
from loan_platform.engine.home import PROJECT_ROOT
from loan_platform.registry import moves
from loan_platform.registry.ledger import Ledger
from loan_platform.registry.models import Registry
from loan_platform.training.train import Trained
from loan_platform_tests.conftest import FOREIGN
from loan_platform_tests.registry.made import add_version, move_by_hand
from loan_platform_tests.registry.made import saved as saved
from loan_platform_tests.training.conftest import AS_OF

pytestmark = pytest.mark.slow


class Platform:
    """A home, the processes that work on it, and what a service would serve of it."""

    def __init__(self, registry: Registry, workers: subprocess.Popen[str]) -> None:
        self.registry, self._workers = registry, workers
        self.ledger = Ledger(registry.home, registry.portfolio)
        self._service = Champions(registry.portfolio, None, follows=True)

    def together(self, *jobs: dict[str, Any], go: Path | None = None) -> list[dict[str, Any]]:
        assert self._workers.stdin
        assert self._workers.stdout
        place = {"home": str(self.registry.home.root), "portfolio": self.registry.portfolio}
        self._workers.stdin.write(json.dumps([{**place, **job} for job in jobs]) + "\n")
        self._workers.stdin.flush()
        if go:
            go.touch()
        answers: list[dict[str, Any]] = json.loads(self._workers.stdout.readline())
        return answers

    def runs(self, do: str, **job: Any) -> list[str]:
        """Run a job to its end; the steps it took."""
        (answer,) = self.together({"do": do, **job})
        assert answer["ended"] == 0, answer
        steps: list[str] = answer["steps"]
        return steps

    def is_killed(self, do: str, at: int, **job: Any) -> str:
        """Run a job that is killed at a step; which one."""
        (answer,) = self.together({"do": do, "fatal": at, **job})
        assert answer["ended"] == -signal.SIGKILL, answer
        assert len(answer["steps"]) == at + 1
        return str(answer["steps"][-1])

    def serves(self) -> str | None:
        """The version a service that follows the alias has, which is the one the alias names."""
        self._service.look(self.registry)
        assert self._service.trouble is None, self._service.trouble
        serving = self._service.current.version if self._service.current else None
        assert serving == self.registry.version_of("champion")
        return serving

    def is_proved(self) -> None:
        assert self.ledger.verify(moves.chain_head(self.registry)) is None


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Iterator[subprocess.Popen[str]]:
    folder = str(tmp_path_factory.mktemp("workers"))
    # They outlive a test, and what MLflow leaves in the environment of this process is not theirs.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with subprocess.Popen(
        [sys.executable, "-m", "loan_platform_tests.registry.killed", folder, str(empty_store)],
        cwd=PROJECT_ROOT,
        env=clean,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as workers:
        yield workers
        assert workers.stdin
        workers.stdin.close()


@pytest.fixture
def platform(registry: Registry, workers: subprocess.Popen[str]) -> Platform:
    return Platform(Registry(registry.home, "credit_risk"), workers)


def deadly(steps: list[str]) -> list[int]:
    """Where to kill: before each step and after the last; after one is before the next."""
    last = len(steps) - 1
    return [at for at, step in enumerate(steps) if step.startswith("before ") or at == last]


def test_killed_anywhere_from_fit_to_challenger(
    registry: Registry,
    workers: subprocess.Popen[str],
    months: dict[str, Path],
    tmp_path: Path,
):
    platform = Platform(registry, workers)
    kept = str(tmp_path / "trained")
    book = {"months": [str(file) for file in months.values()], "as_of": AS_OF.isoformat()}
    steps = platform.runs("fit", **book, kept="", keep=kept)
    assert steps[0] == "before train"
    assert steps[-1] == "after set_registered_model_tag"
    assert registry.version_of("challenger") == "1"
    judged = platform.runs("promote", **book)
    assert "after judge" in judged
    assert platform.serves() == "1"

    stored = steps.index("after create_model_version")
    for at in deadly(steps):
        if at > stored and "append" not in steps[at] and "alias" not in steps[at]:
            continue  # the road of every move, walked below
        fits = at == 0
        skipped = 0 if fits else 2  # the fit itself is not done over, but where it is the victim
        with_fit = {"kept": "" if fits else kept, "keep": kept}
        assert platform.is_killed("fit", at - skipped, **book, **with_fit) == steps[at]
        assert platform.serves() == "1"
        challenger = registry.version_of("challenger")
        assert challenger
        registry.load(challenger)
        # As whoever comes next does; what was begun is then no part of the next one's steps.
        moves.reconcile(registry, platform.ledger, "put_back")
        assert platform.ledger.standing().intent is None
        platform.is_proved()
    for version in registry.client.search_model_versions("name = 'home_loans'"):
        registry.load(str(version.version))  # none that was begun is there in part
    # What the dead trainings left behind is in nobody's way.
    platform.runs("fit", **book, kept=kept, keep="")
    challenger = registry.version_of("challenger")
    assert challenger == str(
        max(
            int(one.version) for one in registry.client.search_model_versions("name = 'home_loans'")
        )
    )
    platform.runs("promote", **book)
    assert platform.serves() == challenger
    platform.is_proved()
    named = [one.to_version for one in platform.ledger.entries() if one.event == "named"]
    assert named[-1] == challenger
    assert len(set(named)) == len(named), "no move is in the ledger twice"


def test_killed_in_the_middle_of_copying_a_file_of_a_version(
    registry: Registry, workers: subprocess.Popen[str], trained: Trained, tmp_path: Path
):
    platform, kept = Platform(registry, workers), tmp_path / "trained"
    kept.write_bytes(pickle.dumps(trained))
    job = {"kept": str(kept), "months": []}
    platform.runs("fit", **job)
    platform.runs("promote")
    whole = folder_of(registry, "1")
    files = {str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file()}
    cut = ("MLmodel", "artifacts/bundle/scorer-0.lightgbm", "artifacts/bundle/manifest.json")
    for name in cut:
        others = set(whole.parent.parent.iterdir())
        (answer,) = platform.together({"do": "fit", "cut": name, **job})
        assert answer["ended"] == -signal.SIGKILL, name
        (begun,) = set(whole.parent.parent.iterdir()) - others
        half = (begun / whole.name / name).stat().st_size
        assert 0 < half < (whole / name).stat().st_size
        # The half model is no version, so no alias, command or page of versions can name it.
        (version,) = registry.client.search_model_versions("name = 'home_loans'")
        assert str(version.version) == "1"
        assert registry.version_of("challenger") == "1"
        assert platform.serves() == "1"
        registry.load("1")
    experiment = registry.client.get_experiment_by_name("home_loans")
    assert experiment is not None
    models = registry.client.search_logged_models([experiment.experiment_id])
    states = sorted(model.status.name for model in models)
    assert states == ["PENDING"] * len(cut) + ["READY"], "what was begun says so in MLflow"

    platform.runs("fit", **job)
    platform.runs("promote")
    assert platform.serves() == "2"
    found = folder_of(registry, "2")
    assert {str(file.relative_to(found)) for file in found.rglob("*") if file.is_file()} == files
    platform.is_proved()


def folder_of(registry: Registry, version: str) -> Path:
    """Where the files of a version lie."""
    source = registry.client.get_model_version(registry.portfolio, version).source
    assert source is not None
    return Path(source.removeprefix("file://"))


@pytest.mark.parametrize("job", ["promote", "roll_back", "put_back"])
def test_killed_anywhere_in_a_move_of_the_champion(platform: Platform, job: str, saved: Path):
    registry, ledger = platform.registry, platform.ledger

    def prepare() -> tuple[str, str]:
        """Make ready for the job: the version it starts from and the one it leads to."""
        newest = add_version(registry, saved)
        now = registry.version_of("champion") or ""
        if job == "promote":
            return now, newest
        if job == "roll_back":
            moves.promote(registry, ledger, newest, by="x", despite="a test")
            return newest, now
        move_by_hand(registry, newest)
        return newest, now

    add_version(registry, saved)
    moves.promote(registry, ledger, "1", by="x", evidence={"champion_before": None})
    prepare()
    steps = platform.runs(job)
    assert "before append" in steps
    assert "after set_registered_model_alias" in steps
    for at in deadly(steps):
        step = steps[at]
        if job != "promote" and "append" not in step and "alias" not in step:
            continue  # the three are one road; what differs is what they write
        before, after = prepare()
        assert platform.is_killed(job, at) == step
        reached = "after set_registered_model_alias" in steps[: at + 1]
        assert platform.serves() == (after if reached else before), step
        # The re-run, of the job itself: it ends where the first would have ended.
        RERUN[job](registry, ledger)
        assert registry.version_of("champion") == after, step
        assert ledger.standing().champion == after
        assert ledger.standing().intent is None
        platform.is_proved()


def again_promote(registry: Registry, ledger: Ledger) -> None:
    moves.reconcile(registry, ledger, "put_back")
    challenger, before = registry.version_of("challenger"), registry.version_of("champion")
    assert challenger
    if challenger != before:
        evidence = {"champion_before": before}
        moves.promote(registry, ledger, challenger, by="asset", evidence=evidence)


def again_roll_back(registry: Registry, ledger: Ledger) -> None:
    if registry.version_of("champion") != "1" or ledger.standing().intent:
        moves.rollback(registry, ledger, by="Ann")


def again_put_back(registry: Registry, ledger: Ledger) -> None:
    moves.reconcile(registry, ledger, "put_back")


RERUN: dict[str, Callable[[Registry, Ledger], None]] = {
    "promote": again_promote,
    "roll_back": again_roll_back,
    "put_back": again_put_back,
}


def test_two_processes_that_promote_at_once_make_one_champion_and_one_chain(
    platform: Platform, saved: Path, tmp_path: Path
):
    registry, ledger = platform.registry, platform.ledger
    for _ in range(3):
        add_version(registry, saved)
    moves.promote(registry, ledger, "1", by="x", evidence={"champion_before": None})
    go = tmp_path / "go"
    racers = [{"do": "race", "go": str(go), "version": version} for version in ("2", "3")]
    assert [one["ended"] for one in platform.together(*racers, go=go)] == [0, 0]
    entries = ledger.entries()[2:]
    assert [one.event for one in entries] == ["promoting", "promoted"] * 2
    first, second = entries[0].to_version, entries[2].to_version
    assert {first, second} == {"2", "3"}
    assert entries[2].from_version == first, "the second moved on from the first"
    assert platform.serves() == second
    platform.is_proved()
