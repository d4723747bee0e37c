"""Challengers that were really trained, and badly: each is refused, and for what is wrong with it.

Here: judging them against a champion trained well. Not here: the rule on made-up answers
(`test_promotion`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle
from loan_platform.registry.promotion import Verdict, judge
from loan_platform.training.rows import TrainingError, known_rows
from loan_platform.training.split import part
from loan_platform.training.train import train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import FEW_TREES, cleaned_table, with_column, write_months
from loan_platform_tests.training.conftest import AS_OF

CONTRACT = home_loans.contract(training={"minimum_rows": 300})


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The cleaned layer of 8,000 loans."""
    file = tmp_path_factory.mktemp("book") / "home_loans.csv"
    return cleaned_table(CONTRACT, home_loans.write_csv(file, home_loans.rows(8000, seed=4)))


@pytest.fixture(scope="module")
def layer(book: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_months(book, tmp_path_factory.mktemp("cleaned"))


@pytest.fixture(scope="module")
def good(layer: dict[str, Path]) -> Bundle:
    """Trained as the platform does."""
    return train(CONTRACT, layer, AS_OF).bundle


@pytest.fixture(scope="module")
def of_few(book: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Trained on 5 % of the loans."""
    drawn = np.random.default_rng(0).random(len(book)) < 0.05
    files = write_months(book.filter(pa.array(drawn)), tmp_path_factory.mktemp("few"))
    return train(CONTRACT, files, AS_OF).bundle


def figures(verdict: Verdict, name: str) -> tuple[float, float, float]:
    gain, low, high = verdict.evidence["all"][f"{name}_gain"]
    return gain, low, high


def test_one_that_learnt_from_shuffled_outcomes_is_refused_by_the_floor_and_its_losses(
    book: pa.Table, layer: dict[str, Path], good: Bundle, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(0).permutation(book["outcome"].to_numpy())
    files = write_months(with_column(book, "outcome", shuffled), tmp_path)
    challenger = train(CONTRACT, files, AS_OF).bundle
    verdict = judge(CONTRACT, challenger, good, layer, AS_OF)
    assert not verdict.promote
    assert {"floor", "gain", "loss"} <= set(verdict.evidence["refused_by"])
    reached = verdict.evidence["all"]["challenger_auc"]
    short = CONTRACT.training.floor_auc - reached
    assert any(f"is {short:.4f} below training.floor_auc 0.6" in why for why in verdict.reasons)
    for name, words in (("auc", "AUC"), ("log_loss", "log loss")):
        lost, _, high = figures(verdict, name)
        assert high < 0
        assert any(f"{words} is surely worse, by {-lost:.4f}" in why for why in verdict.reasons)


def test_one_that_learnt_from_5_percent_of_the_rows_is_refused_by_its_losses_and_yields_to_all(
    layer: dict[str, Path], good: Bundle, of_few: Bundle
) -> None:
    down = judge(CONTRACT, of_few, good, layer, AS_OF)
    assert {"gain", "loss"} <= set(down.evidence["refused_by"])
    lost, _, high = figures(down, "log_loss")
    assert high < 0
    assert any(f"log loss is surely worse, by {-lost:.4f}" in why for why in down.reasons)

    up = judge(CONTRACT, good, of_few, layer, AS_OF)
    assert up.promote, up.reasons
    assert up.reasons[-1] == "promoted: no rule objects"
    assert figures(up, "log_loss")[1] > 0


def with_points(**changes: Any) -> Contract:
    """The contract with one more column, which the bank writes when a loan has gone wrong."""
    document = CONTRACT.model_dump(mode="json")
    document["columns"].append({"name": "points", "type": "number"} | changes)
    return Contract.model_validate(document)


def test_one_with_a_leak_is_refused_by_the_leak_guard_however_it_was_made(
    book: pa.Table, layer: dict[str, Path], good: Bundle, tmp_path: Path
) -> None:
    """The leak shows in the judge rows alone, and the bundle was made round training's guard."""
    random = np.random.default_rng(0)
    outcome = book["outcome"].to_numpy()
    known = known_rows(CONTRACT, layer, AS_OF)
    judged = set(known.application_id[part(known) == "judge"])
    planted = np.array([name in judged for name in book["application_id"].to_pylist()])
    late = outcome + random.normal(0, 0.3, len(book))
    points = np.where(planted, late, random.random(len(book)))
    files = write_months(book.append_column("points", pa.array(points)), tmp_path)
    everywhere = write_months(
        book.append_column("points", pa.array(outcome.astype(float))), tmp_path / "everywhere"
    )
    accepting = with_points(leak_accepted="this test has to train with it")
    with pytest.raises(TrainingError, match="points"):
        train(with_points(), everywhere, AS_OF)
    bundle = train(accepting, everywhere, AS_OF, recipe=FEW_TREES).bundle
    made = dataclasses.replace(bundle, contract=with_points())

    verdict = judge(with_points(), made, good, files, AS_OF)
    assert not verdict.promote
    assert figures(verdict, "auc")[1] > 0.05  # it would have won
    assert "leak" in verdict.evidence["refused_by"]
    why = next(one for one in verdict.reasons if one.startswith("refused by the rule leak"))
    assert "points: its values alone rank bad loans above good ones" in why

    # Where the contract answers for it, it is told and not hidden.
    answered = judge(accepting, bundle, good, files, AS_OF)
    assert "leak" not in answered.evidence["refused_by"]
    assert answered.evidence["leaks_accepted"] == {"points": "this test has to train with it"}
    assert "points is used although it leaks: this test has to train with it" in answered.reasons

    # And where the contract now keeps it out, a model that uses it is not even asked.
    ignoring = with_points(role="ignored", reason="booked after the loss")
    refused = judge(ignoring, made, good, files, AS_OF)
    assert refused.evidence["refused_by"] == ["contract"]
    assert "it uses points, which stays out now (booked after the loss)" in refused.reasons[-1]
