"""The BentoML service: settings from the environment, and the app mounted in Bento's server.

    LOAN_PORTFOLIO         which portfolio (a Bento knows its own)
    LOAN_PLATFORM_HOME     where the decision log lies
    MLFLOW_TRACKING_URI    set: follow the registry's alias `champion`
    LOAN_PLATFORM_DECISIONS_URL  set: log decisions to PostgreSQL
    LOAN_SERVICE_WORKERS   processes that answer (1)

Bento's metrics, access log and tracing are off: they cost more than a decision does.
Not here: what a request gets (`app`, `batching`, `champion`).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml

from bento.app import create_app
from bento.batching import Batcher
from bento.champion import Champions, Packaged
from bento.outcomes import OutcomeDesk
from loan_platform.decisions.log import DecisionLog
from loan_platform.engine.home import Home

REQUEST_SECONDS = 20  # Bento keeps a timer that long for each request, and bounds shutdown by it


def _portfolio(packaged: Packaged | None) -> str:
    named = os.environ.get("LOAN_PORTFOLIO")
    if packaged and named and named != packaged.portfolio:
        raise ImportError(
            f"LOAN_PORTFOLIO is {named}, but this Bento decides about {packaged.portfolio}; "
            "unset it, or serve the other Bento"
        )
    portfolio = packaged.portfolio if packaged else named
    if not portfolio:
        # An ImportError is what Bento shows as a message instead of a traceback.
        raise ImportError("LOAN_PORTFOLIO is not set; say which portfolio to serve")
    return portfolio


def _home(packaged: Packaged | None) -> Home:
    if packaged and not os.environ.get("LOAN_PLATFORM_HOME"):
        # Beside a source checkout is no place here: a Bento's own folder is not for writing.
        store = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
        return Home.at(store / "loan_platform")
    return Home.from_environment()


packaged = Packaged.find()
portfolio = _portfolio(packaged)
champions = Champions(portfolio, packaged, follows=bool(os.environ.get("MLFLOW_TRACKING_URI")))
home = _home(packaged)
batcher = Batcher(DecisionLog(home, portfolio, bentoml.server_context.worker_index or 1))
outcomes = OutcomeDesk(home, portfolio)


@bentoml.service(
    name=portfolio,
    workers=int(os.environ.get("LOAN_SERVICE_WORKERS") or 1),
    traffic={"timeout": REQUEST_SECONDS},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
)
@bentoml.asgi_app(create_app(champions, batcher, outcomes), path="/")
class LoanService:
    """Decides about loan applications; each decision is durable before it is answered."""

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        await asyncio.to_thread(champions.start)
        batcher.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        champions.stop()
        await batcher.stop()
        await outcomes.stop()
