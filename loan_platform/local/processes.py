"""Child processes: started in order, watched, and all stopped within a bounded time.

Here: how a process is kept. Not here: which processes there are (`up`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

import httpx
import psutil

from loan_platform.engine.files import make_folder

LOG_TAIL_LINES = 15
_POLL_SECONDS = 0.2


class ProcessError(RuntimeError):
    """A process died, did not answer in time, or may not be started; says which and what to do."""


class Interrupted(Exception):
    """Somebody asked to stop: Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class Program:
    """One process to keep.

    `ready` is asked about five times a second and says whether it does its work yet.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)  # holds database passwords
    folder: Path
    ready: Callable[[], bool]
    link: str | None = None

    def become(self) -> None:
        """Replace the running process by this program; for containers. Does not return."""
        os.chdir(self.folder)
        os.execvpe(self.command[0], self.command, dict(self.environment))


class Supervisor:
    """Keeps programs as children of this process; leaving the `with` block stops them all.

    While the block lasts, SIGINT and SIGTERM end the waiting methods with `Interrupted`; a second
    one skips the patience for programs that are slow to stop. Use it from the main thread.
    """

    def __init__(self, logs: Path, *, patience: float = 20.0, keep_open: tuple[int, ...] = ()):
        """`logs`: folder of `<name>.log`. `patience`: seconds from SIGTERM to SIGKILL.

        `keep_open`: file descriptors the children hold as long as they live (a lock).
        """
        self._logs = logs
        self._patience = patience
        self._keep_open = keep_open
        self._children: dict[str, tuple[Program, subprocess.Popen[bytes]]] = {}
        self._ready: set[str] = set()
        self._family: set[psutil.Process] = set()
        self._asked_to_stop = threading.Event()
        self._impatient = threading.Event()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Supervisor:
        # A handler, even one that only sets a flag, also gives the children the default action
        # for these signals. Without it they would inherit "ignored" from a shell that started us
        # in the background, and Dagster copies what it finds for SIGINT onto SIGTERM.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked_to_stop.is_set():
            self._impatient.set()
        self._asked_to_stop.set()

    def start(self, program: Program) -> int:
        """Start one program, its output going to its log, and return its process id."""
        make_folder(self._logs)
        log = self.log_of(program.name)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                program.command,
                env=dict(program.environment),
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches us alone, and we decide the order
                pass_fds=self._keep_open,
                preexec_fn=_end_with_parent,
            )
        self._children[program.name] = (program, child)
        return child.pid

    def log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def waiting_until_ready(self, timeout: float) -> Iterator[tuple[Program, float]]:
        """Yield each program that was not ready yet, with the seconds waited, as it becomes ready.

        Raises:
            ProcessError: one died, or not all were ready within `timeout` seconds.
            Interrupted: asked to stop.
        """
        begun = time.monotonic()
        waiting = [p for name, (p, _) in self._children.items() if name not in self._ready]
        while waiting:
            self.check()
            for program in [program for program in waiting if program.ready()]:
                waiting.remove(program)
                self._ready.add(program.name)
                self._remember_family()
                yield program, time.monotonic() - begun
            if waiting and time.monotonic() - begun > timeout:
                names = ", ".join(program.name for program in waiting)
                first = waiting[0].name
                raise ProcessError(
                    f"{names} did not answer within {timeout:.0f} s; see {self.log_of(first)}\n"
                    + self._tail(first)
                )

    def wait_until_ready(self, timeout: float) -> None:
        """`waiting_until_ready`, for a caller with nothing to say meanwhile."""
        for _ in self.waiting_until_ready(timeout):
            pass

    def watch(self) -> None:
        """Return only by an exception: `Interrupted`, or `ProcessError` when a program ends."""
        while True:
            self.check()

    def check(self) -> None:
        """One look at stop requests and at the children, taking a fifth of a second."""
        if self._asked_to_stop.wait(_POLL_SECONDS):
            raise Interrupted
        for program, child in self._children.values():
            if child.poll() is not None:
                raise ProcessError(
                    f"{program.name} ended {_how(child.returncode)}; the end of "
                    f"{self.log_of(program.name)}:\n{self._tail(program.name)}"
                )

    def _tail(self, name: str) -> str:
        try:
            lines = self.log_of(name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])

    def _remember_family(self) -> None:
        """Note every process below the children.

        Once a child is gone, what it started can no longer be found: it has another parent then,
        and may have left the child's session (BentoML's workers do, and keep their port).
        """
        for _, child in self._children.values():
            if child.poll() is None:  # else its id may be a stranger's by now
                self._family |= _tree(child.pid)

    def stop(self) -> None:
        """Stop every child and whatever it started, within the patience.

        The children get SIGTERM and tell their own. What still runs when half of the patience is
        over, or when its parent has gone, is told itself: a run in the middle of its work ends
        then as a failed run, where a SIGKILL would leave it "started" for good. At the end of the
        patience, or at a second Ctrl-C, comes SIGKILL.
        """
        children = [child for _, child in self._children.values()]
        self._remember_family()
        ids = {child.pid for child in children}
        told = {process for process in self._family if process.pid in ids}
        for child in reversed(children):
            if child.poll() is None:
                child.terminate()
        begun = time.monotonic()
        while time.monotonic() - begun < self._patience and not self._impatient.is_set():
            self._remember_family()
            if not any(_lives(process) for process in self._family):
                break
            left_alone = not [child for child in children if child.poll() is None]
            if left_alone or time.monotonic() - begun > self._patience / 2:
                for process in self._family - told:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.terminate()
                told |= self._family
            time.sleep(_POLL_SECONDS)
        for process in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for child in children:
            child.wait()
        self._children.clear()
        self._ready.clear()
        self._family.clear()


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[int]:
    """Hold `lock` for this process and for the children that are given the yielded descriptor.

    The lock lasts as long as any of them lives: after a supervisor was killed, its leftovers still
    keep a second set of daemons off the same state.

    Raises:
        ProcessError: somebody holds it.
    """
    make_folder(lock.parent)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProcessError(
                f"the platform runs already on {lock.parent} (process {holder(lock)}, or what it "
                "left behind); stop it, or set LOAN_PLATFORM_HOME to another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def holder(lock: Path) -> int | None:
    """Process id that took the lock, where it is still held."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(lock.read_text(encoding="utf-8") or 0)
    return None


def answers(url: str) -> bool:
    """Whether an HTTP server answers there with anything but an error of its own."""
    try:
        return local_client().get(url, timeout=2.0).status_code < 500
    except httpx.HTTPError:
        return False


@functools.cache
def local_client() -> httpx.Client:
    """Asks this machine's servers, so no proxy of the environment; a connection for each question.

    One for the whole process: making it reads every certificate, 20 ms, and questions are asked
    five times a second while the servers need the cores to start.
    """
    return httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def is_free(host: str, port: int) -> bool:
    """Whether this process could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connection is still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return not listens("127.0.0.1" if host == "0.0.0.0" else host, port)  # noqa: S104


def _tree(pid: int) -> set[psutil.Process]:
    """The process and everything below it."""
    try:
        top = psutil.Process(pid)
        return {top, *top.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"by signal {signal.Signals(-returncode).name}"
    return f"with exit code {returncode}"


def _end_with_parent() -> None:
    """In the child: be told to stop should the supervisor be killed (Linux; elsewhere the lock)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
