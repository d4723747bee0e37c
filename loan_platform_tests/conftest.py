"""Fixtures every room's tests use: a state folder of their own, the real files, the contract.

Here: what isolates a test from this machine. Not here: servers (`postgres`), or the fixtures of
one room, which lie in that room's conftest.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loan_platform.contract import Contract, read_contract
from loan_platform.engine.home import Home
from loan_platform_tests.postgres import new_database as new_database

# Read before the `isolated` fixture clears it.
REAL_DATA = os.environ.get("LOAN_DATA_DIR")

# Whatever of these is set in the shell that runs the tests must not reach them.
FOREIGN = ("LOAN_", "MLFLOW_", "DAGSTER_", "BENTOML_", "BENTO_")

TELEMETRY_OFF = {
    "BENTOML_DO_NOT_TRACK": "true",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
os.environ.update(TELEMETRY_OFF)  # at import: some libraries read it once, when they are imported
# Two test processes share the cores: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

CREDIT_RISK = Path(__file__).parents[1] / "loan_platform/defs/portfolios/credit_risk/defs.yaml"


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's platform settings; no library calls home."""
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    for name, value in TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def home(isolated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty state folder, which is also what `Home.from_environment()` answers."""
    monkeypatch.setenv("LOAN_PLATFORM_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture
def real_data(isolated: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the real loan books; also set as `LOAN_DATA_DIR`."""
    if not REAL_DATA:
        pytest.skip("needs the real loan books: set LOAN_DATA_DIR to the folder that holds them")
    folder = Path(REAL_DATA).expanduser().absolute()
    if not folder.is_dir():
        pytest.fail(f"LOAN_DATA_DIR is {folder}, which is not a folder")
    monkeypatch.setenv("LOAN_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def credit_risk() -> Contract:
    return read_contract(CREDIT_RISK)
