"""Every stated reason is true of the model that stated it; words never say more than that."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from loan_platform.contract import Contract
from loan_platform.contract.request import Reason, Value
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.ingest.simulate import write_simulated
from loan_platform.model.bundle import Bundle
from loan_platform.model.calibrator import Isotonic
from loan_platform.model.reasons import TOGETHER, Reasons, sentence
from loan_platform.model.scorers.blend import Blend
from loan_platform.model.scorers.scorecard import Card, Scorecard
from loan_platform.registry.models import predict_frame
from loan_platform_tests import club_loans
from loan_platform_tests.model.deciders import (
    Written,
    applications_of,
    bundle_of,
    linear,
    reasons_of,
    trained_on,
)
from loan_platform_tests.training.books import cleaned_table, write_months

SMALL = """\
name: small
title: Made-up loans
source: {path: small.csv}
time: {replay: {start: 2024-01-01, periods: 2}}
outcome: {bad: [bad], good: [good], matures_after_days: 30}
columns:
  - {name: amount, type: number, unit: USD, description: Amount asked for}
  - {name: income, type: number, unit: USD a year}
  - {name: late, type: integer, unit: times, monotone: increasing, nulls: allowed,
     description: Late payments.}
  - {name: age, type: integer, unit: years, protected_accepted: the book's own policy asks for it}
  - {name: home, type: category, categories: [RENT, OWN], nulls: allowed}
  - {name: status, type: category, categories: [good, bad], role: outcome}
rules:
  - {name: too_dear, refuse_when: amount > 10 * income, reason: nobody earns so little}
features:
  burden: {sql: "amount / nullif(income, 0)"}
"""
INPUTS = ["amount", "income", "late", "age", "home", "burden"]
TYPICAL: dict[str, Value] = {"amount": 8.0, "income": 50.0, "late": 0, "age": 40, "home": "OWN"}


def small(**changes: Any) -> Contract:
    return Contract.model_validate(yaml.safe_load(SMALL) | changes)


def application(**changes: Value) -> dict[str, Value]:
    return {**TYPICAL, **changes}


def bundle(scorer: object, reference: dict[str, Value] | None = None) -> Bundle:
    return bundle_of(small(), scorer, TYPICAL if reference is None else reference)


def stated(of: Bundle, *rows: dict[str, Value]) -> list[list[Reason]]:
    features = PreparedFeatures(of.contract)
    return Reasons(of, features).of(rows, features.evaluate(rows)[0])


# --- true, on books -------------------------------------------------------------------------


@dataclass(frozen=True)
class Declined:
    """A model trained on a book, the applications it declines, and the reasons it states."""

    bundle: Bundle
    rows: list[dict[str, Value]]
    matrix: np.ndarray
    reasons: list[list[Reason]]


def declined(of: Bundle, rows: list[dict[str, Value]], count: int) -> Declined:
    features = PreparedFeatures(of.contract)
    matrix, refusals = features.evaluate(rows)
    words = of.policy.decide(of.probability(matrix))
    at = [n for n, word in enumerate(words) if word == "decline" and not refusals[n]][:count]
    assert len(at) == count
    chosen = [rows[n] for n in at]
    return Declined(of, chosen, matrix[at], Reasons(of, features).of(chosen, matrix[at]))


@pytest.fixture(scope="module")
def months(credit_risk: Contract, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("simulated")
    write_simulated(credit_risk, folder / "book.csv.gz", rows=5000)
    table = cleaned_table(credit_risk, folder / "book.csv.gz", simulated=True)
    return write_months(table, folder)


@pytest.fixture(scope="module")
def five_hundred(credit_risk: Contract, months: dict[str, Path]) -> Declined:
    trained = trained_on(credit_risk, months, size=60)
    return declined(trained, applications_of(credit_risk, months, 3000), 500)


def changed(row: dict[str, Value], reason: Reason) -> dict[str, Value]:
    assert reason.column is not None
    return {**row, reason.column: reason.reference}


def assert_each_reason_holds(of: Declined) -> int:
    """Score every application and its every change by the road a notebook takes; count them."""
    named = [
        (row, reason)
        for row, reasons in zip(of.rows, of.reasons, strict=True)
        for reason in reasons
        if reason.column is not None
    ]
    contract = of.bundle.contract
    columns = [column.name for column in contract.input_columns]
    before, after = (
        predict_frame(
            of.bundle,
            pa.table({name: pa.array([row[name] for row in rows]) for name in columns}),
        )["probability_default"].to_numpy()
        for rows in ([row for row, _ in named], [changed(*one) for one in named])
    )
    worse = [reason.text for (_, reason), n in zip(named, after >= before, strict=True) if n]
    assert worse == []
    for row, reason in named:
        assert reason.column is not None
        assert reason.value == row[reason.column]
        assert reason.reference != reason.value
    return len(named)


def test_every_reason_of_500_declined_applications_is_true(five_hundred: Declined) -> None:
    assert len(five_hundred.reasons) == 500
    assert assert_each_reason_holds(five_hundred) > 1000
    counts = [len(reasons) for reasons in five_hundred.reasons]
    assert max(counts) == 4
    assert min(counts) >= 1
    with_none = sum(reasons == [TOGETHER] for reasons in five_hundred.reasons)
    assert with_none < 5, "a decline nearly always has a value that alone speaks against it"
    for reasons in five_hundred.reasons:
        columns = [reason.column for reason in reasons]
        assert len(set(columns)) == len(columns)


def test_an_application_has_the_same_reasons_alone_and_among_others(five_hundred: Declined) -> None:
    features = PreparedFeatures(five_hundred.bundle.contract)
    one = Reasons(five_hundred.bundle, features)
    for n in (0, 7, 250, 499):
        alone = one.of([five_hundred.rows[n]], five_hundred.matrix[n : n + 1])
        assert alone == [five_hundred.reasons[n]]
    turned = one.of(five_hundred.rows[::-1], five_hundred.matrix[::-1])
    assert turned == five_hundred.reasons[::-1]


def test_a_blends_reasons_are_true_and_the_same_alone(five_hundred: Declined) -> None:
    flat = Card(edges=[], points=[0.0], missing=0.0, spread=0.0)
    steps_down = Card(edges=[3e4, 6e4], points=[0.9, 0.1, -0.8], missing=0.0, spread=0.5)
    width = five_hundred.matrix.shape[1]
    card = Scorecard(cards=[flat, steps_down, *[flat] * (width - 2)], intercept=-1.0)
    blend = Blend((five_hundred.bundle.scorer, card), (0.7, 0.3))
    steps = [(-3.0, -2.0), (-1.0, -1.9), (1.0, 1.0)]
    of = replace(
        five_hundred.bundle,
        scorer=blend,
        calibrator=Isotonic(points=steps, slope=0.5),
    )
    features = PreparedFeatures(of.contract)
    rows, matrix = five_hundred.rows[:60], five_hundred.matrix[:60]
    found = Declined(of, rows, matrix, Reasons(of, features).of(rows, matrix))
    assert assert_each_reason_holds(found) > 100
    assert Reasons(of, features).of(rows[3:4], matrix[3:4]) == found.reasons[3:4]


def test_a_scorer_without_contributions_states_what_changes_most(five_hundred: Declined) -> None:
    of = replace(five_hundred.bundle, scorer=Written(five_hundred.bundle.scorer.margin))
    features = PreparedFeatures(of.contract)
    rows, matrix = five_hundred.rows[:40], five_hundred.matrix[:40]
    reasons = Reasons(of, features).of(rows, matrix)
    assert assert_each_reason_holds(Declined(of, rows, matrix, reasons)) > 80
    for row, found in zip(rows, reasons, strict=True):
        columns = [reason.column for reason in found if reason.column]
        after = of.margin(features.evaluate([changed(row, r) for r in found if r.column])[0])
        assert list(after) == sorted(after), (columns, after)


@pytest.mark.slow
def test_every_reason_on_the_real_book_is_true(
    credit_risk: Contract, real_data: Path, tmp_path: Path
) -> None:
    months = write_months(cleaned_table(credit_risk, real_data / "credit_risk.csv.gz"), tmp_path)
    trained = trained_on(credit_risk, months, size=200)
    found = declined(trained, applications_of(credit_risk, months, 4000), 500)
    assert assert_each_reason_holds(found) > 1000
    assert sum(reasons == [TOGETHER] for reasons in found.reasons) < 5


# --- which columns, and in which order ------------------------------------------------------


def test_the_largest_contribution_comes_first_and_at_most_four_are_named() -> None:
    worse = application(amount=20.0, income=45.0, late=3, age=43, home="RENT")
    scorer = linear([0.1, -0.1, 1.0, 0.3, -5.0, 2.0], at=[8, 50, 0, 40, 1, 0.16])
    # By hand: home 5, late 3, amount 1.2 and half of burden's, age 0.9, income 0.5 and the other.
    assert reasons_of(bundle(scorer), [worse]) == [["home", "late", "amount", "age"]]


def test_a_derived_feature_counts_for_the_columns_it_reads_in_equal_shares() -> None:
    scorer = linear([0, 0, 0.3, 0.01, 0, 1.0], at=[0, 0, 0, 40, 0, 0.16])
    worse = application(amount=40.0, income=50.0, late=1, age=50)
    # burden is 0.8 and adds 0.64: 0.32 to amount, 0.32 to income; income is typical, so no reason.
    assert reasons_of(bundle(scorer), [worse]) == [["amount", "late", "age"]]
    worse["late"] = 2
    assert reasons_of(bundle(scorer), [worse]) == [["late", "amount", "age"]]


def test_what_contributes_but_does_not_help_alone_is_not_named() -> None:
    def either(matrix: np.ndarray) -> np.ndarray:
        """Bad where the amount is high or there are late payments, never worse than bad."""
        return np.maximum(matrix[:, 0] > 10, matrix[:, 2] > 1) * 2.0 + (matrix[:, 3] < 30)

    def adds(matrix: np.ndarray) -> np.ndarray:
        found = np.zeros((len(matrix), len(INPUTS) + 1))
        found[:, [0, 2]] = 1.0
        found[:, 3] = matrix[:, 3] < 30
        return found

    both = application(amount=20.0, late=3, age=20)
    assert reasons_of(bundle(Written(either, adds)), [both]) == [["age"]]
    assert reasons_of(bundle(Written(either, adds)), [{**both, "late": 1}]) == [["amount", "age"]]
    [[together]] = stated(bundle(Written(either, adds)), {**both, "age": 40})
    assert together == TOGETHER


def test_where_nothing_that_contributes_holds_what_helps_most_is_named() -> None:
    def adds(matrix: np.ndarray) -> np.ndarray:
        return np.tile([1.0, -1.0, -1.0, -1.0, -1.0, 0.0, 3.0], (len(matrix), 1))

    scorer = Written(lambda m: 0.5 * m[:, 2] + 0.1 * (m[:, 3] - 40), adds)
    worse = application(amount=20.0, late=1, age=60)
    assert reasons_of(bundle(scorer), [worse]) == [["age", "late"]]


def test_a_typical_application_has_no_single_reason() -> None:
    scorer = linear([0, 0, 0, 0, 0, 0])
    assert stated(bundle(scorer), application()) == [[TOGETHER]]
    assert TOGETHER.column is TOGETHER.value is TOGETHER.reference is None


def test_a_column_without_a_typical_value_is_not_named() -> None:
    scorer = linear([1, 0, 1, 0, 0, 0])
    known = bundle(scorer, {name: TYPICAL[name] for name in ("late", "income")})
    assert reasons_of(known, [application(amount=20.0, late=2)]) == [["late"]]
    assert stated(bundle(scorer, {}), application(amount=20.0)) == [[TOGETHER]]


def test_a_value_that_is_better_by_the_contract_is_never_a_reason() -> None:
    scorer = linear([0, 0, -1, 0, 0, 0])  # against the declared direction of `late`
    reference: dict[str, Value] = {**TYPICAL, "late": 4}
    assert reasons_of(bundle(scorer, reference), [application(late=1)]) == [[None]]


def test_a_protected_column_the_contract_accepts_is_named_like_any_other() -> None:
    scorer = linear([0.001, 0, 0, 0.1, 0, 0], at=[8, 0, 0, 40, 0, 0])
    assert reasons_of(bundle(scorer), [application(amount=20.0, age=60)]) == [["age", "amount"]]


def test_a_change_the_portfolio_would_refuse_proves_nothing() -> None:
    scorer = linear([0, 0.1, 0, 0.1, 0, 0])
    typical: dict[str, Value] = {**TYPICAL, "income": 1.0}
    worse = application(amount=9.0, income=50.0, age=50)
    assert reasons_of(bundle(scorer, typical), [worse]) == [["income", "age"]]
    # With an income of 1 these 20 would be more than ten incomes.
    assert reasons_of(bundle(scorer, typical), [worse | {"amount": 20.0}]) == [["age"]]


def test_a_change_that_sql_cannot_bear_costs_no_other_reason() -> None:
    features = {
        "fragile": {"sql": "CASE WHEN income = 50 THEN age * 9223372036854775807 ELSE 0 END"}
    }
    harmless = small(features={"fragile": {"sql": "0 * age"}})
    of = bundle_of(harmless, linear([0.1, -0.1, 1, 0, 0, 0], at=[8, 50, 0, 0, 0, 0]), TYPICAL)
    fragile = harmless.model_copy(
        update={
            "features": {
                "fragile": harmless.features["fragile"].model_copy(update=features["fragile"])
            }
        }
    )
    rows = [application(amount=20.0, income=20.0 + n, late=n) for n in range(9)]
    prepared = PreparedFeatures(fragile)
    found = Reasons(of, prepared).of(rows, prepared.evaluate(rows)[0])
    # Income at its typical 50 overflows in every row; the other reasons stay.
    assert [[reason.column for reason in reasons] for reasons in found] == [
        ["amount"],
        *([["amount", "late"]] * 1),
        *([["late", "amount"]] * 7),
    ]


def test_what_would_hardly_help_is_named_only_where_nothing_helps_more() -> None:
    scorer = linear([4e-4, 0, 1, 1e-4, 0, 0])
    worse = application(amount=20.0, age=60)  # a gain of 0.0048, and one of 0.002
    assert reasons_of(bundle(scorer), [worse | {"late": 1}]) == [["late"]]
    assert reasons_of(bundle(scorer), [worse]) == [["amount", "age"]]
    assert reasons_of(bundle(linear([1e-9, 0, 0, 0, 0, 0])), [worse]) == [[None]]


def test_dates_are_compared_as_old_as_they_are_on_the_day_of_the_application() -> None:
    contract = club_loans.contract()
    reference: dict[str, Value] = {"earliest line": "2000-01-01", "issue_d": "2009-11-01"}
    young = linear([0.0] * 4 + [-0.001, 0, 0])
    assert contract.model_inputs[4] == "history_days"
    of = bundle_of(contract, young, reference)
    row: dict[str, Value] = {
        "issue_d": "2026-11-01",
        "earliest line": "2020-05-01",
        "rate": 9.0,
        "amount": 9.0,
        "years": 3,
        "home": "own",
        "purpose": None,
    }
    [[reason]] = stated(of, row)
    assert (reason.column, reason.value) == ("earliest line", "2020-05-01")
    assert reason.reference == "2016-12-31", "as long before the application as theirs was"
    # A line that would have been young in 2009 and is older than theirs now is no reason.
    assert stated(of, row | {"earliest line": "2016-12-30"}) == [[TOGETHER]]


# --- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "changes", "words"),
    [
        (
            ("amount", 35000.0, 8000.0),
            {},
            "Amount asked for: 35,000 USD, where approved applications typically have 8,000 USD",
        ),
        (
            ("income", 1234567.891, 0.0),
            {},
            "income: 1,234,567.89 USD a year, where approved applications typically have "
            "0 USD a year",
        ),
        (
            ("late", 3, 1),
            {},
            "Late payments: 3 times, higher than the 1 time approved applications typically have",
        ),
        (
            ("late", 1, 4),
            {"monotone": "decreasing"},
            "Late payments: 1 time, lower than the 4 times approved applications typically have",
        ),
        (
            ("late", None, 2),
            {},
            "Late payments: not given, where approved applications typically have 2 times",
        ),
        (
            ("late", 2, None),
            {},
            "Late payments: 2 times, where approved applications typically have none",
        ),
        (
            ("home", "RENT", "OWN"),
            {"description": "How the applicant lives"},
            "How the applicant lives: RENT, where approved applications typically have OWN",
        ),
        (
            ("amount", 0.98314, 0.4),
            {"unit": "ratio"},
            "Amount asked for: 0.983, where approved applications typically have 0.4",
        ),
        (
            ("amount", 0.98314, 0.98312),
            {"unit": None},
            "Amount asked for: 0.98314, where approved applications typically have 0.98312",
        ),
        (
            ("amount", -12.5, 1e15),
            {"unit": "percent"},
            "Amount asked for: -12.5 percent, where approved applications typically have "
            "1,000,000,000,000,000 percent",
        ),
        (
            ("home", "x" * 90, "debts"),
            {"type": "text"},
            f"home: '{'x' * 79}…', where approved applications typically have 'debts'",
        ),
        (
            ("home", "2020-05-01", "1999-01-01"),
            {"type": "date"},
            "home: 2020-05-01, where approved applications typically have 1999-01-01",
        ),
    ],
)
def test_a_sentence_says_the_value_its_unit_and_what_is_typical(
    said: tuple[str, Value, Value], changes: dict[str, Any], words: str
) -> None:
    name, value, reference = said
    column = small().column(name).model_copy(update=changes)
    assert sentence(column, value, reference) == words


def test_higher_and_lower_are_true_whatever_the_value(
    credit_risk: Contract, months: dict[str, Path]
) -> None:
    """Of a declared column more of the same is never better, so the word cannot mislead."""
    declared = {"person_income": "decreasing", "loan_amnt": "increasing"}
    contract = credit_risk.model_copy(
        update={
            "columns": [
                column.model_copy(update={"monotone": declared.get(column.name)})
                for column in credit_risk.columns
            ],
            "features": {},
        }
    )
    of = trained_on(contract, months, size=40)
    found = declined(of, applications_of(contract, months, 2000), 150)
    assert assert_each_reason_holds(found) > 300
    spoken = {"higher": 0, "lower": 0}
    for reasons in found.reasons:
        for reason in (one for one in reasons if one.column in declared):
            word = "higher" if declared[str(reason.column)] == "increasing" else "lower"
            assert f", {word} than the " in reason.text
            assert isinstance(reason.value, float)
            assert isinstance(reason.reference, float)
            assert (reason.value > reason.reference) == (word == "higher")
            spoken[word] += 1
    assert min(spoken.values()) > 30
    ladder = np.linspace(0.25, 4, 12)
    at = contract.model_inputs.index("person_income")
    for row in found.matrix[:30]:
        rungs = np.tile(row, (len(ladder), 1))
        rungs[:, at] *= ladder
        for richer, poorer in itertools.pairwise(of.margin(rungs[::-1])):
            assert richer <= poorer
