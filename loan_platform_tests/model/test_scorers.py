from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loan_platform.contract.settings import Family
from loan_platform.model.scorers import ScorerError, read
from loan_platform.model.scorers.blend import Blend
from loan_platform.model.scorers.scorecard import Card, Scorecard
from loan_platform.model.scorers.sklearn import Sklearn, log_odds
from loan_platform_tests.model.fitted import FAMILIES, TASK, book, fresh, scorer

EXACT: tuple[Family, ...] = ("lightgbm", "logistic", "xgboost", "catboost")
OPAQUE = tuple(family for family in FAMILIES if family not in EXACT)
INPUTS = len(TASK.names)


def blend(*of: Family) -> Blend:
    weights = (0.5, 0.3, 0.2)[: len(of)]
    return Blend(tuple(scorer(family) for family in of), weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_dumped_is_what_is_read(family: Family) -> None:
    original = scorer(family)
    again = read(original.kind, original.dump(), INPUTS)
    assert again.dump() == original.dump()
    np.testing.assert_array_equal(again.margin(fresh()), original.margin(fresh()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_has_the_same_finite_margin_alone_and_in_any_order(family: Family) -> None:
    asked, rows = scorer(family), fresh(60)
    together = asked.margin(rows)
    assert np.isfinite(together).all()
    turned = asked.margin(rows[::-1])[::-1]
    alone = np.concatenate([asked.margin(row[None, :]) for row in rows])
    # A net multiplies matrices, and those round differently for another number of rows.
    tolerance = 1e-12 if family == "neural_net" else 0
    np.testing.assert_allclose(turned, together, rtol=0, atol=tolerance)
    np.testing.assert_allclose(alone, together, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", EXACT)
def test_contributions_add_up_to_the_margin(family: Family) -> None:
    asked = scorer(family)
    found = asked.contributions(fresh())
    assert found is not None
    assert found.shape == (len(fresh()), INPUTS + 1)
    # XGBoost computes in single precision.
    tolerance = 1e-5 if family == "xgboost" else 1e-10
    np.testing.assert_allclose(found.sum(axis=1), asked.margin(fresh()), rtol=0, atol=tolerance)
    assert (found[:, TASK.names.index("empty")] == 0).all(), "an input that never says anything"
    assert len(set(found[:, -1].tolist())) == 1, "the rest is the same for every row"


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_contributions_are_those_of_the_right_column(family: Family) -> None:
    low, high = fresh(50)[3:].copy(), fresh(50)[3:].copy()
    at = TASK.names.index("ratio")
    low[:, at], high[:, at] = 0.1, 2.0
    found = [scorer(family).contributions(rows) for rows in (low, high)]
    assert found[0] is not None
    assert found[1] is not None
    moved = (found[1] - found[0]).mean(axis=0)
    assert moved.argmax() == at
    assert moved[at] > 0.5


@pytest.mark.parametrize("family", OPAQUE)
def test_what_cannot_be_taken_apart_says_so(family: Family) -> None:
    assert scorer(family).contributions(fresh()) is None
    assert blend("logistic", family).contributions(fresh()) is None


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("neural_net",)])
def test_importance_is_shares_and_the_ratio_matters_most(family: Family) -> None:
    found = scorer(family).importance()
    if family == "hist_gradient_boosting":
        assert found is None
        return
    assert found is not None
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == TASK.names.index("ratio")
    assert found[TASK.names.index("empty")] == 0


def test_a_blend_is_the_weighted_sum_of_its_scorers() -> None:
    both = blend("lightgbm", "logistic")
    trees, card = both.scorers
    rows = fresh()
    expected = [0.5 * t + 0.3 * c for t, c in zip(trees.margin(rows), card.margin(rows))]  # noqa: B905
    np.testing.assert_allclose(both.margin(rows), expected, rtol=1e-13)
    found = both.contributions(rows)
    assert found is not None
    np.testing.assert_allclose(found.sum(axis=1), both.margin(rows), atol=1e-12)
    shares, of_trees, of_card = both.importance(), trees.importance(), card.importance()
    assert shares is not None
    assert of_trees is not None
    assert of_card is not None
    np.testing.assert_allclose(shares, (0.5 * of_trees + 0.3 * of_card) / 0.8)
    assert both.libraries == ("lightgbm",)
    with pytest.raises(TypeError, match="dump each of its scorers"):
        both.dump()


@pytest.mark.parametrize("weights", [(0.5,), (1.0, 0.0), (1.5, -0.5)])
def test_a_weight_that_would_turn_a_reason_round_is_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Blend((scorer("lightgbm"), scorer("logistic")), weights)


@pytest.mark.slow
def test_one_row_of_a_large_blend_costs_less_than_a_millisecond_of_cpu() -> None:
    trees = tuple(scorer("lightgbm", size=300 + more) for more in range(3))
    large = Blend((*trees, scorer("logistic")), (0.3, 0.3, 0.2, 0.2))
    rows = fresh()

    def cost() -> float:
        began = time.process_time()
        for row in rows:
            large.margin(row[None, :])
        return (time.process_time() - began) / len(rows)

    assert min(cost() for _ in range(3)) < 0.001


def test_a_card_gives_each_bin_its_points_as_written() -> None:
    card = Card(edges=[1.0, 5.0], points=[-1.0, 0.25, 2.0], missing=0.5, spread=1)
    grade = Card(edges=[0.5], points=[0.125, -0.125], missing=0.0, spread=0)
    both = Scorecard(cards=[card, grade], intercept=-3)
    values = np.array([0.5, 1.0, 4.9, 5.0, 1e300, -np.inf, np.inf, np.nan])
    expected = [-1.0, 0.25, 0.25, 2.0, 2.0, -1.0, 2.0, 0.5]
    codes = np.array([0, 1, 0, 1, 0, 1, 0, np.nan])
    of_grade = [0.125, -0.125, 0.125, -0.125, 0.125, -0.125, 0.125, 0.0]
    found = both.contributions(np.column_stack([values, codes]))
    np.testing.assert_array_equal(found, np.column_stack([expected, of_grade, np.full(8, -3.0)]))


def test_the_points_of_a_fitted_card_have_mean_0_over_its_rows() -> None:
    found = scorer("logistic").contributions(book()[0])
    assert found is not None
    np.testing.assert_allclose(found[:, :-1].mean(axis=0), 0, atol=1e-12)


def test_log_odds_of_a_forest_that_is_quite_sure_are_finite() -> None:
    found = log_odds(np.array([0.0, 0.2, 0.5, 1.0]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:3], [np.log(0.25), 0])
    assert found[0] == pytest.approx(-found[3])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scorer_of_another_width_or_a_damaged_file_is_refused(family: Family) -> None:
    asked = scorer(family)
    with pytest.raises(ScorerError, match=f"takes {INPUTS} columns, and the contract has 9"):
        read(asked.kind, asked.dump(), 9)
    with pytest.raises(ScorerError):
        read(asked.kind, asked.dump()[: len(asked.dump()) // 3], INPUTS)
    with pytest.raises(ScorerError):
        read(asked.kind, b"", INPUTS)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ScorerError, match="pickle is no kind of scorer"):
        read("pickle", b"cos\nsystem\n", INPUTS)


@pytest.mark.parametrize("kind", ["xgboost", "catboost"])
def test_a_library_that_is_missing_is_named(kind: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    content = scorer(kind).dump()
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ScorerError, match=rf"needs {kind}.*pip install 'loan-platform\[families\]"):
        read(kind, content, INPUTS)


def rewritten(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A skops file with its schema changed, as an attacker would."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                change(schema)
                data = json.dumps(schema).encode()
            new.writestr(name, data)
    return target.getvalue()


def attack(node: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["verbose"] = node

    return change


def test_a_file_that_would_run_a_command_is_refused_before_it_does(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    command = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(f"touch {marker}"),
    }
    arguments = {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "content": [command],
    }
    nodes: dict[str, dict[str, Any]] = {
        "posix.system": {"__class__": "system", "__module__": "posix", "__loader__": "TypeNode"},
        "os.system": {
            "__class__": "function",
            "__module__": "os",
            "__loader__": "FunctionNode",
            "content": {"module_path": "os", "function": "system"},
        },
        "subprocess.getoutput": {
            "__class__": "getoutput",
            "__module__": "subprocess",
            "__loader__": "ConstructorFromReduceNode",
            "content": arguments,
        },
    }
    clean = scorer("random_forest").dump()
    assert read("sklearn", rewritten(clean, lambda _: None), INPUTS)
    for node in nodes.values():
        name = f"{node['__module__']}.{node['__class__']}"
        with pytest.raises(ScorerError, match=f"it holds .*{name}.*no model of ours"):
            read("sklearn", rewritten(clean, attack(node)), INPUTS)
    assert not marker.exists()


def test_a_way_to_build_that_looks_functions_up_is_refused_for_trusted_names_too() -> None:
    node = {
        "__class__": "Pipeline",
        "__module__": "sklearn.pipeline",
        "__loader__": "MethodNode",
        "content": {"func": "fit", "obj": None},
    }
    with pytest.raises(ScorerError, match="it holds MethodNode"):
        read("sklearn", rewritten(scorer("random_forest").dump(), attack(node)), INPUTS)


def test_estimators_that_skops_trusts_and_we_do_not_are_refused() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    matrix, outcome = np.nan_to_num(book()[0]), book()[1]
    scaled = matrix[:, [1, 2, 4]] / 30
    calls = make_pipeline(FunctionTransformer(np.exp), LogisticRegression())
    content = Sklearn.of(calls.fit(scaled, outcome)).dump()
    with pytest.raises(ScorerError, match=r"FunctionNode.*FunctionTransformer"):
        read("sklearn", content, 3)
