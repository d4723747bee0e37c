"""A new book needs a YAML, never Python: one of another shape, from its file to its champion.

One test for the whole road, in the order in which people walk it: each step stands on the one
before, and a training takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from loan_platform.components.checks_history import failed_checks
from loan_platform.components.training import TRAINED_BY
from loan_platform.engine.home import Home
from loan_platform.registry.ledger import Ledger
from loan_platform.registry.models import Registry
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import bound, latest, months_of, run

NAME = "home_loans"
SPAN = (home_loans.MONTHS[0], home_loans.MONTHS[-1])
NO_DRIFT = dg.AssetCheckKey(dg.AssetKey([NAME, "drift_report"]), "no_drift")
BOOK = ("raw_loans", "cleaned_features", "feature_counts")


@contextmanager
def project(data: Path, home: Home) -> Iterator[dg.Definitions]:
    """A project with nothing but the YAML of one portfolio."""
    with create_defs_folder_sandbox() as sandbox:
        file = sandbox.defs_folder_path / "portfolios" / NAME / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(home_loans.DEFS_YAML)
        home_loans.write_csv(data / "home_loans.csv", home_loans.rows())
        with sandbox.build_all_defs() as portfolio:
            yield bound(portfolio, home)


@pytest.mark.slow
def test_a_copied_yaml_is_a_portfolio(
    tmp_path: Path, home_with_store: Home, monkeypatch: pytest.MonkeyPatch
):
    home = home_with_store
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    quiet = {"telemetry": {"enabled": False}}
    with project(tmp_path, home) as defs, dg.DagsterInstance.ephemeral(settings=quiet) as held:
        keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
        assert f"{NAME}/trained_model" in keys
        assert {key.split("/")[0] for key in keys} == {NAME}

        run(defs, held, NAME, "decisions", months=SPAN)
        run(defs, held, NAME, "outcomes", months=SPAN)
        run(defs, held, NAME, "feature_bins")
        run(defs, held, NAME, *BOOK, months=SPAN)
        for asset in ("decisions", "outcomes", *BOOK):
            assert months_of(held, NAME, asset) == set(home_loans.MONTHS)
        rows = [pq.read_metadata(f).num_rows for f in home.partitions(NAME, "raw_loans").values()]
        assert sum(rows) == 3000

        run(defs, held, NAME, "trained_model")
        model = latest(held, NAME, "trained_model")
        assert model["model_version"] == "1"
        assert model["simulated"] is False
        # What is known on 1 September: what was applied for by mid-July (45 days to mature).
        assert model["as_of"] == "2024-09-01T00:00:00+00:00"
        assert model["trained_through"] == "2024-07"
        begun, named = Ledger(home, NAME).entries()
        assert (named.event, named.alias, named.to_version) == ("named", "challenger", "1")
        assert (named.by, named.reason) == (TRAINED_BY, "trained through 2024-07")
        assert begun.facts["mlflow_run_id"] == Registry(home, NAME).run_id("1")
        assert begun.facts["metrics"]["auc"] == model["auc"]

        run(defs, held, NAME, "champion")
        champion = latest(held, NAME, "champion")
        assert (champion["decision"], champion["champion_version"]) == ("promoted", "1")
        assert champion["champion_before"] == "none"
        run(defs, held, NAME, "champion")
        again = latest(held, NAME, "champion")
        assert again["decision"] == "the challenger is the champion"

        run(defs, held, NAME, "baseline_stats")
        baseline = latest(held, NAME, "baseline_stats")
        assert baseline["champion_version"] == "1"
        assert baseline["months"] == model["partitions"]
        assert "debt-ratio" in baseline["profile"]

        run(defs, held, NAME, "drift_report", months=SPAN)
        assert months_of(held, NAME, "drift_report") == set(home_loans.MONTHS)
        report = home.partition(NAME, "drift_report", "2024-03").with_suffix(".json")
        assert json.loads(report.read_text())["rows"] == rows[2]
        assert failed_checks(held, NO_DRIFT, since=0) == []

        # A month whose applicants owe three times as much: the check fails and names it.
        moved = [
            {**row, "debt-ratio": f"{min(float(row['debt-ratio']) * 3, 5):.4f}"}
            if row["applied_at"].startswith("2024-08")
            else row
            for row in home_loans.rows()
        ]
        home_loans.write_csv(tmp_path / "home_loans.csv", moved)
        # One run over months that are open and the report of those that are over.
        run(defs, held, NAME, *BOOK, "drift_report", months=("2024-07", "2024-08"))
        (failed,) = failed_checks(held, NO_DRIFT, since=0)
        assert failed.partitions == ("2024-08",)
        assert "debt-ratio" in str(failed.description)
        assert "a challenger is trained by itself" in str(failed.mend)

        # A month that cannot be judged hides no verdict on the others.
        home.partition(NAME, "feature_counts", "2024-06").unlink()
        told = failure_of(run(defs, held, NAME, "drift_report", months=SPAN, check=False))
        assert told.startswith("1 of the run's months failed")
        assert "2024-06: not counted in the present bins" in told
        assert [one.partitions for one in failed_checks(held, NO_DRIFT, since=0)] == [
            ("2024-08",),
            ("2024-08",),
        ]
        run(defs, held, NAME, "feature_counts", months=("2024-06", "2024-06"))

        # Other bins: the baseline counted in the old ones is not compared with the new counts.
        job = defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            instance=held,
            asset_selection=[dg.AssetKey([NAME, "feature_bins"])],
            run_config={"ops": {f"{NAME}_feature_bins": {"config": {"refit": True}}}},
        )
        assert "materialize home_loans/baseline_stats again" in failure_of(
            run(defs, held, NAME, "drift_report", months=SPAN, check=False)
        )
        assert "Materialize home_loans/feature_counts for these months" in failure_of(
            run(defs, held, NAME, "baseline_stats", check=False)
        )
        run(defs, held, NAME, "feature_counts", months=SPAN)
        run(defs, held, NAME, "baseline_stats")
        run(defs, held, NAME, "drift_report", months=SPAN)

        # Another champion: the months are not compared with what the one before learnt from.
        run(defs, held, NAME, "trained_model")
        Registry(home, NAME).promote("2")
        assert (
            "baseline is what version 1 learnt from, but the champion is version 2; "
            "materialize home_loans/baseline_stats again"
        ) in failure_of(run(defs, held, NAME, "drift_report", months=SPAN, check=False))
        run(defs, held, NAME, "baseline_stats")
        run(defs, held, NAME, "drift_report", months=SPAN)

        run(defs, held, NAME, "loan_service")
        bento = latest(held, NAME, "loan_service")
        assert bento["champion_version"] == "2"
        assert Path(bento["path"]).is_relative_to(home.bentoml)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None, failure.step_failure_data.error
    return str(told.description)
