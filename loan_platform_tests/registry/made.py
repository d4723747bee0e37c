"""Versions of a model in a real MLflow store, in milliseconds: a saved bundle under a new number.

Here: what the tests of moves, of the watch and of the commands promote. Not here: registering a
training (`test_models`).
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from loan_platform.contract import Contract
from loan_platform.model.bundle import bundle_hash
from loan_platform.registry.versions import BUNDLE_HASH_TAG, BUNDLE_IN_MODEL, Versions
from loan_platform_tests.service import bundles


@pytest.fixture(scope="session")
def saved(credit_risk: Contract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle, saved."""
    folder = tmp_path_factory.mktemp("saved") / "bundle"
    bundles.bundle(credit_risk, trees=2).save(folder)
    return folder


def add_version(registry: Versions, bundle: Path, *, challenger: bool = True) -> str:
    """Keep the bundle in the folder `bundle` as the newest version, the challenger."""
    with contextlib.suppress(MlflowException):  # it is there already
        registry.client.create_registered_model(registry.portfolio)
    made = len(registry.client.search_model_versions(f"name = '{registry.portfolio}'"))
    model = registry.home.mlflow_artifacts / registry.portfolio / f"model-{made + 1}"
    shutil.copytree(bundle, model / BUNDLE_IN_MODEL)
    version = registry.client.create_model_version(
        registry.portfolio, model.as_uri(), tags={BUNDLE_HASH_TAG: bundle_hash(bundle)}
    )
    if challenger:
        move_by_hand(registry, str(version.version), "challenger")
    return str(version.version)


def move_by_hand(registry: Versions, version: str, alias: str = "champion") -> None:
    """As a person does it on MLflow's page."""
    registry.client.set_registered_model_alias(registry.portfolio, alias, version)


def damage(registry: Versions, version: str) -> None:
    """Change a file of a version's bundle behind MLflow's back."""
    source = registry.client.get_model_version(registry.portfolio, version).source
    assert source is not None
    file = Path(source.removeprefix("file://")) / BUNDLE_IN_MODEL / "bundle.json"
    file.write_text(file.read_text().replace("portfolio", "partfolio", 1))
