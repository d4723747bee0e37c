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

# Nothing calls home. Dagster itself reads its switch from dagster.yaml, its uploader from here.
TELEMETRY_OFF = {
    "BENTOML_DO_NOT_TRACK": "true",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare(home: Home) -> None:
    """Write the instance's `dagster.yaml` below the home folder, where it differs."""
    settings = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    text = "# Written by loan_platform; change dagster.yaml at the project's root instead.\n"
    text += yaml.safe_dump(instance_settings(settings, home), sort_keys=False)
    path = home.dagster / "dagster.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)


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
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # MLflow's LLM features: a job queue of four more processes that nobody here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if data := os.environ.get("LOAN_DATA_DIR"):
        # Processes work in the home folder; a relative path is meant from here.
        settings["LOAN_DATA_DIR"] = str(Path(data).expanduser().absolute())
    return settings
