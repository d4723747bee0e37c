"""The service gives the reasons of what it does not approve, writes them down, and never waits
for them in vain."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from bento.champion import Champion
from loan_platform.contract import Contract
from loan_platform.contract.request import Value
from loan_platform.decisions import read_decisions
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.reasons import UNKNOWN
from loan_platform_tests.model.deciders import Written
from loan_platform_tests.service.bundles import applications
from loan_platform_tests.service.conftest import Desk

TYPICAL: dict[str, Value] = {
    "person_age": 45,
    "person_income": 65_000.0,
    "person_home_ownership": "MORTGAGE",
    "person_emp_length": 5.0,
    "loan_intent": "VENTURE",
    "loan_amnt": 8_000.0,
    "cb_person_default_on_file": "N",
    "cb_person_cred_hist_length": 6,
}


class Counted(PreparedFeatures):
    """How many rows each query was asked for."""

    asked: list[int]

    def evaluate(self, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, list[str]]:
        self.asked.append(len(rows))
        return super().evaluate(rows)


@pytest.fixture
def reasoning(champion: Champion) -> Champion:
    """The champion with what is typical of its approved loans, and its queries counted."""
    features = Counted(champion.bundle.contract)
    features.asked = []
    bundle = replace(champion.bundle, reference=TYPICAL)
    return replace(champion, bundle=bundle, features=features)


@pytest.fixture
def desk(open_desk: Callable[..., Desk], reasoning: Champion) -> Desk:
    return open_desk(reasoning)


def test_what_is_not_approved_comes_with_reasons_that_hold(
    desk: Desk, reasoning: Champion, credit_risk: Contract
) -> None:
    rows = applications(credit_risk, 80, seed=21)
    answers = [response.json() for response in desk.predict_together(rows)]
    seen = {answer["decision"] for answer in answers}
    assert seen == {"approve", "refer", "decline"}
    before = {answer["application_id"]: answer for answer in answers}
    proven = 0
    for row, answer in zip(rows, answers, strict=True):
        assert (answer["reasons"] == []) == (answer["decision"] == "approve")
        assert len(answer["reasons"]) <= 4
        for reason in answer["reasons"]:
            if reason["column"] is None:
                continue
            assert reason["value"] == row[reason["column"]]
            again = desk.predict(row | {reason["column"]: reason["reference"]}).json()
            assert again["probability_default"] < answer["probability_default"], reason["text"]
            proven += 1
    assert proven > 50
    logged = read_decisions(desk.home, "credit_risk").to_pylist()
    for decision in logged:
        if answer := before.get(decision["application_id"]):
            assert json.loads(decision["reasons"]) == answer["reasons"]


def test_the_reasons_of_all_who_wait_together_cost_one_more_query(
    desk: Desk, reasoning: Champion, credit_risk: Contract
) -> None:
    rows = applications(credit_risk, 80, seed=22)
    together = [response.json() for response in desk.predict_together(rows)]
    queries = reasoning.features.asked  # type: ignore[attr-defined]
    drains = len({decision["decided_at"] for decision in together})
    assert len(queries) <= 2 * drains <= 12
    queries.clear()
    alone = [desk.predict(row).json() for row in rows]
    assert [one["reasons"] for one in alone] == [one["reasons"] for one in together]
    approved = sum(one["decision"] == "approve" for one in alone)
    assert 0 < approved < 80
    assert len(queries) == 2 * 80 - approved, "an approval asks for no reasons"


def test_reasons_that_fail_cost_nobody_a_decision(
    open_desk: Callable[..., Desk],
    reasoning: Champion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(matrix: np.ndarray) -> np.ndarray:
        raise RuntimeError(f"cannot bear {matrix.tolist()}")

    scorer = Written(lambda matrix: matrix[:, 1] / 1e5 + 10, fail)
    desk = open_desk(replace(reasoning, bundle=replace(reasoning.bundle, scorer=scorer)))
    with caplog.at_level(logging.DEBUG):
        response = desk.predict(TYPICAL | {"person_income": 987654.0})
    assert response.status_code == 200
    answer = response.json()
    assert answer["decision"] == "decline"
    assert answer["reasons"] == [UNKNOWN.model_dump()]
    [logged] = read_decisions(desk.home, "credit_risk").to_pylist()
    assert json.loads(logged["reasons"]) == answer["reasons"]
    assert "no reasons for a drain: RuntimeError" in caplog.text
    assert "987654" not in caplog.text


def test_reasons_are_described(desk: Desk, credit_risk: Contract) -> None:
    document = desk.request("GET", "/openapi.json").json()
    described = document | {"$ref": "#/components/schemas/Decision"}
    answers = [desk.predict(row).json() for row in applications(credit_risk, 12, seed=23)]
    assert any(answer["reasons"] for answer in answers)
    for answer in answers:
        jsonschema.validate(answer, described)
    [answer, *_] = [answer for answer in answers if answer["reasons"]]
    del answer["reasons"][0]["text"]
    with pytest.raises(jsonschema.ValidationError, match="text"):
        jsonschema.validate(answer, described)
