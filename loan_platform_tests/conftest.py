"""Fixtures every room's tests use: a state folder of their own, the real files, the contract.

Here: what isolates a test from this machine. Not here: servers (`postgres`), or the fixtures of
one room, which lie in that room's conftest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from loan_platform.contract import Contract, read_contract
from loan_platform.engine.home import Home
from loan_platform.registry.versions import Versions
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
# Some test processes share the cores: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Small databases wait for the disk at every commit, most of a test's time: in memory none does. No
# test cuts the power, and what a killed process has written stays written there, too.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (where, not a file's name)
MEMORY_NEEDED = 4 << 30


def scratch() -> Path | None:
    """A folder in memory for the whole run's files; None where there is one, or no room for it."""
    if "PYTEST_XDIST_WORKER" in os.environ or "TMPDIR" in os.environ or not IN_MEMORY.is_dir():
        return None
    if shutil.disk_usage(IN_MEMORY).free < MEMORY_NEEDED:
        return None
    folder = Path(tempfile.mkdtemp(prefix="loan_platform_tests_", dir=IN_MEMORY))
    folder.chmod(0o711)  # a root's PostgreSQL is another user's
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # asked for before
    return folder


SCRATCH = scratch()

# A worker that begins a long file last works alone while the other has nothing left to do.
LONG_FILES = (
    "local/test_demo.py",
    "portfolios/test_books.py",
    "portfolios/test_simulated_books.py",
    "daemon_tests/test_daemon.py",
    "engine/test_spark.py",
    "service/test_built.py",
    "registry/test_faults.py",
    "proposal/test_proposal.py",
    "service/test_following.py",
    "local/test_up.py",
    "components/test_second_portfolio.py",
)

CREDIT_RISK = Path(__file__).parents[1] / "loan_platform/defs/portfolios/credit_risk/defs.yaml"


def pytest_report_header() -> str | None:
    return f"files of this run: {SCRATCH}, kept where a test fails" if SCRATCH else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, the others as they lie."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What failed may be looked at afterwards."""
    if SCRATCH and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(SCRATCH, ignore_errors=True)


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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite file as a first use makes it, which takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    file = folder / "mlflow.db"
    assert Versions(Home(folder, f"sqlite:///{file}"), "none").version_of("champion") is None
    return file


@pytest.fixture
def home_with_store(home: Home, empty_store: Path) -> Home:
    """The state folder with nothing in it but an empty MLflow store."""
    place = Path(home.tracking_uri.removeprefix("sqlite:///"))
    place.parent.mkdir(parents=True)
    shutil.copy(empty_store, place)
    return home


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
