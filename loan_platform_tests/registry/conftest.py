"""A trained model of the small made-up book, and its months."""

from __future__ import annotations

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


@pytest.fixture
def registry(home_with_store: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    # MLflow falls back to the working directory where something is forgotten.
    monkeypatch.chdir(tmp_path)
    return Registry(home_with_store, "home_loans")
