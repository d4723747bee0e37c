"""A real `bentoml serve` on a free loopback port, and clients that press it for a while.

Here: starting, waiting, killing, ending; bounded load. Not here: what is expected of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from loan_platform.contract.request import Value

PROJECT = Path(__file__).parents[2]
START_SECONDS = 90
STOP_SECONDS = 20


class Server:
    """The service's processes, ended with the block that started them."""

    def __init__(
        self, target: str | Path, port: int, environment: dict[str, str], log: Path
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        # One, since making it takes longer than asking; no connection is kept, for each belongs to
        # one worker.
        self._client = httpx.Client(
            timeout=10, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        )
        command = [sys.executable, "-m", "bentoml", "serve", str(target)]
        # A Bento must not find the sources it was built from.
        folder = target.parent if isinstance(target, Path) else PROJECT
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def health(self) -> httpx.Response | None:
        """What /health says; None while nobody answers."""
        with contextlib.suppress(httpx.HTTPError):
            return self._client.get(f"{self.url}/health")
        return None

    def wait(self, satisfied: Callable[[httpx.Response], bool], seconds: float) -> httpx.Response:
        """The first answer of /health that satisfies; fails with the server's log if none does."""
        deadline = time.monotonic() + seconds
        last: httpx.Response | None = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            last = self.health()
            if last is not None and satisfied(last):
                return last
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds} s, last {last}:\n{self.log.read_text()}")

    def workers(self) -> list[psutil.Process]:
        """The processes that answer, those just killed left out."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one of these
                if "_bentoml_impl" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def kill(self, worker: psutil.Process) -> None:
        """kill -9."""
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()

    def stop(self) -> float:
        """End with SIGTERM; give the seconds that took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)
        return time.monotonic() - start


@contextlib.contextmanager
def serving(
    target: str | Path, log: Path, ready: int = 200, **environment: str | Path
) -> Iterator[Server]:
    """Serve a Bento's folder or an import path until the block ends.

    `ready` is the status of /health to wait for: 503 where no champion is to be expected.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("LOAN_", "MLFLOW_"))}
    given = {name: str(value) for name, value in environment.items()}
    clean.pop("PYTHONPATH", None)
    server = Server(target, port, clean | given, log)
    try:
        server.wait(lambda response: response.status_code == ready, START_SECONDS)
        yield server
    finally:
        if server.process.poll() is None:
            below = psutil.Process(server.process.pid).children(recursive=True)
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.process.kill()
                for process in below:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


class Load:
    """Clients that send applications one after the other until told to stop.

    `pause`: seconds each waits between two, where the cores are needed for something else.
    `answers` holds (number of the row, answer) of what was answered, `refused` every other
    answer, `broken` the connections that ended without one.
    """

    def __init__(
        self, url: str, rows: list[dict[str, Value]], clients: int, pause: float = 0
    ) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.refused: list[str] = []
        self.broken: list[str] = []
        self._url = url
        self._rows = rows
        self._pause = pause
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait(self, answers: int, seconds: float) -> None:
        """Until there are so many answers; fails where there are not in time."""
        deadline = time.monotonic() + seconds
        while len(self.answers) < answers:
            assert time.monotonic() < deadline, (
                f"{len(self.answers)} of {answers} answers after {seconds} s, "
                f"refused {self.refused[:3]}, broken {self.broken[:3]}"
            )
            time.sleep(0.02)

    def _send(self, client_number: int) -> None:
        number = client_number
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.wait(self._pause):
                row = number % len(self._rows)
                number += len(self._threads)
                try:
                    response = client.post("/predict", json=self._rows[row])
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                    time.sleep(0.05)
                    continue
                if response.status_code == 200:
                    self.answers.append((row, response.json()))
                else:
                    self.refused.append(f"{response.status_code} {response.text}")
