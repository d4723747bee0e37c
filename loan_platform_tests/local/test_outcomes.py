"""`loan-platform outcomes`: what a person is told who hands in a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loan_platform.cli import app
from loan_platform.decisions import read_outcomes
from loan_platform.engine.home import Home


def told(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["outcomes", *arguments], env={"COLUMNS": "300"})
    return result.exit_code, " ".join(result.output.split())


def test_a_report_is_recorded_and_the_refused_rows_are_pointed_at(
    home: Home, tmp_path: Path
) -> None:
    report = tmp_path / "june.csv"
    report.write_text(
        "application_id,outcome,known_at\nA-1,1,2024-06-03\nA-2,0,2024-06-03\nPLANTED,7,2024-06-03\n"
    )
    status, said = told("credit_risk", str(report), "--source", "collections")
    assert status == 0
    assert "3 rows, 2 recorded, 0 known already, 1 refused" in said
    assert "1 refused: outcome: neither a good nor a bad outcome" in said
    assert "PLANTED" not in said
    assert "next: loan-platform materialize credit_risk" in said
    [kept] = home.portfolio("credit_risk").rglob("june-*.parquet")
    assert str(kept) in said
    assert set(read_outcomes(home, "credit_risk")["source"].to_pylist()) == {"collections"}
    status, said = told("credit_risk", str(report))
    assert "3 rows, 2 recorded" in said, "another observer says the same: another word"
    status, said = told("credit_risk", str(report))
    assert "0 recorded, 2 known already, 1 refused" in said


def test_what_cannot_be_done_is_said_with_the_mend(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "june.csv"
    report.write_text("application_id,outcome,known_at\nPLANTED,1,2024-06-03\n")
    status, said = told("cars", str(report))
    assert status == 1
    assert "there is no portfolio cars; the portfolios are" in said
    assert "credit_risk" in said
    monkeypatch.setenv("LOAN_PLATFORM_DECISIONS_URL", "postgresql+psycopg2://x:hush@127.0.0.1:9/n")
    status, said = told("credit_risk", str(report))
    assert status == 1
    assert "the outcomes cannot be written (OperationalError)" in said
    assert "hush" not in said
    assert "PLANTED" not in said
