"""Real child processes: what is started is watched, and nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loan_platform.local.processes import (
    ProcessError,
    Program,
    Supervisor,
    answers,
    holder,
    is_free,
    listens,
    only_one,
)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    def make(name: str, code: str, ready: Callable[[], bool] = lambda: True) -> Program:
        command = (sys.executable, "-c", textwrap.dedent(code))
        return Program(name, command, os.environ, tmp_path, ready)

    return make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


SLEEP = "import time; time.sleep(600)"


def test_starts_waits_until_it_answers_and_stops(program, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code = f"""
        from http.server import SimpleHTTPRequestHandler, test
        test(SimpleHTTPRequestHandler, port={port}, bind="127.0.0.1")
    """
    with Supervisor(tmp_path / "logs") as supervisor:
        pid = supervisor.start(program("web", code, ready=lambda: answers(url)))
        ready = [(each.name, seconds) for each, seconds in supervisor.waiting_until_ready(20)]
        assert [name for name, _ in ready] == ["web"]
        assert listens("127.0.0.1", port)
        assert not is_free("127.0.0.1", port)
        assert list(supervisor.waiting_until_ready(1)) == [], "a ready program is reported once"
    assert gone(pid)
    assert is_free("127.0.0.1", port)
    assert "GET / HTTP" in (tmp_path / "logs" / "web.log").read_text()


def test_a_program_that_dies_is_named_with_the_end_of_its_log(program, tmp_path):
    with Supervisor(tmp_path / "logs") as supervisor:
        other = supervisor.start(program("other", SLEEP))
        supervisor.start(program("broken", "print('the disk is full'); raise SystemExit(3)"))
        with pytest.raises(ProcessError, match=r"(?s)broken ended with exit code 3.*disk is full"):
            supervisor.watch()
    assert gone(other)


def test_a_program_that_never_answers_is_named(program, tmp_path):
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(program("mute", SLEEP, ready=lambda: False))
        with pytest.raises(ProcessError, match=r"mute did not answer within 1 s"):
            supervisor.wait_until_ready(1)


def test_what_ignores_sigterm_is_killed_with_its_family_when_patience_ends(program, tmp_path):
    """BentoML waits for its requests for a day, and its workers leave the process group."""
    stubborn = f"""
        import pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], start_new_session=True)
        pathlib.Path("worker.pid").write_text(str(worker.pid))
        time.sleep(600)
    """
    worker_pid = tmp_path / "worker.pid"
    supervisor = Supervisor(tmp_path / "logs", patience=1.0)
    with supervisor:
        pid = supervisor.start(program("stubborn", stubborn))
        wait_for(lambda: worker_pid.exists() and worker_pid.read_text())
        begun = time.monotonic()
    assert 1.0 <= time.monotonic() - begun < 5.0
    assert gone(pid)
    wait_for(lambda: gone(int(worker_pid.read_text())))


def test_a_worker_left_by_its_parent_is_stopped_too(program, tmp_path):
    careless = f"""
        import pathlib, subprocess, sys, time
        worker = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], start_new_session=True)
        pathlib.Path("worker.pid").write_text(str(worker.pid))
        time.sleep(600)
    """
    worker_pid = tmp_path / "worker.pid"
    with Supervisor(tmp_path / "logs", patience=20) as supervisor:
        supervisor.start(program("careless", careless))
        wait_for(lambda: worker_pid.exists() and worker_pid.read_text())
        begun = time.monotonic()
    assert time.monotonic() - begun < 5.0, "an orphan is told at once, not killed at the end"
    wait_for(lambda: gone(int(worker_pid.read_text())))


def test_what_keeps_its_parent_waiting_may_end_its_work_before_it_is_killed(program, tmp_path):
    """A Dagster run that is only killed stays "started" for good; told, it ends as failed."""
    worker = """
        import pathlib, signal, sys, time
        def end(*_):
            pathlib.Path("ended").write_text("as failed")
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        pathlib.Path("working").write_text("yes")
        time.sleep(600)
    """
    (tmp_path / "worker.py").write_text(textwrap.dedent(worker))
    waiting_for_it = """
        import signal, subprocess, sys
        signal.signal(signal.SIGTERM, lambda *_: None)
        subprocess.run([sys.executable, "worker.py"])
    """
    with Supervisor(tmp_path / "logs", patience=4) as supervisor:
        supervisor.start(program("server", waiting_for_it))
        wait_for((tmp_path / "working").exists)
        begun = time.monotonic()
    assert 2.0 <= time.monotonic() - begun < 4.0
    assert (tmp_path / "ended").read_text() == "as failed"


SUPERVISING = """
    import os, sys
    from pathlib import Path
    from loan_platform.local.processes import Interrupted, Program, Supervisor, only_one

    child = '''
    import os, pathlib, signal, time
    told = [signal.getsignal(number).name for number in (signal.SIGTERM,)]
    interrupt = "default" if signal.getsignal(signal.SIGINT) is signal.default_int_handler else "?"
    pathlib.Path("child").write_text(f"{os.getpid()} {told[0]} {interrupt}")
    time.sleep(600)
    '''
    import textwrap
    folder = Path(sys.argv[1])
    program = Program("child", (sys.executable, "-c", textwrap.dedent(child)), os.environ, folder,
                      lambda: (folder / "child").exists())
    with only_one(folder / "lock") as lock:
        with Supervisor(folder / "logs", keep_open=(lock,)) as keeper:
            keeper.start(program)
            try:
                keeper.watch()
            except Interrupted:
                print("asked to stop", flush=True)
"""


def ignore_interrupts() -> None:
    """As a shell does for `command &` in a script; Dagster copies SIGINT's action onto SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@pytest.fixture
def supervising(tmp_path):
    """A process that supervises one child, started where SIGINT and SIGTERM are ignored."""
    keeper = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SUPERVISING), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_interrupts,
    )
    said = tmp_path / "child"
    wait_for(lambda: said.exists() and said.read_text())
    yield keeper, said.read_text().split()
    keeper.kill()
    keeper.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_stops_all_even_when_started_with_signals_ignored(supervising, number):
    keeper, (pid, terminate, interrupt) = supervising
    assert (terminate, interrupt) == ("SIG_DFL", "default"), "the child does not inherit 'ignored'"
    keeper.send_signal(number)
    output, _ = keeper.communicate(timeout=10)
    assert keeper.returncode == 0
    assert "asked to stop" in output
    assert gone(int(pid))


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
def test_a_killed_supervisor_leaves_nothing_behind(supervising, tmp_path):
    keeper, (pid, _, _) = supervising
    with pytest.raises(ProcessError, match=rf"runs already .*process {keeper.pid}"):
        only_one(tmp_path / "lock").__enter__()
    keeper.kill()
    wait_for(lambda: gone(int(pid)))
    wait_for(lambda: holder(tmp_path / "lock") is None)
    with only_one(tmp_path / "lock"):
        assert holder(tmp_path / "lock") == os.getpid()


def test_the_lock_lasts_as_long_as_a_child_does(program, tmp_path):
    lock = tmp_path / "lock"
    supervisor = Supervisor(tmp_path / "logs", patience=1)
    with supervisor:
        with only_one(lock) as descriptor:
            supervisor._keep_open = (descriptor,)
            supervisor.start(program("daemon", SLEEP))
        assert holder(lock) == os.getpid(), "a leftover daemon keeps a second one off"
    assert holder(lock) is None


def test_the_log_before_is_kept(program, tmp_path):
    for word in ("first", "second"):
        with Supervisor(tmp_path / "logs") as supervisor:
            supervisor.start(program("talker", f"print('{word}')"))
            with pytest.raises(ProcessError):
                supervisor.watch()
    assert (tmp_path / "logs" / "talker.log").read_text() == "second\n"
    assert (tmp_path / "logs" / "talker.previous.log").read_text() == "first\n"
