"""Does the steps from fit to alias in processes that kill themselves at a given step (SIGKILL),
or in the middle of the copy of a given file of a version.

`python -m loan_platform_tests.registry.killed FOLDER STORE` reads lists of jobs from its standard
input, as JSON, one a line. The jobs of a line run at once, in forks of it, so the imports are paid
once; the answer is a line that says which steps each reached, and which signal ended it.

Here: the processes. Not here: what must hold afterwards (`test_faults`).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc  # noqa: F401 (once, for all forks)
from mlflow import MlflowClient
from mlflow.utils.requirements_utils import _init_modules_to_packages_map

import loan_platform.registry.promotion
import loan_platform.training.card
import loan_platform.training.pictures
import loan_platform.training.train
from loan_platform.engine.home import Home
from loan_platform.model.bundle import Bundle
from loan_platform.registry import moves
from loan_platform.registry.ledger import Ledger
from loan_platform.registry.models import Registry
from loan_platform_tests import home_loans

STEPS: list[tuple[Any, str]] = [
    (loan_platform.training.train, "train"),
    (Bundle, "save"),
    (MlflowClient, "log_model_artifacts"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_registered_model_alias"),
    (loan_platform.registry.promotion, "judge"),
    (Ledger, "append"),
    (MlflowClient, "set_registered_model_tag"),
    (Registry, "load"),
]


class Steps:
    """Counts what is reached, before and after each call of a step; dies at number `fatal`."""

    def __init__(self, fatal: int | None, note: Path) -> None:
        self._fatal, self._note, self._reached = fatal, note, 0
        for owner, name in STEPS:
            setattr(owner, name, self._counted(getattr(owner, name), name))

    def _counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._at(f"before {name}")
            answer = function(*arguments, **named)
            self._at(f"after {name}")
            return answer

        return counted

    def _at(self, step: str) -> None:
        with self._note.open("a") as note:
            note.write(f"{step}\n")
        if self._reached == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self._reached += 1


def cut_short(file: str) -> None:
    """Die when half the bytes of a file are in MLflow's store; `file` is its path in the model."""
    store, copy = MlflowClient.log_model_artifacts, shutil.copyfile

    def storing(*arguments: Any, **named: Any) -> Any:
        shutil.copyfile = copying  # type: ignore[assignment]
        return store(*arguments, **named)

    def copying(source: Any, to: Any, **named: Any) -> Any:
        if not str(source).endswith(f"/model/{file}"):
            return copy(source, to, **named)
        whole = Path(source).read_bytes()
        with Path(to).open("wb") as half:
            half.write(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return None  # never: nobody is there any more

    MlflowClient.log_model_artifacts = storing  # type: ignore[method-assign]


def opened(home: Home, job: dict[str, Any]) -> tuple[Registry, Ledger]:
    return Registry(home, job["portfolio"]), Ledger(home, job["portfolio"])


def fit(home: Home, job: dict[str, Any]) -> None:
    """As the asset trained_model: fit, save, register, challenger.

    `cut`: the file of the version in the middle of whose copy into MLflow's store it is killed.
    """
    months = {Path(file).stem: Path(file) for file in job["months"]}
    if job["kept"] and Path(job["kept"]).exists():  # the fit is not what is being killed
        trained = pickle.loads(Path(job["kept"]).read_bytes())  # noqa: S301
    else:
        as_of = dt.datetime.fromisoformat(job["as_of"])
        trained = loan_platform.training.train.train(home_loans.contract(), months, as_of)
        Path(job["keep"]).write_bytes(pickle.dumps(trained))
    registry, ledger = opened(home, job)
    if job.get("cut"):
        cut_short(job["cut"])
    # Without pictures: they are drawn before anything is stored, and take most of the time.
    version = registry.register(trained.bundle, trained.evaluation, pictures={})
    moves.challenge(registry, ledger, version, by="asset")


def promote(home: Home, job: dict[str, Any]) -> None:
    """As the asset champion does on a verdict in favour; the verdict itself is not in question."""
    registry, ledger = opened(home, job)
    moves.reconcile(registry, ledger, "put_back")
    challenger, before = registry.version_of("challenger"), registry.version_of("champion")
    assert challenger
    if challenger == before:
        return
    if job.get("months"):
        months = {Path(file).stem: Path(file) for file in job["months"]}
        loan_platform.registry.promotion.judge(
            home_loans.contract(),
            registry.load(challenger),
            registry.load(before) if before else None,
            months,
            dt.datetime.fromisoformat(job["as_of"]),
        )
    evidence = {"champion_before": before}
    moves.promote(registry, ledger, challenger, by="asset", evidence=evidence)


def put_back(home: Home, job: dict[str, Any]) -> None:
    moves.reconcile(*opened(home, job), "put_back")


def roll_back(home: Home, job: dict[str, Any]) -> None:
    moves.rollback(*opened(home, job), by="Ann")


def race(home: Home, job: dict[str, Any]) -> None:
    """Promote one version, once the file `go` is there."""
    registry, ledger = opened(home, job)
    registry.version_of("challenger")
    while not Path(job["go"]).exists():
        pass
    moves.promote(registry, ledger, job["version"], by="a racer", despite="a race")


JOBS = {one.__name__: one for one in (fit, promote, put_back, roll_back, race)}


def start(job: dict[str, Any], note: Path) -> int:
    """Run a job in a fork; its process id."""
    note.write_text("")
    child = os.fork()
    if child:
        return child
    try:
        Steps(job.get("fatal"), note)
        JOBS[job["do"]](Home.at(Path(job["home"])), job)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def main() -> None:
    folder, store = sys.argv[1:]
    # Of some store, to have imported what a first use imports; the forks use others.
    Registry(Home(Path(folder), f"sqlite:///{store}"), "none").version_of("champion")
    _init_modules_to_packages_map()  # of every package installed: more than a second
    for line in sys.stdin:
        jobs = json.loads(line)
        notes = [Path(folder) / f"steps-{number}" for number in range(len(jobs))]
        children = [start(job, note) for job, note in zip(jobs, notes, strict=True)]
        answers = []
        for child, note in zip(children, notes, strict=True):
            status = os.waitpid(child, 0)[1]
            ended = os.waitstatus_to_exitcode(status)
            answers.append({"ended": ended, "steps": note.read_text().splitlines()})
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
