"""Starts the platform: Dagster (code server, webserver, daemon), MLflow, a service a portfolio.

Here: which processes there are, their commands, ports and links. Not here: how a process is kept
(`processes`).

Dagster's three processes are started one by one, as on a server, and not by `dagster dev`: one code
server is shared either way, but this spares the parent process, each has a log of its own, and the
containers of docker-compose.yml run the very same commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console

from loan_platform.contract import read_contract
from loan_platform.contract.portfolios import contract_files
from loan_platform.engine.home import PROJECT_ROOT, Home
from loan_platform.local.instance import environment, prepare
from loan_platform.local.processes import (
    Interrupted,
    ProcessError,
    Program,
    Supervisor,
    answers,
    is_free,
    listens,
    local_client,
    only_one,
)

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 (only where --host asks for it: in a container)
LOCK = "up.lock"
START_TIMEOUT_SECONDS = 180.0
SERVICE = "service-"
"""A service's program is named after its portfolio: `service-credit_risk`."""

FROM_SOURCE = ("--working-dir", str(PROJECT_ROOT), "bento.service:LoanService")

STAGES = (("code", "mlflow"), ("webserver",))
"""Each stage waits for the one before; all others come last.

The first webserver on a new home makes Dagster's SQLite files, a service's first look those of
MLflow; two processes making the same file at once fail on each other's tables.
"""

_DAEMON_HEALTH = "{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }"


@dataclass(frozen=True)
class Ports:
    """Where each process listens; services take `service` and the ports after it."""

    dagster: int = 3000
    mlflow: int = 5000
    service: int = 3001
    code: int = 4000


@dataclass(frozen=True)
class Place:
    """Where processes listen, and where they find the code server."""

    host: str
    code_host: str
    ports: Ports

    def url(self, port: int) -> str:
        host = LOOPBACK if self.host == EVERYWHERE else self.host
        return f"http://{host}:{port}"


def up(home: Home, *, host: str, asked: Mapping[str, int | None], say: Console) -> None:
    """Start everything, print the links, and keep it running until Ctrl-C or SIGTERM.

    `asked`: port by field of `Ports`, None where the next free one from the default will do.

    Raises:
        ProcessError: a port is taken, a process died or did not answer.
    """
    with only_one(home.root / LOCK) as lock:
        ports = choose_ports(host, asked, services=len(contract_files()), say=say)
        code_host = LOOPBACK if host == EVERYWHERE else host
        prepare(home)
        waiting = programs(home, Place(host, code_host, ports))
        with Supervisor(home.root / "logs", keep_open=(lock,)) as supervisor:
            try:
                _start(supervisor, waiting, say)
                if is_server(home.tracking_uri):
                    elsewhere = httpx.URL(home.tracking_uri).copy_with(userinfo=b"")
                    say.print(f"[bold]mlflow[/bold] runs elsewhere: {elsewhere}")
                _say_who_cannot_decide(waiting, say)
                say.print(f"Everything runs; logs are in {home.root / 'logs'}. Ctrl-C stops it.")
                supervisor.watch()
            except Interrupted:
                say.print("Stopping ...")
    say.print("Stopped.")


def _start(supervisor: Supervisor, waiting: dict[str, Program], say: Console) -> None:
    last = tuple(name for name in waiting if not any(name in stage for stage in STAGES))
    for stage in (*STAGES, last):
        names = [name for name in stage if name in waiting]
        for name in names:
            supervisor.start(waiting[name])
        with say.status(f"starting {', '.join(names)} ..."):
            for program, seconds in supervisor.waiting_until_ready(START_TIMEOUT_SECONDS):
                link = program.link or ""
                say.print(f"[bold]{program.name}[/bold] ready after {seconds:.0f} s {link}")


def _say_who_cannot_decide(running: dict[str, Program], say: Console) -> None:
    for name, program in running.items():
        if name.startswith(SERVICE) and not answers(f"{program.link}/health"):
            say.print(
                f"{name} has no champion yet: materialize its assets in Dagster, "
                "or see `loan-platform demo`"
            )


def only(home: Home, name: str, *, host: str, asked: Mapping[str, int | None]) -> None:
    """Become exactly one of the processes, in the foreground; for containers. Does not return.

    Webserver and daemon look for the code server at `LOAN_PLATFORM_CODE_HOST` (this machine).

    Raises:
        ProcessError: there is no such process.
    """
    ports = Ports(**{port: number for port, number in asked.items() if number is not None})
    code_host = os.environ.get("LOAN_PLATFORM_CODE_HOST") or LOOPBACK
    found = programs(home, Place(host, code_host, ports))
    if name not in found:
        raise ProcessError(f"there is no process {name!r} here; there are {', '.join(found)}")
    prepare(home)
    found[name].become()


def choose_ports(
    host: str, asked: Mapping[str, int | None], *, services: int, say: Console
) -> Ports:
    """The ports asked for, and the next free ones from the defaults for the rest.

    Raises:
        ProcessError: a port that was asked for is taken.
    """
    chosen: dict[str, int] = {}
    used: set[int] = set()
    for name, default in asdict(Ports()).items():
        width = services if name == "service" else 1
        wanted = asked.get(name)
        first: int = wanted or default
        while taken := [
            p for p in range(first, first + width) if p in used or not is_free(host, p)
        ]:
            if wanted:
                raise ProcessError(
                    f"port {taken[0]} is taken; give --{name}-port another, or leave it out and "
                    "the next free port is chosen"
                )
            first = taken[-1] + 1
        if not wanted and first != default:
            say.print(f"port {default} is taken, so {name} listens on {first}")
        chosen[name] = first
        used.update(range(first, first + width))
    return Ports(**chosen)


def programs(home: Home, place: Place, serve: tuple[str, ...] = FROM_SOURCE) -> dict[str, Program]:
    """Every process of the platform by name. `serve`: the service from source, or a Bento's tag.

    Raises:
        ContractError: a portfolio's contract is not valid.
    """
    ports = place.ports
    workspace = PROJECT_ROOT / "deploy" / "workspace.yaml"
    webserver = place.url(ports.dagster)
    shared = {
        "LOAN_PLATFORM_UI_URL": webserver,
        **environment(home),
        "LOAN_PLATFORM_CODE_HOST": place.code_host,
        "LOAN_PLATFORM_CODE_PORT": str(ports.code),
    }
    found: dict[str, Program] = {}

    def add(
        name: str,
        *command: str | int | Path,
        ready: Callable[[], bool],
        link: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        found[name] = Program(
            name=name,
            command=(sys.executable, "-m", *map(str, command)),
            environment={**shared, **(settings or {})},
            folder=home.root,
            ready=ready,
            link=link,
        )

    # fmt: off
    add(
        "code", "dagster", "code-server", "start",
        "--host", place.host, "--port", ports.code,
        "--module-name", "loan_platform.definitions", "--attribute", "defs",
        "--working-directory", PROJECT_ROOT, "--location-name", "loan_platform",
        ready=partial(listens, place.code_host, ports.code),
    )
    add(
        "webserver", "dagster_webserver",
        "--host", place.host, "--port", ports.dagster, "--workspace", workspace,
        ready=partial(answers, f"{webserver}/server_info"),
        link=webserver,
    )
    add(
        "daemon", "dagster._daemon", "run", "--workspace", workspace,
        ready=partial(_daemon_is_healthy, webserver),
    )
    if not is_server(home.tracking_uri):
        mlflow = place.url(ports.mlflow)
        add(
            "mlflow", "mlflow", "server",
            "--host", place.host, "--port", ports.mlflow, "--workers", 1,
            "--backend-store-uri", home.tracking_uri,
            "--artifacts-destination", home.mlflow_artifacts.as_uri(),
            ready=partial(answers, f"{mlflow}/health"),
            link=mlflow,
        )
    for port, file in enumerate(contract_files(), start=ports.service):
        portfolio = read_contract(file).name
        service = place.url(port)
        add(
            SERVICE + portfolio, "bentoml", "serve",
            "--host", place.host, "--port", port,
            *serve,
            ready=partial(answers, f"{service}/livez"),
            link=service,
            settings={"LOAN_PORTFOLIO": portfolio},
        )
    # fmt: on
    return found


def is_server(tracking_uri: str) -> bool:
    """Whether MLflow runs elsewhere, so that it is neither started nor opened as a database."""
    return tracking_uri.startswith(("http://", "https://"))


def _daemon_is_healthy(webserver: str) -> bool:
    try:
        asked = {"query": _DAEMON_HEALTH}
        answer = local_client().post(f"{webserver}/graphql", json=asked, timeout=5.0).json()
    except (httpx.HTTPError, ValueError):
        return False
    statuses = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(status["healthy"] for status in statuses if status["required"])
