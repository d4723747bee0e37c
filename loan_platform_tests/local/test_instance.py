"""The instance's file as Dagster itself reads it, and the environment of every process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml

from loan_platform.engine.home import PROJECT_ROOT
from loan_platform.local.instance import environment, prepare

URL = "postgresql+psycopg2://someone:secret@db:5432/dagster"


def settings(home):
    return yaml.safe_load((home.dagster / "dagster.yaml").read_text())


def test_dagster_takes_the_file(home, monkeypatch):
    prepare(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 2


def test_storage_is_postgresql_where_a_url_is_set_and_the_password_stays_out(home):
    prepare(home)
    assert "storage" not in settings(home)
    prepare(replace(home, dagster_url=URL))
    assert settings(home)["storage"]["postgres"]["postgres_url"] == {
        "env": "LOAN_PLATFORM_DAGSTER_URL"
    }
    assert "secret" not in (home.dagster / "dagster.yaml").read_text()
    prepare(home)
    assert "storage" not in settings(home), "back on SQLite when the URL is gone"


def test_the_file_is_written_only_where_it_differs(home):
    prepare(home)
    before = (home.dagster / "dagster.yaml").stat()
    prepare(home)
    assert (home.dagster / "dagster.yaml").stat() == before


def test_the_environment_keeps_all_state_below_home_and_calls_nobody(home, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    monkeypatch.setenv("LOAN_DATA_DIR", "some/data")
    monkeypatch.setenv("KEPT", "as it is")
    found = environment(home)
    below = ("DAGSTER_HOME", "BENTOML_HOME", "MPLCONFIGDIR", "LOAN_PLATFORM_HOME")
    for name in below:
        assert Path(found[name]).is_relative_to(home.root), name
    assert str(home.root) in found["MLFLOW_TRACKING_URI"]
    assert found["KEPT"] == "as it is"
    assert found["LOAN_DATA_DIR"] == str(PROJECT_ROOT / "some/data"), "processes work elsewhere"


MLFLOW_IS_OFF = "from mlflow.telemetry.utils import is_telemetry_disabled as off; assert off()"
BENTOML_IS_OFF = (
    "from bentoml._internal.utils.analytics.usage_stats import do_not_track as off; assert off()"
)


@pytest.mark.parametrize("question", [MLFLOW_IS_OFF, BENTOML_IS_OFF])
def test_each_library_reads_its_telemetry_as_off(home, question):
    command = [sys.executable, "-c", question]
    subprocess.run(command, env=environment(home), check=True, timeout=60)
