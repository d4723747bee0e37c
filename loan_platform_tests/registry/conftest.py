"""A trained model of the small made-up book, and its months."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loan_platform.engine.home import Home
from loan_platform.registry.models import Registry
from loan_platform.training.train import Trained, train
from loan_platform_tests import home_loans
from loan_platform_tests.training.conftest import AS_OF
from loan_platform_tests.training.conftest import months as months


@pytest.fixture(scope="session")
def trained(months: dict[str, Path]) -> Trained:
    return train(home_loans.contract(), months, AS_OF)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite file as a first use makes it, which takes seconds; copied for each test."""
    folder = tmp_path_factory.mktemp("store")
    file = folder / "mlflow.db"
    assert Registry(Home(folder, f"sqlite:///{file}"), "none").version_of("champion") is None
    return file


@pytest.fixture
def registry(
    home: Home, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    # MLflow falls back to the working directory where something is forgotten.
    monkeypatch.chdir(tmp_path)
    place = Path(home.tracking_uri.removeprefix("sqlite:///"))
    place.parent.mkdir(parents=True)
    shutil.copy(empty_store, place)
    return Registry(home, "home_loans")
