"""Outcomes sent to several workers of a real server at once, on either database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from loan_platform.decisions import Outcome, read_outcome_history, record_outcomes
from loan_platform.engine.home import Home
from loan_platform_tests.service.server import serving

pytestmark = pytest.mark.slow

CLIENTS = 8
REQUESTS = 5  # of each client
ROWS = 20  # of each request


def outcomes(client: int, request: int) -> list[dict[str, object]]:
    """Half of them only this client sends, half of them every client does."""
    known = {"known_at": "2025-06-30", "source": "lender"}
    mine = [f"c{client}-{request}-{n}" for n in range(ROWS // 2)]
    every = [f"all-{request}-{n}" for n in range(ROWS // 2)]
    told = [{"application_id": one, "outcome": len(one) % 2, **known} for one in [*mine, *every]]
    return told if client % 2 else told[::-1]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_none_is_lost_doubled_or_refused_because_others_write(
    home: Home, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    """SQLite takes one writer at a time: who waits must not be told 'database is locked'."""
    settings: dict[str, str] = {}
    if database == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("new_database")
        settings["LOAN_PLATFORM_DECISIONS_URL"] = new_database()
        home = Home(home.root, home.tracking_uri, decisions_url=next(iter(settings.values())))
    log = tmp_path / "server.log"
    with serving(
        "bento.service:LoanService",
        log,
        ready=503,
        LOAN_PORTFOLIO="credit_risk",
        LOAN_PLATFORM_HOME=home.root,
        LOAN_SERVICE_WORKERS="3",
        **settings,
    ) as server:

        def press(client: int) -> list[httpx.Response]:
            with httpx.Client(base_url=server.url, timeout=60) as http:
                return [
                    http.post("/outcomes", json=outcomes(client, number))
                    for number in range(REQUESTS)
                ]

        with ThreadPoolExecutor(CLIENTS + 1) as clients:
            pressing = [clients.submit(press, client) for client in range(CLIENTS)]
            # A report is taken in meanwhile, by a process of its own kind.
            beside = [Outcome.model_validate(one) for one in outcomes(CLIENTS, 0)]
            recorded = record_outcomes(home, "credit_risk", beside)
            answers = [answer for one in pressing for answer in one.result()]
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers][:3]
    recorded += sum(answer.json()["recorded"] for answer in answers)
    told = {
        str(one["application_id"])
        for client in range(CLIENTS)
        for number in range(REQUESTS)
        for one in outcomes(client, number)
    } | {one.application_id for one in beside}
    history = read_outcome_history(home, "credit_risk")
    assert history.num_rows == recorded == len(told)
    assert set(history["application_id"].to_pylist()) == told
    assert "Traceback" not in log.read_text()
