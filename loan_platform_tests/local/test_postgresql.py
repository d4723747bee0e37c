"""`loan-platform up` on PostgreSQL instead of SQLite: three URLs are all it takes.

The loop on PostgreSQL, from raw loans to a new champion, is in `test_demo`.
"""

from __future__ import annotations

import re

import httpx
import pytest
from sqlalchemy import create_engine, inspect

from loan_platform_tests.local.test_demo import URLS
from loan_platform_tests.local.test_up import port_options, running


def tables(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


@pytest.mark.slow
def test_everything_starts_on_postgresql_and_nothing_falls_back_to_sqlite(
    home, new_database, monkeypatch, tmp_path
):
    urls = {name: new_database() for name in URLS}
    for name, url in urls.items():
        monkeypatch.setenv(name, url)
    with running(tmp_path / "elsewhere", *port_options()) as up:
        lines = "".join(up.read_until("Everything runs"))
        (service,) = re.findall(r"service-credit_risk .*(http://\S+)", lines)
        health = httpx.get(f"{service}/health", timeout=30, trust_env=False)
        assert health.status_code == 503
    assert "runs" in tables(urls["LOAN_PLATFORM_DAGSTER_URL"])
    assert "model_versions" in tables(urls["MLFLOW_TRACKING_URI"])
    assert not list(home.root.rglob("*.db"))
