from __future__ import annotations

import json
import math
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle, BundleError, Calibrator, bundle_hash
from loan_platform_tests.service.bundles import bundle as small_bundle


@pytest.fixture
def saved(credit_risk: Contract, tmp_path: Path) -> Path:
    small_bundle(credit_risk, seed=3).save(tmp_path / "bundle")
    return tmp_path / "bundle"


def rows(contract: Contract, count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    matrix = random.gamma(1, 20, (count, len(contract.model_inputs)))
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def test_what_is_saved_is_what_is_loaded(credit_risk: Contract, saved: Path) -> None:
    original, loaded = small_bundle(credit_risk, seed=3), Bundle.load(saved)
    assert loaded.contract == credit_risk
    assert loaded.contract.contract_hash == loaded.record.contract_hash
    assert (loaded.policy, loaded.record) == (original.policy, original.record)
    matrix = rows(credit_risk, 500)
    np.testing.assert_array_equal(loaded.probability(matrix), original.probability(matrix))


def test_the_probability_is_platts_sigmoid_of_lightgbms_margin(
    credit_risk: Contract, saved: Path
) -> None:
    loaded = Bundle.load(saved)
    matrix = rows(credit_risk, 50)
    margin = lightgbm.Booster(model_file=str(saved / "booster.txt")).predict(matrix, raw_score=True)
    a, b = loaded.calibrator.slope, loaded.calibrator.intercept
    expected = [1 / (1 + math.exp(-(a * m + b))) for m in margin]
    np.testing.assert_allclose(loaded.probability(matrix), expected, atol=1e-15)


def test_a_row_gets_the_same_answer_alone_in_a_batch_and_on_more_threads(
    credit_risk: Contract, saved: Path
) -> None:
    loaded = Bundle.load(saved)
    matrix = rows(credit_risk, 300)
    together = loaded.probability(matrix)
    alone = np.array([loaded.probability(row[None, :])[0] for row in matrix])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(loaded.probability(matrix, threads=2), together)
    assert loaded.probability(matrix[:0]).shape == (0,)


def test_a_matrix_of_another_contract_is_refused(credit_risk: Contract, saved: Path) -> None:
    with pytest.raises(ValueError, match="make it with matrix_sql of the bundle's own contract"):
        Bundle.load(saved).probability(np.zeros((2, len(credit_risk.model_inputs) + 1)))


@pytest.mark.parametrize("name", ["booster.txt", "bundle.json"])
def test_a_changed_file_is_named(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: not the file that was saved"):
        Bundle.load(saved)


@pytest.mark.parametrize("name", ["booster.txt", "bundle.json", "manifest.json"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: cannot be read .*from the registry again"):
        Bundle.load(saved)


def test_a_manifest_that_is_no_json_is_named(saved: Path) -> None:
    (saved / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest.json: not JSON"):
        Bundle.load(saved)


def rewrite(folder: Path, change: dict[str, object]) -> None:
    """Change the body and make the manifest agree, as another release might have written it."""
    import hashlib

    body = json.loads((folder / "bundle.json").read_text()) | change
    (folder / "bundle.json").write_text(json.dumps(body))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["bundle.json"] = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_hash_is_of_every_file(credit_risk: Contract, saved: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    small_bundle(credit_risk, seed=3).save(again)
    small_bundle(credit_risk, seed=4).save(other)
    assert bundle_hash(saved) == bundle_hash(again)
    assert len({bundle_hash(saved), bundle_hash(other)}) == 2
    rewrite(again, {"policy": Bundle.load(other).policy.model_dump(mode="json")})
    assert bundle_hash(again) != bundle_hash(saved)
    with pytest.raises(BundleError, match=r"manifest.json: cannot be read"):
        bundle_hash(tmp_path)


def test_a_machine_that_computes_otherwise_is_found_by_the_golden_rows(saved: Path) -> None:
    rewrite(saved, {"calibrator": {"slope": 1.0300001, "intercept": 0.0}})
    with pytest.raises(BundleError, match=r"gives its golden rows other probabilities.*lightgbm"):
        Bundle.load(saved)


def test_another_format_and_an_unreadable_body_are_told_apart(saved: Path) -> None:
    rewrite(saved, {"format": 2})
    with pytest.raises(BundleError, match="format 2, but this version of loan_platform reads"):
        Bundle.load(saved)
    rewrite(saved, {"format": 1, "policy": {}})
    with pytest.raises(BundleError, match="not readable by this version"):
        Bundle.load(saved)


def test_nothing_in_a_bundle_can_run_code(saved: Path) -> None:
    assert {file.name for file in saved.iterdir()} == {
        "booster.txt",
        "bundle.json",
        "manifest.json",
    }
    for file in saved.iterdir():
        file.read_text(encoding="utf-8")  # text, so no pickle


def test_calibration_saturates_without_warning() -> None:
    calibrator = Calibrator(slope=1, intercept=0)
    assert calibrator.probability(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
