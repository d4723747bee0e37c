"""A service on PostgreSQL instead of SQLite: URLs are all it takes.

Dagster on PostgreSQL, from raw loans to a retrained champion, is in `daemon_tests`.
"""

from __future__ import annotations

import time

import httpx
import pytest

from loan_platform.contract.request import example
from loan_platform.decisions import read_decisions
from loan_platform.engine.home import Home
from loan_platform.registry import moves
from loan_platform.registry.ledger import Ledger
from loan_platform.registry.models import Registry
from loan_platform_tests.local.test_up import free_ports, running
from loan_platform_tests.registry.made import add_version
from loan_platform_tests.registry.made import saved as saved

DEADLINE_SECONDS = 90.0


@pytest.mark.slow
def test_a_service_follows_decides_and_logs_on_postgresql_and_nothing_falls_back_to_sqlite(
    home, credit_risk, new_database, saved, monkeypatch, tmp_path
):
    for name in ("LOAN_PLATFORM_DECISIONS_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, new_database())
    home = Home.from_environment()
    registry, ledger = Registry(home, credit_risk.name), Ledger(home, credit_risk.name)
    (port,) = free_ports(1)
    only = ("--only", f"service-{credit_risk.name}", "--service-port", str(port))
    with (
        running(tmp_path / "elsewhere", *only) as up,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        deadline = time.monotonic() + DEADLINE_SECONDS

        def health() -> httpx.Response | None:
            assert up.process.poll() is None, up.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
            try:
                return client.get("/health")
            except httpx.TransportError:
                return None

        while (found := health()) is None or found.status_code != 503:
            pass
        version = add_version(registry, saved)
        moves.promote(registry, ledger, version, by="Ann", despite="nothing else is there")
        while (found := health()) is None or found.status_code != 200:
            pass
        assert found.json()["model_version"] == version
        answer = client.post("/predict", json=example(credit_risk)).json()
        assert answer["model_version"] == version
    logged = read_decisions(home, credit_risk.name)
    assert logged["decision_id"].to_pylist() == [answer["decision_id"]]
    assert not list(home.root.rglob("*.db"))
