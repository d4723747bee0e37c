"""A trained model with all that deciding needs, as files that cannot run code.

A bundle is a folder: `booster.txt` (LightGBM's own text), `bundle.json` (contract, policy,
calibrator, training record, golden rows) and `manifest.json` (SHA-256 of the other two). Nothing
is pickled. Loading checks the hashes and then replays the golden rows, so a damaged file, or a
library that computes otherwise here than where the model was trained, is found before it decides.

Here: predicting, saving, loading. Not here: fitting (`training`), versions (`registry`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from loan_platform.contract import Contract
from loan_platform.engine.files import write_text
from loan_platform.model.policy import Policy

if TYPE_CHECKING:
    from lightgbm import Booster

FORMAT = 1
BOOSTER, BODY, MANIFEST = "booster.txt", "bundle.json", "manifest.json"
# Two machines may round exp() differently in the last digit; anything above this is a fault.
GOLDEN_TOLERANCE = 1e-9
MEND = "get the bundle from the registry again, or train again"


class BundleError(ValueError):
    """A bundle cannot be trusted or read: says what, where, and how to mend it."""


class Calibrator(BaseModel):
    """Platt's sigmoid on the booster's margin: 1 / (1 + exp(-(slope * margin + intercept))).

    `slope` is above 0, so calibration never changes how applications rank. (J. Platt,
    "Probabilistic outputs for support vector machines", 1999.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: float = Field(gt=0)
    intercept: float

    def probability(self, margin: np.ndarray) -> np.ndarray:
        # exp overflows to infinity for a margin below -700, and 1 / infinity is the right answer.
        with np.errstate(over="ignore"):
            return 1.0 / (1.0 + np.exp(-(self.slope * margin + self.intercept)))


class TrainingRecord(BaseModel):
    """What a model was trained on, when, and how well it did on rows kept from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    portfolio: str
    trained_at: AwareDatetime
    as_of: AwareDatetime = Field(description="Only outcomes known by then were used")
    trained_through: str = Field(description="Newest of `partitions`, YYYY-MM")
    partitions: list[str] = Field(description="Months of which at least half was used")
    rows: dict[str, int] = Field(description="Rows of each part: fit, calibrate, threshold, judge")
    metrics: dict[str, float] = Field(description="On the judge part, see training.evaluate")
    parameters: dict[str, float | int | str] = Field(description="LightGBM's, with the tree count")
    contract_hash: str
    data_hash: str = Field(description="12 hex digits over the rows used, with outcomes")
    environment: dict[str, str] = Field(description="Versions of what computes a probability")
    simulated: bool
    seed: int


class _Golden(BaseModel):
    """Rows put together from single values of many applicants, and the probability of each."""

    matrix: list[list[float | None]]
    probability: list[float]


class _Body(BaseModel):
    format: int
    contract: Contract
    policy: Policy
    calibrator: Calibrator
    record: TrainingRecord
    golden: _Golden


@dataclass(frozen=True)
class Bundle:
    """A model that can decide: booster and calibrator, with contract, policy and record.

    `golden` holds a few matrix rows, shape (k, len(contract.model_inputs)), no one of them an
    applicant's; loading must give them the probabilities they had when the bundle was saved.
    """

    contract: Contract
    policy: Policy
    calibrator: Calibrator
    record: TrainingRecord
    booster_text: str
    golden: np.ndarray

    @cached_property
    def booster(self) -> Booster:
        import lightgbm

        return lightgbm.Booster(model_str=self.booster_text)

    def probability(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Calibrated probability of default of each row, shape (n,).

        `matrix` is float64 of shape (n, len(contract.model_inputs)), NaN where missing, as
        `contract.sql.matrix_sql` gives it. One thread is fastest for the few rows of a request;
        the answer does not depend on `threads`, nor on which rows are asked for together.
        """
        wanted = len(self.contract.model_inputs)
        if matrix.ndim != 2 or matrix.shape[1] != wanted:
            raise ValueError(
                f"the matrix has shape {matrix.shape}, but the model of {self.contract.name} "
                f"needs (n, {wanted}); make it with matrix_sql of the bundle's own contract"
            )
        if len(matrix) == 0:
            return np.empty(0)
        margin = self.booster.predict(matrix, raw_score=True, num_threads=threads)
        return self.calibrator.probability(np.asarray(margin))

    def save(self, folder: Path) -> None:
        """Write the bundle's three files into `folder`, the manifest last."""
        golden = _Golden(
            matrix=[[None if np.isnan(v) else float(v) for v in row] for row in self.golden],
            probability=self.probability(self.golden).tolist(),
        )
        body = _Body(
            format=FORMAT,
            contract=self.contract,
            policy=self.policy,
            calibrator=self.calibrator,
            record=self.record,
            golden=golden,
        )
        texts = {BOOSTER: self.booster_text, BODY: body.model_dump_json(indent=1)}
        for name, text in texts.items():
            write_text(text, folder / name)
        hashes = {name: _sha256(text.encode()) for name, text in texts.items()}
        write_text(json.dumps(hashes, indent=1), folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and prove a bundle.

        Raises:
            BundleError: a file is missing or altered, is of another format, or the model does
                not give the golden rows their recorded probabilities.
        """
        texts = _verified(folder)
        try:
            document = json.loads(texts[BODY])
            if document.get("format") != FORMAT:
                raise BundleError(
                    f"{folder / BODY}: format {document.get('format')}, but this version of "
                    f"loan_platform reads format {FORMAT}; train again, or use the version that "
                    "wrote it"
                )
            body = _Body.model_validate(document)
        except (ValidationError, json.JSONDecodeError) as error:
            raise BundleError(
                f"{folder / BODY}: not readable by this version of loan_platform; train again "
                f"({str(error).splitlines()[0]})"
            ) from None
        bundle = cls(
            contract=body.contract,
            policy=body.policy,
            calibrator=body.calibrator,
            record=body.record,
            booster_text=texts[BOOSTER],
            golden=np.array(body.golden.matrix, dtype=np.float64),
        )
        bundle._replay(np.array(body.golden.probability), folder)
        return bundle

    def _replay(self, recorded: np.ndarray, folder: Path) -> None:
        found = self.probability(self.golden)
        apart = float(np.max(np.abs(found - recorded))) if found.shape == recorded.shape else np.inf
        if not apart <= GOLDEN_TOLERANCE:
            was = ", ".join(f"{name} {v}" for name, v in sorted(self.record.environment.items()))
            raise BundleError(
                f"{folder}: the model gives its golden rows other probabilities than when it was "
                f"saved (largest difference {apart:.3g}); use the versions it was trained with "
                f"({was}), or train again"
            )


def bundle_hash(folder: Path) -> str:
    """12 hex digits over a saved bundle's manifest, and so over all its files.

    Raises:
        BundleError: there is no manifest.
    """
    return _sha256(_read(folder / MANIFEST))[:12]


def environment() -> dict[str, str]:
    """Versions of what computes a probability, as a training record keeps them."""
    import platform
    from importlib.metadata import version

    packages = ("loan-platform", "lightgbm", "numpy", "duckdb")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _verified(folder: Path) -> dict[str, str]:
    """Texts of the bundle's files, each with the hash the manifest promises."""
    try:
        manifest: dict[str, Any] = json.loads(_read(folder / MANIFEST))
    except json.JSONDecodeError:
        raise BundleError(f"{folder / MANIFEST}: not JSON; {MEND}") from None
    texts = {}
    for name in (BOOSTER, BODY):
        content = _read(folder / name)
        if _sha256(content) != manifest.get(name):
            raise BundleError(
                f"{folder / name}: not the file that was saved (its SHA-256 is not the one in "
                f"{MANIFEST}); {MEND}"
            )
        texts[name] = content.decode()
    return texts


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); {MEND}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
