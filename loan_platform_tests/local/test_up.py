"""`loan-platform up` itself, as a process: what it starts answers, and it stops on a signal."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console

from loan_platform.engine.home import Home
from loan_platform.local.processes import ProcessError, answers
from loan_platform.local.up import Place, Ports, choose_ports, programs

UP = (sys.executable, "-m", "loan_platform.cli", "up")


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    numbers = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return numbers


def port_options() -> tuple[str, ...]:
    names = ("dagster", "mlflow", "service", "code")
    pairs = zip(names, free_ports(len(names)), strict=True)
    return tuple(word for name, port in pairs for word in (f"--{name}-port", str(port)))


def test_a_taken_default_is_passed_over_and_said(monkeypatch):
    said = io.StringIO()
    with taken() as port:
        monkeypatch.setattr(Ports.__init__, "__defaults__", (port, 5000, 3001, 4000))
        chosen = choose_ports("127.0.0.1", {}, services=2, say=Console(file=said))
    assert chosen.dagster > port
    assert f"port {port} is taken, so dagster listens on {chosen.dagster}" in said.getvalue()


def test_no_two_processes_share_a_port():
    (first,) = free_ports(1)
    say = Console(file=io.StringIO())
    chosen = choose_ports("127.0.0.1", {"dagster": first, "service": None}, services=3, say=say)
    used = [chosen.dagster, chosen.mlflow, chosen.code, *range(chosen.service, chosen.service + 3)]
    assert len(set(used)) == 6


def test_a_taken_port_that_was_asked_for_is_an_error():
    with taken() as port, pytest.raises(ProcessError, match=rf"port {port} is taken.*mlflow-port"):
        choose_ports("127.0.0.1", {"mlflow": port}, services=1, say=Console(file=io.StringIO()))


def test_no_mlflow_is_started_where_one_runs_already(home, monkeypatch):
    place = Place("127.0.0.1", "127.0.0.1", Ports())
    assert "mlflow" in programs(home, place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    found = programs(Home.from_environment(), place)
    assert "mlflow" not in found
    assert found["code"].environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_passwords_are_not_part_of_what_a_program_prints(home, monkeypatch):
    monkeypatch.setenv("LOAN_PLATFORM_DAGSTER_URL", "postgresql+psycopg2://me:s3cret@db/x")
    found = programs(Home.from_environment(), Place("127.0.0.1", "127.0.0.1", Ports()))
    assert "s3cret" not in repr(found)


def test_an_unknown_process_is_refused_by_name(home):
    done = subprocess.run([*UP, "--only", "postgres"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "there is no process 'postgres' here; there are code, webserver, daemon" in done.stderr


class Running:
    """`loan-platform up` in a process group of its own, its output read line by line."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        # One service: five more processes would show nothing else.
        environment = {**os.environ, "HOME": str(folder), "LOAN_PLATFORM_PORTFOLIOS": "credit_risk"}
        environment.pop("XDG_RUNTIME_DIR", None)
        self.process = subprocess.Popen(
            [*UP, *options],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if re.search(pattern, line):
                return self.lines
        raise AssertionError("ended before saying it:\n" + "".join(self.lines))

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    up = Running(folder, *options)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.terminate()
            up.process.wait(60)


@pytest.mark.slow
def test_everything_starts_answers_and_stops_on_sigterm_leaving_nothing_elsewhere(home, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    with running(elsewhere, *port_options()) as up:
        lines = up.read_until("Everything runs")
        links = re.findall(r"http://127\.0\.0\.1:\d+", "".join(lines))
        assert len(links) == 3, lines
        assert all(answers(link) for link in links)
        assert any("has no champion yet" in line for line in lines)
        webserver = next(line for line in lines if line.startswith("webserver")).split()[-1]
        query = (
            "{ workspaceOrError { ... on Workspace { locationEntries { name "
            "locationOrLoadError { __typename } } } } }"
        )
        answer = httpx.post(f"{webserver}/graphql", json={"query": query}, trust_env=False).json()
        assert answer["data"]["workspaceOrError"]["locationEntries"] == [
            {
                "name": "loan_platform",
                "locationOrLoadError": {"__typename": "RepositoryLocation"},
            }
        ]
        second = subprocess.run(UP, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"runs already on {home.root} (process {up.process.pid}" in second.stderr
        family = up.family()
        begun = time.monotonic()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(40) == 0
        assert time.monotonic() - begun < 30
    _, alive = psutil.wait_procs(family, timeout=2)
    assert not alive
    assert {file.name for file in (home.root / "logs").glob("*.log")} == {
        f"{name}.log" for name in ("code", "webserver", "daemon", "mlflow", "service-credit_risk")
    }
    assert list(elsewhere.rglob("*")) == [], "nothing is written but below the home folder"


@pytest.mark.slow
def test_one_process_alone_in_the_foreground(home_with_store, monkeypatch, tmp_path):
    """What each container runs: the command becomes that process and gets its signals itself."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home_with_store.tracking_uri)
    (port,) = free_ports(1)
    with running(tmp_path / "elsewhere", "--only", "mlflow", "--mlflow-port", str(port)) as up:
        deadline = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert up.process.poll() is None, up.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "mlflow" in psutil.Process(up.process.pid).cmdline()
        family = up.family()
        up.process.send_signal(signal.SIGTERM)
        up.process.wait(20)
    _, alive = psutil.wait_procs(family, timeout=2)
    assert not alive
