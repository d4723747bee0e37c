from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from loan_platform.contract import Contract
from loan_platform.contract.request import example
from loan_platform.model.bundle import Bundle, BundleError, bundle_hash, environment
from loan_platform.model.calibrator import Sigmoid
from loan_platform.model.scorers.blend import Blend
from loan_platform.training import families
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
    margin = lightgbm.Booster(model_file=str(saved / "scorer-0.lightgbm")).predict(
        matrix, raw_score=True
    )
    assert isinstance(loaded.calibrator, Sigmoid)
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


@pytest.mark.parametrize("name", ["scorer-0.lightgbm", "bundle.json"])
def test_a_changed_file_is_named(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: not the file that was saved"):
        Bundle.load(saved)


@pytest.mark.parametrize("name", ["scorer-0.lightgbm", "bundle.json", "manifest.json"])
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
    body = json.loads((folder / "bundle.json").read_text()) | change
    (folder / "bundle.json").write_text(json.dumps(body))
    files = [file for file in folder.iterdir() if file.name != "manifest.json"]
    manifest = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
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


SLIGHTLY_OFF: dict[str, object] = {
    "calibrator": {"kind": "sigmoid", "slope": 1.0300001, "intercept": 0.0}
}


def trained_with(folder: Path, **versions: str) -> dict[str, object]:
    """The record of a bundle with other versions written into it."""
    record = Bundle.load(folder).record.model_dump(mode="json")
    return {"record": record | {"environment": record["environment"] | versions}}


def test_other_probabilities_under_the_same_versions_are_refused(saved: Path) -> None:
    rewrite(saved, SLIGHTLY_OFF)
    with pytest.raises(BundleError, match=r"golden rows other probabilities.*all versions are"):
        Bundle.load(saved)


def test_other_probabilities_under_other_versions_name_those_versions(saved: Path) -> None:
    import numpy

    rewrite(saved, trained_with(saved, lightgbm="3.1", numpy="1.0") | SLIGHTLY_OFF)
    with pytest.raises(BundleError, match="golden rows other probabilities") as refused:
        Bundle.load(saved)
    assert f"lightgbm 3.1 (here {lightgbm.__version__})" in str(refused.value)
    assert f"numpy 1.0 (here {numpy.__version__})" in str(refused.value)
    assert "duckdb" not in str(refused.value), "that one is the same"


def test_other_versions_that_give_the_same_probabilities_are_no_trouble(saved: Path) -> None:
    rewrite(saved, trained_with(saved, lightgbm="3.1"))
    assert Bundle.load(saved).record.environment["lightgbm"] == "3.1"


def test_features_that_come_out_otherwise_are_found_by_the_reference_application(
    credit_risk: Contract, tmp_path: Path
) -> None:
    with_reference = dataclasses.replace(small_bundle(credit_risk), reference=example(credit_risk))
    with_reference.save(tmp_path)
    assert Bundle.load(tmp_path).reference == example(credit_risk)

    document = credit_risk.model_dump(mode="json", exclude={"simulation"}, by_alias=True)
    name = next(iter(document["features"]))
    document["features"][name]["sql"] = f"1.0 + ({document['features'][name]['sql']})"
    rewrite(tmp_path, {"contract": document})
    with pytest.raises(BundleError, match=r"features come out otherwise.*train again"):
        Bundle.load(tmp_path)


def test_the_environment_covers_what_computes_this_model(credit_risk: Contract) -> None:
    found = environment(blended(credit_risk).scorer)
    for name in ("lightgbm", "scikit-learn", "skops", "scipy", "numpy", "duckdb"):
        assert found[name] == version(name)
    assert "skops" not in environment(small_bundle(credit_risk).scorer)


def blended(contract: Contract) -> Bundle:
    """A bundle of three kinds of scorers of the contract."""
    one = small_bundle(contract, seed=3)
    task, matrix = families.task_of(contract), rows(contract, 300)
    for at, name in enumerate(task.names):
        if name in task.categories:
            matrix[:, at] = np.nan_to_num(matrix[:, at]) % task.categories[name] // 1
    asked = families.Fit(task, matrix, (matrix[:, 0] > 15).astype(np.int64), until=3)
    card, forest = (
        families.module(family).fit(asked, {}).scorer for family in ("logistic", "random_forest")
    )
    return dataclasses.replace(
        one, scorer=Blend((one.scorer, card, forest), (0.5, 0.25, 0.25)), golden=matrix[:8]
    )


@pytest.fixture
def blend_folder(credit_risk: Contract, tmp_path: Path) -> Path:
    blended(credit_risk).save(tmp_path / "blend")
    return tmp_path / "blend"


PARTS = ("scorer-0.lightgbm", "scorer-1.scorecard", "scorer-2.sklearn")


def test_a_blend_is_one_file_a_scorer_and_loads_as_it_was(
    credit_risk: Contract, blend_folder: Path
) -> None:
    assert {file.name for file in blend_folder.iterdir()} == {
        *PARTS,
        "bundle.json",
        "manifest.json",
    }
    loaded = Bundle.load(blend_folder)
    assert isinstance(loaded.scorer, Blend)
    assert loaded.scorer.weights == (0.5, 0.25, 0.25)
    matrix = loaded.golden
    np.testing.assert_array_equal(loaded.margin(matrix), blended(credit_risk).margin(matrix))


@pytest.mark.parametrize("name", [*PARTS, "bundle.json"])
def test_a_flipped_bit_anywhere_in_a_blend_is_named(blend_folder: Path, name: str) -> None:
    content = bytearray((blend_folder / name).read_bytes())
    for position in np.random.default_rng(0).integers(0, len(content), 5):
        changed = content.copy()
        changed[position] ^= 1
        (blend_folder / name).write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name}: not the file .*registry again"):
            Bundle.load(blend_folder)


def test_swapped_scorers_are_refused(blend_folder: Path, credit_risk: Contract) -> None:
    other = blend_folder.parent / "other"
    small_bundle(credit_risk, seed=5).save(other)
    shutil.copy(other / PARTS[0], blend_folder / PARTS[0])
    with pytest.raises(BundleError, match=f"{PARTS[0]}: not the file that was saved"):
        Bundle.load(blend_folder)
    rewrite(blend_folder, {})  # and now the manifest agrees
    with pytest.raises(BundleError, match="golden rows other probabilities"):
        Bundle.load(blend_folder)


def test_a_manifest_of_another_shape_is_refused(saved: Path) -> None:
    (saved / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match=r"manifest.json: no list of files"):
        Bundle.load(saved)


def test_a_file_of_an_untrusted_type_is_refused_whoever_wrote_the_manifest(
    blend_folder: Path,
) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    (blend_folder / PARTS[2]).write_bytes(skops.io.dumps(FunctionTransformer(np.exp)))
    rewrite(blend_folder, {})
    with pytest.raises(BundleError, match=f"{PARTS[2]}: it holds .*FunctionTransformer.*again"):
        Bundle.load(blend_folder)


def test_a_kind_that_is_a_path_is_refused(saved: Path) -> None:
    rewrite(saved, {"scorers": [{"kind": "../../etc/passwd", "weight": 1.0}]})
    with pytest.raises(BundleError, match="not readable by this version"):
        Bundle.load(saved)


def test_another_format_and_an_unreadable_body_are_told_apart(saved: Path) -> None:
    rewrite(saved, {"format": 1})
    with pytest.raises(BundleError, match=r"format 1, but this version .* reads format 2; train"):
        Bundle.load(saved)
    rewrite(saved, {"format": 2, "policy": {}})
    with pytest.raises(BundleError, match="not readable by this version"):
        Bundle.load(saved)


def test_nothing_in_a_bundle_can_run_code(saved: Path) -> None:
    assert {file.name for file in saved.iterdir()} == {
        "scorer-0.lightgbm",
        "bundle.json",
        "manifest.json",
    }
    for file in saved.iterdir():
        file.read_text(encoding="utf-8")  # text, so no pickle


def test_calibration_saturates_without_warning() -> None:
    calibrator = Sigmoid(slope=1, intercept=0)
    assert calibrator.probability(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
