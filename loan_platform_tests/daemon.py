"""A real `dagster dev` for tests: webserver, daemon and code server, driven over GraphQL.

Here: starting it on a home folder of its own, talking to it, and stopping all of it. Not here:
any portfolio, or what a test expects of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import yaml

from loan_platform.engine.home import PROJECT_ROOT, Home
from loan_platform.local.instance import environment, prepare
from loan_platform_tests.receiver import free_port

LOCATION = "loans"
REPOSITORY = "__repository__"
START_SECONDS = 120.0
STOP_SECONDS = 30.0

T = TypeVar("T")

LAUNCH_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""

LAUNCH_RUN = """
mutation Run($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""

BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } }
  }
}"""

RUNS = """
query Runs($filter: RunsFilter) {
  runsOrError(filter: $filter) {
    ... on Runs { results { runId status tags { key value } assets { key { path } } } }
  }
}"""

PARTITIONS = """
query Partitions($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on TimePartitionStatuses { ranges { status startKey endKey } }
      }
      partitionKeys
    }
  }
}"""

SENSOR = """
query Sensor($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor {
      sensorState {
        id
        status
        ticks(limit: 20) { status skipReason error { message } }
      }
    }
  }
}"""

START_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename }
}"""

STOP_SENSOR = """
mutation Stop($id: String!) { stopSensor(id: $id) { __typename } }"""


class DagsterDev:
    """A running `dagster dev`. Assets are named by their path, `portfolio/asset`."""

    def __init__(self, url: str, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.log = log
        self.process = process
        self._client = httpx.Client(trust_env=False, timeout=60.0)

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of an answer.

        Raises:
            AssertionError: the answer has errors.
        """
        answer = self._client.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}
        ).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def launch_backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Ask for `partitions` of `assets`; the backfill's id."""
        params = {
            "assetSelection": [_path(asset) for asset in assets],
            "partitionNames": list(partitions),
        }
        answer = self.graphql(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def launch_run(self, assets: Sequence[str], partition: str | None = None) -> str:
        """Queue one run of `assets`; its id."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": REPOSITORY,
                "jobName": "__ASSET_JOB",
                "assetSelection": [_path(asset) for asset in assets],
            },
            "executionMetadata": {"tags": tags},
        }
        answer = self.graphql(LAUNCH_RUN, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def backfill_status(self, backfill_id: str) -> str:
        answer = self.graphql(BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        return str(answer["status"])

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs with all these tags (`__` in a name stands for `/`), newest first."""
        wanted = [{"key": name.replace("__", "/"), "value": value} for name, value in tags.items()]
        found = self.graphql(RUNS, filter={"tags": wanted})["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def run_status(self, run_id: str) -> str:
        found = self.graphql(RUNS, filter={"runIds": [run_id]})["runsOrError"]["results"]
        return str(found[0]["status"])

    def partitions(self, asset: str, status: str = "MATERIALIZED") -> list[str]:
        """Partition keys of an asset in this status (MATERIALIZED, FAILED, MATERIALIZING)."""
        node = self.graphql(PARTITIONS, key=_path(asset))["assetNodeOrError"]
        keys: list[str] = node["partitionKeys"]
        found: list[str] = []
        for span in node["assetPartitionStatuses"]["ranges"]:
            if span["status"] == status:
                found += keys[keys.index(span["startKey"]) : keys.index(span["endKey"]) + 1]
        return found

    def sensor(self, name: str) -> dict[str, Any]:
        """State of a sensor: id, status, and its latest ticks."""
        answer = self.graphql(SENSOR, selector=_selector(name))["sensorOrError"]
        state: dict[str, Any] = answer["sensorState"]
        return state

    def start_sensor(self, name: str) -> None:
        self.graphql(START_SENSOR, selector=_selector(name))

    def stop_sensor(self, name: str) -> None:
        self.graphql(STOP_SENSOR, id=self.sensor(name)["id"])

    def wait_for(self, what: str, condition: Callable[[], T], timeout: float) -> T:
        """Poll until `condition()` is truthy; its value.

        Raises:
            AssertionError: not within `timeout` seconds, or `dagster dev` ended; with its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(httpx.TransportError):
                if value := condition():
                    return value
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                problem = "dagster dev ended" if ended else f"not within {timeout:.0f} s"
                raise AssertionError(f"{what}: {problem}; the end of {self.log}:\n{self._tail()}")
            time.sleep(0.5)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


@contextlib.contextmanager
def dagster_dev(
    home: Home, location: Path, extra_environment: Mapping[str, str] | None = None
) -> Iterator[DagsterDev]:
    """Run `dagster dev` on `home` with the definitions in the Python file `location`.

    Its log is `dagster-dev.log` in the home folder. Starts in 10 to 40 s, stops in some seconds.
    """
    prepare(home)
    workspace = home.root / "workspace.yaml"
    entry = {
        "relative_path": str(location),
        "attribute": "defs",
        "location_name": LOCATION,
        "working_directory": str(PROJECT_ROOT),
    }
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": entry}]}))
    port = free_port()
    log = home.root / "dagster-dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "dev", "--workspace", str(workspace)),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env={**environment(home), **(extra_environment or {})},
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_default_signals,
        )
    dev = DagsterDev(f"http://127.0.0.1:{port}", log, process)
    try:
        dev.wait_for(
            "dagster dev answers and has loaded the location",
            lambda: _has_loaded(dev),
            START_SECONDS,
        )
        yield dev
    finally:
        _stop(process)


def _default_signals() -> None:
    """In the child: a background shell ignores SIGINT, and Dagster copies that to SIGTERM."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _has_loaded(dev: DagsterDev) -> bool:
    query = """{ workspaceOrError { ... on Workspace { locationEntries {
        loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
    (entry,) = dev.graphql(query)["workspaceOrError"]["locationEntries"]
    found = entry["locationOrLoadError"]
    assert found is None or found["__typename"] != "PythonError", found["message"]
    return bool(entry["loadStatus"] == "LOADED" and found)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the parent, which stops the others; SIGKILL by pid for what is left."""
    family = [process.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _path(asset: str) -> dict[str, list[str]]:
    return {"path": asset.split("/")}


def _selector(sensor: str) -> dict[str, str]:
    return {
        "repositoryLocationName": LOCATION,
        "repositoryName": REPOSITORY,
        "sensorName": sensor,
    }
