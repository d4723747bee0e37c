"""The service in this process, and as a real `bentoml serve` beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bento.app import create_app
from bento.batching import Batcher
from bento.champion import Champion, Champions
from bento.outcomes import OutcomeDesk
from loan_platform.contract import Contract
from loan_platform.contract.request import Value
from loan_platform.decisions import DecisionLog
from loan_platform.engine.home import Home
from loan_platform_tests.service.bundles import bundle


@dataclass
class Desk:
    """The app with its champions and log, and an HTTP client that reaches it without a socket."""

    champions: Champions
    home: Home
    portal: BlockingPortal
    client: httpx.AsyncClient

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            return await self.client.request(method, path, **kwargs)

        return self.portal.call(ask)

    def predict(self, body: object) -> httpx.Response:
        return self.request("POST", "/predict", json=body)

    def predict_together(self, rows: list[dict[str, Value]]) -> list[httpx.Response]:
        """Send all at the same moment."""

        async def ask() -> list[httpx.Response]:
            waiting: list[Coroutine[Any, Any, httpx.Response]] = [
                self.client.post("/predict", json=row) for row in rows
            ]
            return await asyncio.gather(*waiting)

        return self.portal.call(ask)


@pytest.fixture
def open_desk(home: Home) -> Iterator[Callable[..., Desk]]:
    """Opens a desk over a state folder; closes it when the test ends."""
    with start_blocking_portal() as portal:
        opened: list[tuple[Batcher, OutcomeDesk, httpx.AsyncClient]] = []

        def open_one(champion: Champion | None = None, at: Home = home) -> Desk:
            champions = Champions("credit_risk", None, follows=False)
            champions.current = champion
            batcher = Batcher(DecisionLog(at, "credit_risk", worker=1))
            outcomes = OutcomeDesk(at, "credit_risk")
            transport = httpx.ASGITransport(create_app(champions, batcher, outcomes))
            client = httpx.AsyncClient(transport=transport, base_url="http://desk", timeout=30)
            opened.append((batcher, outcomes, client))

            async def start() -> None:
                batcher.start()

            portal.call(start)
            return Desk(champions, at, portal, client)

        yield open_one
        for batcher, outcomes, client in opened:
            portal.call(batcher.stop)
            portal.call(outcomes.stop)
            portal.call(client.aclose)


@pytest.fixture(scope="session")
def champion(credit_risk: Contract) -> Champion:
    return Champion.of("1", bundle(credit_risk), "credit_risk")


@pytest.fixture
def desk(open_desk: Callable[..., Desk], champion: Champion) -> Desk:
    return open_desk(champion)
