"""A message says what happened, where, what to do, and links the run."""

from __future__ import annotations

import pytest

from loan_platform.alerts.message import failed_check, failed_run, overdue_asset


def drift_alert(run_id: str = "run-1", mend: str | None = None):
    return failed_check(
        asset=["credit_risk", "drift_report"],
        check="no_drift",
        partitions=["2025-04", "2025-05"],
        description="person_income moved: PSI 0.31",
        mend=mend,
        warning=False,
        run_id=run_id,
        failed_at=1_700_000_000.25,
    )


def test_a_failed_check_says_what_where_what_to_do_and_links_the_run():
    alert = drift_alert()
    assert alert.title == "credit_risk: check no_drift failed on drift_report"
    assert alert.severity == "failure"
    assert alert.body.splitlines() == [
        "What: person_income moved: PSI 0.31",
        "Where: credit_risk/drift_report, partition 2025-04, 2025-05",
        "Do: read the check's figures at the link; once the cause is mended, materialize "
        "credit_risk/drift_report again for 2025-04, 2025-05",
        "See: http://127.0.0.1:3000/runs/run-1",
        "Key: check:credit_risk/drift_report:no_drift:run-1",
    ]


def test_a_check_that_knows_what_to_do_is_quoted():
    told = drift_alert(mend="read in the drift report what moved").body.splitlines()
    assert "Do: read in the drift report what moved" in told


def test_the_link_follows_the_configured_user_interface(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOAN_PLATFORM_UI_URL", "https://loans.example/dagster/")
    assert drift_alert().link == "https://loans.example/dagster/runs/run-1"


def test_an_evaluation_outside_a_run_links_the_asset_and_is_told_apart_by_its_time():
    alert = drift_alert(run_id="")
    assert alert.link.endswith("/assets/credit_risk/drift_report")
    assert alert.key == "check:credit_risk/drift_report:no_drift:1700000000.250"


def test_a_failed_run_names_its_assets_and_counts_the_tail_of_a_long_list():
    assets = [["credit_risk", f"asset_{i}"] for i in range(9)]
    alert = failed_run(
        run_id="run-2",
        job="__ASSET_JOB",
        assets=assets,
        partitions="2024-01 to 2024-06",
        reason="step credit_risk__raw_loans failed: SourceError",
        failed_at=1.0,
    )
    assert alert.title == "credit_risk: a run failed"
    assert "asset_5 and 3 more, partition 2024-01 to 2024-06" in alert.where
    assert alert.what == "step credit_risk__raw_loans failed: SourceError"
    assert alert.link.endswith("/runs/run-2")


def test_an_overdue_asset_is_a_warning_about_that_asset():
    alert = overdue_asset(asset=["credit_risk", "raw_loans"], failed_at=5.0)
    assert (alert.severity, alert.title) == ("warning", "credit_risk: raw_loans is overdue")
    assert alert.link.endswith("/assets/credit_risk/raw_loans")
