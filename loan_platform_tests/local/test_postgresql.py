"""The platform on PostgreSQL instead of SQLite: three URLs are all it takes."""

from __future__ import annotations

import re
import time

import httpx
import pytest
from sqlalchemy import create_engine, text

from loan_platform_tests.local.graphql import materialize
from loan_platform_tests.local.test_up import port_options, running

APPLICATION = {
    "person_age": 31,
    "person_income": 52000,
    "person_home_ownership": "RENT",
    "person_emp_length": 4,
    "loan_intent": "MEDICAL",
    "loan_amnt": 9000,
    "cb_person_default_on_file": "N",
    "cb_person_cred_hist_length": 6,
}


def count(url: str, query: str) -> int:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text(query)).scalar_one()
    finally:
        engine.dispose()


def decide(service: str, seconds: float) -> httpx.Response:
    """Ask for a decision, giving the service some time to follow the registry."""
    deadline = time.monotonic() + seconds
    while True:
        answer = httpx.post(f"{service}/predict", json=APPLICATION, timeout=30, trust_env=False)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


@pytest.mark.slow
def test_the_loop_from_raw_loans_to_a_logged_decision(home, new_database, monkeypatch, tmp_path):
    urls = {
        name: new_database()
        for name in (
            "LOAN_PLATFORM_DAGSTER_URL",
            "LOAN_PLATFORM_DECISIONS_URL",
            "MLFLOW_TRACKING_URI",
        )
    }
    for name, url in urls.items():
        monkeypatch.setenv(name, url)
    with running(tmp_path / "elsewhere", *port_options()) as up:
        lines = "".join(up.read_until("Everything runs"))
        webserver = re.search(r"webserver .*(http://\S+)", lines)[1]  # type: ignore[index]
        service = re.search(r"service-credit_risk .*(http://\S+)", lines)[1]  # type: ignore[index]
        assets = ("feature_bins", "raw_loans", "cleaned_features", "feature_counts")
        models = ("trained_model", "champion", "baseline_stats", "loan_service")
        status = materialize(
            webserver,
            *(f"credit_risk/{name}" for name in (*assets, *models)),
            months=("2024-01", "2024-04"),
            seconds=180,
        )
        assert status == "SUCCESS"
        answer = decide(service, seconds=30)
        assert answer.status_code == 200, answer.text
    materialized = (
        "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    )
    assert count(urls["LOAN_PLATFORM_DAGSTER_URL"], materialized) >= 3 * 4
    assert count(urls["MLFLOW_TRACKING_URI"], "SELECT count(*) FROM model_versions") == 1
    assert count(urls["LOAN_PLATFORM_DECISIONS_URL"], "SELECT count(*) FROM decisions") == 1
    assert not list(home.root.rglob("*.db")), "nothing falls back to SQLite"
