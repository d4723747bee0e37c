"""Reads the versions of a portfolio's model from MLflow: which one an alias names, and its bundle.

Everything goes through a client with explicit ids: MLflow's global run and tracking address are
never touched, so portfolios and threads do not meet.

Here: reading, which is all a service needs. Not here: writing versions and aliases (`models`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from loan_platform.engine.files import make_folder
from loan_platform.engine.home import Home
from loan_platform.model.bundle import Bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient

Alias = Literal["challenger", "champion"]
BUNDLE_IN_MODEL = "artifacts/bundle"
BUNDLE_HASH_TAG = "bundle_hash"


class RegistryError(RuntimeError):
    """The registry cannot do what was asked: says what, where, and how to mend it."""


class Version(NamedTuple):
    """One version of one registry: another registry may have the number, but not the bundle.

    `bundle_hash` is `model.bundle.bundle_hash` of its files; None where it was not registered by
    this platform.
    """

    number: str
    bundle_hash: str | None


@dataclass(frozen=True)
class Versions:
    """The versions of one portfolio in the MLflow store that `home` names."""

    home: Home
    portfolio: str

    @cached_property
    def client(self) -> MlflowClient:
        """An MLflow client for this store; the first one makes the store where there is none."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        if self.home.tracking_uri.startswith("sqlite:///"):
            file = Path(self.home.tracking_uri.removeprefix("sqlite:///"))
            make_folder(file.parent)
        return mlflow.MlflowClient(self.home.tracking_uri, self.home.tracking_uri)

    def named(self, alias: Alias) -> Version | None:
        """The version an alias points to, None where there is none yet. Cheap enough to poll."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version_by_alias(self.portfolio, alias)
        except MlflowException as error:
            # A missing alias is told apart from an outage by MLflow's wording only.
            absent = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
            if error.error_code in absent and "not found" in str(error):
                return None
            raise
        return Version(str(found.version), found.tags.get(BUNDLE_HASH_TAG))

    def version_of(self, alias: Alias) -> str | None:
        """The number of the version an alias points to, None where there is none yet."""
        found = self.named(alias)
        return found.number if found else None

    def load(self, version: str) -> Bundle:
        """The bundle of a version, proved as in `Bundle.load`."""
        with tempfile.TemporaryDirectory() as folder:
            return Bundle.load(self.download(version, Path(folder)))

    def download(self, version: str, to: Path) -> Path:
        """Copy a version's bundle into `to` and give the folder it lies in.

        Raises:
            RegistryError: there is no such version, or its files cannot be fetched.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        make_folder(to)
        uri = self.home.tracking_uri
        try:
            files = self.client.get_model_version_download_uri(self.portfolio, version)
            folder = download_artifacts(
                artifact_uri=f"{files}/{BUNDLE_IN_MODEL}", dst_path=str(to), tracking_uri=uri
            )
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"version {version} of {self.portfolio} cannot be fetched from {_shown(uri)} "
                f"({str(error).splitlines()[0]}); look at the version in the MLflow page, or "
                "train again"
            ) from error
        return Path(folder)

    def run_id(self, version: str) -> str:
        """The MLflow run that trained a version."""
        return str(self.client.get_model_version(self.portfolio, version).run_id)


def _shown(uri: str) -> str:
    """An address without the user and password it may carry."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
