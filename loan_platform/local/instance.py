"""The Dagster instance below the home folder, and the environment of every process.

Here: files and variables. Not here: starting anything (`up`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loan_platform.engine.files import write_text
from loan_platform.engine.home import PROJECT_ROOT, Home

CODE_LOCATION = "loan_platform"

# Nothing calls home. Dagster itself reads its switch from dagster.yaml, its uploader from here.
TELEMETRY_OFF = {
    "BENTOML_DO_NOT_TRACK": "true",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare(home: Home, *, code_host: str = "127.0.0.1", code_port: int = 4000) -> None:
    """Write the instance's `dagster.yaml` and `workspace.yaml` where they differ.

    `workspace.yaml` names the code server that webserver and daemon share.
    """
    settings = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    _write_yaml(instance_settings(settings, home), home.dagster / "dagster.yaml")
    server = {"location_name": CODE_LOCATION, "host": code_host, "port": code_port}
    _write_yaml({"load_from": [{"grpc_server": server}]}, home.dagster / "workspace.yaml")


def instance_settings(settings: Mapping[str, Any], home: Home) -> dict[str, Any]:
    """The settings of the root `dagster.yaml`, with PostgreSQL as storage where home has a URL."""
    if home.dagster_url is None:
        return dict(settings)
    # By name, so that the password stays out of the file.
    return {
        **settings,
        "storage": {"postgres": {"postgres_url": {"env": "LOAN_PLATFORM_DAGSTER_URL"}}},
    }


def environment(home: Home) -> dict[str, str]:
    """The environment of every process of the platform: where state lies, and no telemetry."""
    settings = {
        **os.environ,
        **TELEMETRY_OFF,
        "LOAN_PLATFORM_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster),
        "MLFLOW_TRACKING_URI": home.tracking_uri,
        "BENTOML_HOME": str(home.bentoml),
        "MPLCONFIGDIR": str(home.root / "cache" / "matplotlib"),
        # MLflow's LLM features: a job queue of four more processes that nobody here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if data := os.environ.get("LOAN_DATA_DIR"):
        # Processes work in the home folder; a relative path is meant from here.
        settings["LOAN_DATA_DIR"] = str(Path(data).expanduser().absolute())
    return settings


def _write_yaml(content: Mapping[str, Any], path: Path) -> None:
    text = "# Written by loan_platform; change dagster.yaml at the project's root instead.\n"
    text += yaml.safe_dump(dict(content), sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)
