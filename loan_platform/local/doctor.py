"""Says what keeps the platform from running on this machine, and what to do about it.

Here: checks that read and judge, and change nothing. Not here: repairing. URLs hold passwords: none
is ever part of a finding.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Literal

from loan_platform.alerts.delivery import VARIABLE as ALERT_VARIABLE
from loan_platform.alerts.delivery import receivers
from loan_platform.contract import Contract, ContractError, read_contract
from loan_platform.contract.portfolios import contract_files
from loan_platform.engine.home import PROJECT_ROOT, Home, data_directories
from loan_platform.local.processes import holder, is_free
from loan_platform.local.up import LOCK, Ports, is_server

Level = Literal["ok", "warning", "problem"]

GIB = 2**30
DISK_NEEDED_GIB = 1.0
DISK_WANTED_GIB = 5.0
CLOCK_SKEW_SECONDS = 5.0
SCHEME = "postgresql+psycopg2"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what was seen, and what to do where it is not ok."""

    subject: str
    level: Level
    seen: str
    mend: str = ""


def examine(home: Home, ports: Ports | None = None) -> list[Finding]:
    """All findings, in the order in which things go wrong on a new machine."""
    return [
        python(),
        *packages(PROJECT_ROOT / "requirements.lock"),
        *libraries(),
        *folder(home.root),
        *listening(ports or Ports(), running=holder(home.root / LOCK)),
        *contracts(contract_files()),
        *databases(home),
        alerts(),
        clock(home.root),
    ]


def python() -> Finding:
    seen = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", "ok", seen)
    return Finding("Python", "problem", seen, "use Python 3.11, 3.12 or 3.13")


def packages(lock: Path) -> Iterator[Finding]:
    """Installed packages against the lock file."""
    from packaging.requirements import Requirement

    if not lock.exists():
        yield Finding(
            "Packages", "warning", f"{lock} is not here", "run from a clone of the project"
        )
        return
    lines = lock.read_text(encoding="utf-8").splitlines()
    entries = [
        Requirement(line.removesuffix("\\")) for line in lines if line and line[0] not in " #-"
    ]
    wanted = [entry for entry in entries if entry.marker is None or entry.marker.evaluate()]
    wrong: list[str] = []
    for entry in wanted:
        try:
            found = metadata.version(entry.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{entry.name} is missing")
            continue
        if not entry.specifier.contains(found, prereleases=True):
            wrong.append(f"{entry.name} is {found}, not {str(entry.specifier).removeprefix('==')}")
    if not wrong:
        yield Finding("Packages", "ok", f"the {len(wanted)} of {lock.name}, in their versions")
        return
    shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    level: Level = "problem" if any("missing" in what for what in wrong) else "warning"
    yield Finding("Packages", level, shown, f"python -m pip install -r {lock.name}")


def libraries() -> Iterator[Finding]:
    """The one library that LightGBM takes from the system."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        mend = "apt-get install libgomp1, or your system's package of the same library"
        yield Finding("Libraries", "problem", "libgomp.so.1 is missing; LightGBM needs it", mend)
    else:
        yield Finding("Libraries", "ok", "libgomp.so.1")


def folder(root: Path) -> Iterator[Finding]:
    """Whether state can be written below the home folder, and how much of it."""
    standing = next(path for path in (root, *root.parents) if path.exists())
    change = "set LOAN_PLATFORM_HOME to a folder of your own"
    if not standing.is_dir():
        yield Finding("Home folder", "problem", f"{standing} is a file", change)
        return
    try:
        if standing == root:
            with tempfile.TemporaryFile(dir=root):
                pass
        elif not os.access(standing, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        seen = f"{standing} cannot be written: {error.strerror}"
        yield Finding("Home folder", "problem", seen, f"chown or chmod it, or {change}")
        return
    if standing == root and root.stat().st_mode & 0o077:
        seen = f"{root} holds applicants' data, and others on this machine may look into it"
        yield Finding("Home folder", "warning", seen, f"chmod 700 {root}")
    else:
        made = "" if standing == root else " (made when something starts)"
        yield Finding("Home folder", "ok", f"{root}{made}")
    free = shutil.disk_usage(standing).free / GIB
    seen = f"{free:.1f} GiB free"
    if free < DISK_NEEDED_GIB:
        yield Finding("Disk", "problem", seen, f"free {DISK_NEEDED_GIB:.0f} GiB, or {change}")
    elif free < DISK_WANTED_GIB:
        yield Finding("Disk", "warning", seen, "event logs and partitions grow; free some space")
    else:
        yield Finding("Disk", "ok", seen)


def listening(ports: Ports, *, running: int | None) -> Iterator[Finding]:
    """Whether the default ports are free; taken ones are fine while the platform itself runs."""
    if running is not None:
        yield Finding("Ports", "ok", f"the platform is running (process {running})")
        return
    numbers = {entry.name: getattr(ports, entry.name) for entry in fields(ports)}
    taken = {name: port for name, port in numbers.items() if not is_free("127.0.0.1", port)}
    for name, port in taken.items():
        yield Finding(
            "Ports",
            "warning",
            f"{port} ({name}) is taken by another program",
            f"`loan-platform up` takes the next free one; or choose with --{name}-port",
        )
    if not taken:
        listed = ", ".join(f"{port} ({name})" for name, port in numbers.items())
        yield Finding("Ports", "ok", f"free: {listed}")


def contracts(files: Iterable[Path]) -> Iterator[Finding]:
    """Whether each portfolio's contract is valid and its book is at hand."""
    folders = data_directories()
    for missing in (path for path in folders if not path.is_dir()):
        seen = f"LOAN_DATA_DIR is {missing}, which is not a folder"
        yield Finding("Loan books", "problem", seen, "set it to the folder that holds them")
    for file in files:
        try:
            contract = read_contract(file)
        except ContractError as error:
            yield Finding("Contract", "problem", str(error), "mend the contract at that line")
            continue
        yield _book(contract)


def _book(contract: Contract) -> Finding:
    """Whether the book is where the ingestion will look for it."""
    from loan_platform.ingest.source import SourceError, book_of, unset_variables

    subject = f"Portfolio {contract.name}"
    try:
        book = book_of(contract)
    except SourceError as error:
        return Finding(subject, "warning", "contract valid; its book is not at hand", str(error))
    if book is not None:
        return Finding(subject, "ok", f"contract valid; book {book.name}")
    if unset := unset_variables(contract.source):
        seen, mend = f"{', '.join(unset)} is not set", "set it to reach the database"
    else:
        seen, mend = (
            "LOAN_DATA_DIR is not set",
            f"set LOAN_DATA_DIR to the folder with {contract.source.name}",
        )
    return Finding(subject, "warning", f"contract valid; {seen}: a simulated book stands in", mend)


def databases(home: Home) -> Iterator[Finding]:
    """Whether each PostgreSQL URL has the scheme the platform needs, and a server answers there."""
    urls = {
        ("Dagster storage", "LOAN_PLATFORM_DAGSTER_URL"): home.dagster_url,
        ("Decision log", "LOAN_PLATFORM_DECISIONS_URL"): home.decisions_url,
        ("MLflow", "MLFLOW_TRACKING_URI"): home.tracking_uri,
    }
    for (subject, variable), url in urls.items():
        if url is None or url.startswith("sqlite:"):
            yield Finding(subject, "ok", "SQLite below the home folder")
        elif is_server(url):
            yield server(subject, variable, url)
        else:
            yield database(subject, variable, url)


def server(subject: str, variable: str, url: str) -> Finding:
    """Whether an MLflow server answers."""
    import httpx

    try:
        # MLflow's own client goes by the environment's proxies, so this does too.
        answer = httpx.get(url.rstrip("/") + "/health", timeout=5.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        seen = f"no MLflow server answers ({type(error).__name__})"
        return Finding(subject, "problem", seen, f"start it, or correct {variable}")
    if answer.is_error:
        seen = f"the MLflow server answers with HTTP {answer.status_code}"
        return Finding(subject, "problem", seen, "look into that server's log")
    return Finding(subject, "ok", "the MLflow server answers")


def database(subject: str, variable: str, url: str) -> Finding:
    """Whether a PostgreSQL database answers, and its clock agrees with this one."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    form = f"write {variable} as {SCHEME}://USER:PASSWORD@HOST:5432/DATABASE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return Finding(subject, "problem", f"{variable} is not a database URL", form)
    if parsed.drivername != SCHEME:
        seen = f"{variable} begins with {parsed.drivername}://, which selects another driver"
        return Finding(subject, "problem", seen, form)
    where = f"{parsed.host or 'local socket'}:{parsed.port or 5432}/{parsed.database}"
    engine = create_engine(parsed, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            there = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))
            skew = float(there.scalar_one()) - time.time()
    except SQLAlchemyError as error:
        # The driver's own words name host, user and database, never the password.
        cause = str(getattr(error, "orig", "")).strip().splitlines() or [type(error).__name__]
        mend = f"start the server, or correct host, user, password or database in {variable}"
        return Finding(subject, "problem", f"{where}: {cause[-1]}", mend)
    finally:
        engine.dispose()
    if abs(skew) > CLOCK_SKEW_SECONDS:
        seen = f"{where} answers, but its clock is {skew:+.0f} s from this one"
        return Finding(subject, "warning", seen, "set both by NTP; freshness goes by these clocks")
    return Finding(subject, "ok", f"{where} answers")


def alerts() -> Finding:
    """Whether Apprise understands every alert URL."""
    found, wrong = receivers()
    if wrong:
        return Finding("Alerts", "problem", "; ".join(wrong), "correct that entry, or remove it")
    if not found:
        return Finding(
            "Alerts",
            "warning",
            "nobody is told of failures",
            f"set {ALERT_VARIABLE} to Apprise URLs, for instance a Slack or mailto one",
        )
    return Finding("Alerts", "ok", f"told: {', '.join(receiver.name for receiver in found)}")


def clock(root: Path) -> Finding:
    """Whether the clock stands before something that has already happened."""
    now = time.time()
    witnesses = [PROJECT_ROOT / "pyproject.toml", root, *root.glob("*"), *root.glob("data/*/*/*")]
    newest = max((path.stat().st_mtime for path in witnesses if path.exists()), default=now)
    seen = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if newest - now > CLOCK_SKEW_SECONDS:
        ahead = f"{seen}, but there are files {newest - now:.0f} s younger"
        return Finding("Clock", "problem", ahead, "set the clock; months are dealt by it")
    return Finding("Clock", "ok", seen)


def worst(findings: Iterable[Finding]) -> Level:
    rank: Mapping[Level, int] = {"ok": 0, "warning": 1, "problem": 2}
    return max((finding.level for finding in findings), key=rank.__getitem__, default="ok")
