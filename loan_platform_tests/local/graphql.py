"""The few questions the tests put to a running Dagster webserver, as a person's browser would."""

from __future__ import annotations

import time
from typing import Any

import httpx

LAUNCH = """
mutation ($execution: ExecutionParams!) {
  launchRun(executionParams: $execution) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


def ask(webserver: str, query: str, **variables: Any) -> Any:
    answer = httpx.post(
        f"{webserver}/graphql",
        json={"query": query, "variables": variables},
        timeout=30,
        trust_env=False,
    ).json()
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


def materialize(webserver: str, *assets: str, months: tuple[str, str], seconds: float) -> str:
    """Launch one run of a portfolio's assets, wait for its end, and give its status."""
    tags = [
        {"key": "dagster/asset_partition_range_start", "value": months[0]},
        {"key": "dagster/asset_partition_range_end", "value": months[1]},
    ]
    execution = {
        "selector": {
            "repositoryLocationName": "loan_platform",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        },
        "mode": "default",
        "runConfigData": {},
        "executionMetadata": {"tags": tags},
    }
    launched = ask(webserver, LAUNCH, execution=execution)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]
    deadline = time.monotonic() + seconds
    while (status := ask(webserver, STATUS, run=run)["runOrError"]["status"]) not in (
        "SUCCESS",
        "FAILURE",
        "CANCELED",
    ):
        assert time.monotonic() < deadline, f"still {status}"
        time.sleep(0.5)
    return str(status)
