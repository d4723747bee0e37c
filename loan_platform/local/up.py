"""Starts the platform: Dagster (code server, webserver, daemon), MLflow, a service a portfolio.

Here: which processes there are, their commands, ports and links. Not here: how a process is kept
(`processes`).

Dagster's three processes are started one by one, as on a server, and not by `dagster dev`: one code
server is shared either way, but this spares the parent process, each has a log of its own, and the
containers of docker-compose.yml run the very same commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import httpx
from rich.console import Console

from loan_platform.contract import read_contract
from loan_platform.engine.home import PROJECT_ROOT, Home
from loan_platform.local.instance import CODE_LOCATION, environment, prepare
from loan_platform.local.processes import (
    Interrupted,
    ProcessError,
    Program,
    Supervisor,
    answers,
    is_free,
    listens,
    only_one,
)

EVERYWHERE = "0.0.0.0"  # noqa: S104 (only where --host asks for it: in a container)
LOCK = "up.lock"
START_TIMEOUT_SECONDS = 180.0
SERVICE = "service-"
"""A service's program is named after its portfolio: `service-credit_risk`."""

FOUNDATION = ("code", "mlflow")
"""Started first: the others load the definitions from one and open the database of the other."""

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
        host = "127.0.0.1" if self.host == EVERYWHERE else self.host
        return f"http://{host}:{port}"


def up(home: Home, *, host: str, asked: Mapping[str, int | None], say: Console) -> None:
    """Start everything, print the links, and keep it running until Ctrl-C or SIGTERM.

    `asked`: port by field of `Ports`, None where the next free one from the default will do.

    Raises:
        ProcessError: a port is taken, a process died or did not answer.
    """
    with only_one(home.root / LOCK) as lock:
        ports = choose_ports(host, asked, services=len(portfolios()), say=say)
        code_host = "127.0.0.1" if host == EVERYWHERE else host
        prepare(home, code_host=code_host, code_port=ports.code)
        waiting = programs(home, Place(host, code_host, ports))
        with Supervisor(home.root / "logs", keep_open=(lock,)) as supervisor:
            try:
                _start(supervisor, waiting, say)
                if is_server(home.tracking_uri):
                    say.print(f"[bold]mlflow[/bold] runs elsewhere: {home.tracking_uri}")
                say.print(f"Everything runs; logs are in {home.root / 'logs'}. Ctrl-C stops it.")
                supervisor.watch()
            except Interrupted:
                say.print("Stopping ...")
    say.print("Stopped.")


def _start(supervisor: Supervisor, waiting: dict[str, Program], say: Console) -> None:
    first = [name for name in waiting if name in FOUNDATION]
    for stage in (first, [name for name in waiting if name not in FOUNDATION]):
        for name in stage:
            supervisor.start(waiting[name])
        with say.status(f"starting {', '.join(stage)} ..."):
            for program, seconds in supervisor.waiting_until_ready(START_TIMEOUT_SECONDS):
                link = program.link or ""
                say.print(f"[bold]{program.name}[/bold] ready after {seconds:.0f} s {link}")


def only(home: Home, name: str, *, host: str, asked: Mapping[str, int | None], code: str) -> None:
    """Become exactly one of the processes, in the foreground; for containers. Does not return.

    `code`: host where webserver and daemon find the code server.

    Raises:
        ProcessError: there is no such process.
    """
    ports = Ports(**{port: number for port, number in asked.items() if number is not None})
    prepare(home, code_host=code, code_port=ports.code)
    found = programs(home, Place(host, code, ports))
    if name not in found:
        raise ProcessError(f"there is no process {name!r} here; there are {', '.join(found)}")
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
    for entry in fields(Ports):
        width = services if entry.name == "service" else 1
        wanted = asked.get(entry.name)
        first = wanted or entry.default
        while taken := [
            p for p in range(first, first + width) if p in used or not is_free(host, p)
        ]:
            if wanted:
                raise ProcessError(
                    f"port {taken[0]} is taken; give --{entry.name}-port another, or leave it out "
                    "and the next free port is chosen"
                )
            first = taken[-1] + 1
        if not wanted and first != entry.default:
            say.print(f"port {entry.default} is taken, so {entry.name} listens on {first}")
        chosen[entry.name] = first
        used.update(range(first, first + width))
    return Ports(**chosen)


def portfolios() -> list[str]:
    """Names of the portfolios declared in `defs/portfolios`, in alphabetical order."""
    files = sorted((PROJECT_ROOT / "loan_platform/defs/portfolios").glob("*/defs.yaml"))
    return [read_contract(file).name for file in files]


def programs(home: Home, place: Place) -> dict[str, Program]:
    """Every process of the platform by name, in the order in which they need each other."""
    ports = place.ports
    workspace = str(home.dagster / "workspace.yaml")
    webserver = place.url(ports.dagster)
    found = {
        "code": _program(
            home,
            "code",
            ("dagster", "code-server", "start", "--host", place.host, "--port", str(ports.code)),
            ("--module-name", "loan_platform.definitions", "--attribute", "defs"),
            ("--working-directory", str(PROJECT_ROOT), "--location-name", CODE_LOCATION),
            ready=lambda: listens(place.code_host, ports.code),
        ),
        "webserver": _program(
            home,
            "webserver",
            ("dagster_webserver", "--host", place.host, "--port", str(ports.dagster)),
            ("--workspace", workspace),
            ready=lambda: answers(f"{webserver}/server_info"),
            link=webserver,
        ),
        "daemon": _program(
            home,
            "daemon",
            ("dagster._daemon", "run", "--workspace", workspace),
            ready=lambda: _daemon_is_healthy(webserver),
        ),
    }
    if not is_server(home.tracking_uri):
        found["mlflow"] = _mlflow(home, place)
    for port, portfolio in enumerate(portfolios(), start=ports.service):
        found[SERVICE + portfolio] = _service(home, place, portfolio, port)
    return found


def is_server(tracking_uri: str) -> bool:
    """Whether MLflow runs elsewhere, so that it is neither started nor opened as a database."""
    return tracking_uri.startswith(("http://", "https://"))


def _mlflow(home: Home, place: Place) -> Program:
    url = place.url(place.ports.mlflow)
    return _program(
        home,
        "mlflow",
        ("mlflow", "server", "--host", place.host, "--port", str(place.ports.mlflow)),
        ("--workers", "1", "--backend-store-uri", home.tracking_uri),
        ("--artifacts-destination", home.mlflow_artifacts.as_uri()),
        ready=lambda: answers(f"{url}/health"),
        link=url,
    )


def _service(home: Home, place: Place, portfolio: str, port: int) -> Program:
    url = place.url(port)
    return _program(
        home,
        SERVICE + portfolio,
        ("bentoml", "serve", "--host", place.host, "--port", str(port)),
        ("--working-dir", str(PROJECT_ROOT / "bento"), "service:LoanService"),
        ready=lambda: answers(f"{url}/livez"),
        link=url,
        settings={"LOAN_PORTFOLIO": portfolio},
    )


def _program(
    home: Home,
    name: str,
    *command: tuple[str, ...],
    ready: Callable[[], bool],
    link: str | None = None,
    settings: dict[str, str] | None = None,
) -> Program:
    words = [word for part in command for word in part]
    return Program(
        name=name,
        command=(sys.executable, "-m", *words),
        environment={**environment(home), **(settings or {})},
        folder=home.root,
        ready=ready,
        link=link,
    )


def _daemon_is_healthy(webserver: str) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            answer = client.post(f"{webserver}/graphql", json={"query": _DAEMON_HEALTH}).json()
    except (httpx.HTTPError, ValueError):
        return False
    statuses = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(status["healthy"] for status in statuses if status["required"])
