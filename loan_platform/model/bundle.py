"""A trained model with all that deciding needs, as files that cannot run code.

A bundle is a folder: one file a scorer (`scorer-0.lightgbm`, ...), `bundle.json` (contract,
policy, calibrator, training record, golden rows) and `manifest.json` (SHA-256 of the others).
Nothing is pickled. Loading checks the hashes and then tests itself: the golden rows keep their
probabilities and the reference application its features. So a damaged file, or a library or a
contract read otherwise here than where the model was trained, is found before it decides.

Here: predicting, saving, loading. Not here: fitting (`training`), versions (`registry`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from loan_platform.contract import Contract
from loan_platform.contract.request import Value
from loan_platform.engine.files import write_bytes, write_text
from loan_platform.model.calibrator import Calibrator
from loan_platform.model.policy import Policy
from loan_platform.model.scorers import Scorer, ScorerError, read
from loan_platform.model.scorers.blend import Blend

FORMAT = 2
BODY, MANIFEST = "bundle.json", "manifest.json"
# Two machines may round exp() differently in the last digit; anything above this is a fault.
TOLERANCE = 1e-9
MEND = "get the bundle from the registry again, or train again"


class BundleError(ValueError):
    """A bundle cannot be trusted or read: says what, where, and how to mend it."""


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
    parameters: dict[str, float | int | str] = Field(description="What the tracker is told of it")
    ingredients: list[dict[str, Any]] = Field(
        [], description="Of the recipe: family, parameters, size, weight"
    )
    contract_hash: str
    data_hash: str = Field(description="12 hex digits over the rows used, with outcomes")
    environment: dict[str, str] = Field(description="Versions of what computes a probability")
    simulated: bool
    seed: int
    out_of_time: dict[str, float] = Field({}, description="Metrics on the newest months alone")
    notes: list[str] = Field([], description="What a reader of its figures has to know")


class _Golden(BaseModel):
    """Rows put together from single values of many applicants, and the probability of each.

    `inputs`: what the contract's features made of the reference application.
    """

    matrix: list[list[float | None]]
    probability: list[float]
    inputs: list[float | None]


class _Part(BaseModel):
    """One scorer and its weight in the blend; a lone one has weight 1."""

    kind: str = Field(pattern=r"^[a-z]+$")
    weight: float = Field(gt=0)


class _Body(BaseModel):
    format: int
    contract: Contract
    policy: Policy
    calibrator: Calibrator
    record: TrainingRecord
    scorers: list[_Part] = Field(min_length=1)
    golden: _Golden
    reference: dict[str, Value]


@dataclass(frozen=True)
class Bundle:
    """A model that can decide: scorer and calibrator, with contract, policy and record.

    `golden` holds a few matrix rows, shape (k, len(contract.model_inputs)), no one of them an
    applicant's; loading must give them the probabilities they had when the bundle was saved.
    `reference` is a usual approved application, a value for each of `contract.request_columns`;
    empty where nobody needs reasons.
    """

    contract: Contract
    policy: Policy
    calibrator: Calibrator
    record: TrainingRecord
    scorer: Scorer
    golden: np.ndarray
    reference: dict[str, Value]

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Log-odds of default before calibration, shape (n,); the matrix as in `probability`."""
        wanted = len(self.contract.model_inputs)
        if matrix.ndim != 2 or matrix.shape[1] != wanted:
            raise ValueError(
                f"the matrix has shape {matrix.shape}, but the model of {self.contract.name} "
                f"needs (n, {wanted}); make it with matrix_sql of the bundle's own contract"
            )
        if len(matrix) == 0:
            return np.empty(0)
        return self.scorer.margin(matrix, threads)

    def probability(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Calibrated probability of default of each row, shape (n,).

        `matrix` is float64 of shape (n, len(contract.model_inputs)), NaN where missing, as
        `contract.sql.matrix_sql` gives it. One thread is fastest for the few rows of a request;
        the answer does not depend on `threads`, nor on which rows are asked for together.
        """
        return self.calibrator.probability(self.margin(matrix, threads))

    def save(self, folder: Path) -> None:
        """Write the bundle's files into `folder`, the manifest last."""
        golden = _Golden(
            matrix=[_gaps_as_none(row) for row in self.golden],
            probability=self.probability(self.golden).tolist(),
            inputs=_gaps_as_none(self._inputs_of_reference()),
        )
        blend = self.scorer if isinstance(self.scorer, Blend) else Blend((self.scorer,), (1.0,))
        body = _Body(
            format=FORMAT,
            contract=self.contract,
            policy=self.policy,
            calibrator=self.calibrator,
            record=self.record,
            scorers=[
                _Part(kind=scorer.kind, weight=weight)
                for scorer, weight in zip(blend.scorers, blend.weights, strict=True)
            ],
            golden=golden,
            reference=self.reference,
        )
        contents = {
            _scorer_file(number, scorer.kind): scorer.dump()
            for number, scorer in enumerate(blend.scorers)
        }
        contents[BODY] = body.model_dump_json(indent=1).encode()
        for name, content in contents.items():
            write_bytes(content, folder / name)
        hashes = {name: _sha256(content) for name, content in contents.items()}
        write_text(json.dumps(hashes, indent=1), folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and prove a bundle.

        Raises:
            BundleError: a file is missing or altered, is of another format, holds a type that is
                not trusted, or its features or its model do not give what they gave when saved.
        """
        manifest = _manifest(folder)
        body = _body(folder, manifest)
        bundle = cls(
            contract=body.contract,
            policy=body.policy,
            calibrator=body.calibrator,
            record=body.record,
            scorer=_scorer(folder, manifest, body),
            golden=np.array(body.golden.matrix, dtype=np.float64),
            reference=body.reference,
        )
        bundle._test_itself(body.golden, folder)
        return bundle

    def _inputs_of_reference(self) -> np.ndarray:
        from loan_platform.engine.prepared import PreparedFeatures

        if not self.reference:
            return np.empty(0)
        matrix, _ = PreparedFeatures(self.contract).evaluate([self.reference])
        return np.asarray(matrix[0])

    def _test_itself(self, recorded: _Golden, folder: Path) -> None:
        """Features and scorer give here what they gave when it was saved, whatever the versions."""
        import duckdb

        found = self.probability(self.golden)
        if not _same(found, recorded.probability):
            raise BundleError(
                f"{folder}: the model gives its golden rows other probabilities than when it was "
                f"saved; {self._how_to_mend()}"
            )
        try:
            same = _same(self._inputs_of_reference(), recorded.inputs)
        except duckdb.Error:
            same = False
        if not same:
            raise BundleError(
                f"{folder}: the contract's features come out otherwise than when it was saved, for "
                f"the same application; {self._how_to_mend()}"
            )

    def _how_to_mend(self) -> str:
        here = environment(self.scorer)
        other = [
            f"{name} {was} (here {here.get(name, 'not installed')})"
            for name, was in sorted(self.record.environment.items())
            if here.get(name) != was
        ]
        if not other:
            return f"all versions are those it was trained with, so {MEND}"
        return f"use the versions it was trained with, {', '.join(other)}, or train again"


def _gaps_as_none(row: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row]


def _same(found: np.ndarray, recorded: list[Any]) -> bool:
    then = np.array(recorded, dtype=np.float64)
    return found.shape == then.shape and np.allclose(
        found, then, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
    )


def bundle_hash(folder: Path) -> str:
    """12 hex digits over a saved bundle's manifest, and so over all its files.

    Raises:
        BundleError: there is no manifest.
    """
    return _sha256(_read(folder / MANIFEST))[:12]


def environment(scorer: Scorer) -> dict[str, str]:
    """Versions of what computes a probability with it, as a training record keeps them."""
    import platform

    packages = ("loan-platform", "duckdb", "numpy", *scorer.libraries)
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _scorer_file(number: int, kind: str) -> str:
    return f"scorer-{number}.{kind}"


def _scorer(folder: Path, manifest: dict[str, Any], body: _Body) -> Scorer:
    inputs = len(body.contract.model_inputs)
    scorers = []
    for number, part in enumerate(body.scorers):
        file = folder / _scorer_file(number, part.kind)
        try:
            scorers.append(read(part.kind, _verified(file, manifest), inputs))
        except ScorerError as error:
            raise BundleError(f"{file}: {error}; {MEND}") from None
    if len(scorers) == 1:
        return scorers[0]
    return Blend(tuple(scorers), tuple(part.weight for part in body.scorers))


def _body(folder: Path, manifest: dict[str, Any]) -> _Body:
    file = folder / BODY
    try:
        document = json.loads(_verified(file, manifest))
        if document.get("format") != FORMAT:
            raise BundleError(
                f"{file}: format {document.get('format')}, but this version of loan_platform "
                f"reads format {FORMAT}; train again, or use the version that wrote it"
            )
        return _Body.model_validate(document)
    except (ValidationError, json.JSONDecodeError) as error:
        raise BundleError(
            f"{file}: not readable by this version of loan_platform; train again "
            f"({str(error).splitlines()[0]})"
        ) from None


def _manifest(folder: Path) -> dict[str, Any]:
    content = _read(folder / MANIFEST)
    try:
        manifest = json.loads(content)
    except ValueError:
        raise BundleError(f"{folder / MANIFEST}: not JSON; {MEND}") from None
    if not isinstance(manifest, dict):
        raise BundleError(f"{folder / MANIFEST}: no list of files; {MEND}")
    return manifest


def _verified(file: Path, manifest: dict[str, Any]) -> bytes:
    """The content of a file, if it has the hash that the manifest promises."""
    content = _read(file)
    if _sha256(content) != manifest.get(file.name):
        raise BundleError(
            f"{file}: not the file that was saved (its SHA-256 is not the one in {MANIFEST}); "
            f"{MEND}"
        )
    return content


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); {MEND}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
