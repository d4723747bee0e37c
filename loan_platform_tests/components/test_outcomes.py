"""Outcomes that arrive later: from a report in the contract to the rows a model may learn from."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from loan_platform.decisions import read_outcome_history
from loan_platform.decisions.outcomes import history_path
from loan_platform.engine.home import Home
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, latest, run

NAME = "home_loans"
SPAN = ("2024-02", "2024-03")


def test_a_report_reaches_the_book_s_rows_once_and_says_what_it_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    rows = [row for row in home_loans.rows(60) if row["applied_at"][:7] in SPAN]
    first, second, *_ = rows
    first["outcome"], second["outcome"] = "open", "paid"
    home_loans.write_csv(tmp_path / "home_loans.csv", rows)
    report = tmp_path / "collected.csv"
    report.write_text(
        "application_id,outcome,known_at,source\n"
        f"{first['application_id']},paid,2024-08-01,court\n"
        f"{second['application_id']},defaulted,2024-08-01,\n"
        f"{second['application_id']},defaulted,2024-09-01,model_v2\n"
    )
    outcome = home_loans.contract().outcome.model_dump() | {"reports": {"path": "collected.csv"}}
    defs = definitions(home_loans.contract(outcome=outcome), home)

    def everything() -> dict[Path, bytes]:
        run(defs, instance, NAME, "decisions", months=SPAN)
        run(defs, instance, NAME, "outcomes", months=SPAN)
        run(defs, instance, NAME, "raw_loans", months=SPAN)
        return {path: path.read_bytes() for path in home.portfolio(NAME).rglob("*.parquet")}

    written = everything()
    told = latest(instance, NAME, "outcomes")
    assert {name: told[f"report_{name}"] for name in ("rows", "recorded", "refused")} == {
        "rows": 3,
        "recorded": 2,
        "refused": 1,
    }
    assert "a model, but an outcome is what was observed | 1" in told["report_reasons"]
    refused = pq.read_table(told["report_refused_file"]).to_pylist()
    assert [(row["_row"], row["_rule"], row["source"]) for row in refused] == [
        (3, "source", "model_v2")
    ]
    found = {
        row["application_id"]: (row["outcome"], row["outcome_source"])
        for path in home.partitions(NAME, "raw_loans").values()
        for row in pq.read_table(path).to_pylist()
    }
    assert found[first["application_id"]] == (0, "court")
    assert found[second["application_id"]] == (1, "lender")
    assert {source for _, source in found.values()} == {"court", "lender", "book"}
    # Once a run, whatever its months; and again is harmless.
    assert read_outcome_history(home, NAME).num_rows == 2
    assert everything() == written
    assert latest(instance, NAME, "outcomes")["report_already_known"] == 2

    report.unlink()
    failed = run(defs, instance, NAME, "outcomes", months=SPAN, check=False)
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    assert "collected.csv" in str(error.to_string())
    assert history_path(home, NAME).read_bytes() == written[history_path(home, NAME)]
