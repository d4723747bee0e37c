"""What the service answers, refuses, writes down and never tells."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import httpx
import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bento import batching
from bento.champion import Champion
from loan_platform.contract import Contract
from loan_platform.contract.request import example
from loan_platform.decisions import read_decisions
from loan_platform.engine.home import Home
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.scorers.lightgbm import LightGBM
from loan_platform_tests.contract.test_request import JSON, VALID
from loan_platform_tests.service.bundles import applications, bundle, overflowing
from loan_platform_tests.service.conftest import Desk

ONE_DESK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def fields(response: httpx.Response) -> set[str]:
    return {field["field"] for field in response.json()["error"]["fields"]}


def test_a_decision_tells_all_that_made_it_and_is_on_the_log(
    desk: Desk, champion: Champion, credit_risk: Contract
) -> None:
    row = example(credit_risk)
    before = dt.datetime.now(dt.UTC)
    response = desk.predict({**row, "application_id": "A-1", "applied_at": "2025-03-05T10:00:00Z"})
    assert response.status_code == 200
    answer = response.json()
    [logged] = read_decisions(desk.home, "credit_risk", "2025-03").to_pylist()
    matrix, _ = champion.features.evaluate([row])
    [probability] = champion.bundle.probability(matrix)
    assert answer["probability_default"] == probability
    assert answer["decision"] == champion.bundle.policy.decide(np.array([probability]))[0]
    assert answer["label"] == int(probability >= champion.bundle.policy.threshold)
    assert (answer["application_id"], answer["model_version"]) == ("A-1", "1")
    assert answer["contract_hash"] == credit_risk.contract_hash
    assert answer["policy_hash"] == champion.bundle.policy.policy_hash
    assert before <= dt.datetime.fromisoformat(answer["decided_at"]) <= dt.datetime.now(dt.UTC)
    assert json.loads(logged.pop("inputs")) == row
    assert json.loads(logged.pop("reasons")) == answer.pop("reasons")
    assert logged.pop("applied_at") == dt.datetime(2025, 3, 5, 10, tzinfo=dt.UTC)
    assert logged.pop("decided_at") == dt.datetime.fromisoformat(answer.pop("decided_at"))
    assert logged == answer


@ONE_DESK
@given(VALID)
def test_valid_applications_are_decided_or_break_a_rule(desk: Desk, row: dict[str, object]) -> None:
    response = desk.predict(row)
    length, age = row["person_emp_length"], row["person_age"]
    assert isinstance(age, int)
    if isinstance(length, int | float) and length > age:
        assert (response.status_code, code(response)) == (422, "rule_broken")
        assert fields(response) == {"person_emp_length", "person_age"}
        assert "employed_longer_than_alive" in response.json()["error"]["message"]
    else:
        assert response.status_code == 200
        assert 0 <= response.json()["probability_default"] <= 1


@ONE_DESK
@given(JSON | st.dictionaries(st.sampled_from(["person_age", "applied_at", "x"]), JSON))
def test_no_json_is_the_services_own_fault(desk: Desk, body: object) -> None:
    response = desk.request(
        "POST",
        "/predict",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]


@ONE_DESK
@given(st.binary(max_size=200))
def test_no_bytes_are_the_services_own_fault(desk: Desk, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = desk.request("POST", "/predict", content=body, headers=headers)
    assert 400 <= response.status_code < 500


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"person_age": "31"}, "person_age"),
        ({"person_age": 17}, "person_age"),
        ({"loan_intent": "BOAT"}, "loan_intent"),
        ({"person_income": None}, "person_income"),
        ({"loan_grade": "A"}, "loan_grade"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_wrong_field_is_named(
    desk: Desk, credit_risk: Contract, change: dict[str, object], field: str
) -> None:
    response = desk.predict({**example(credit_risk), **change})
    assert (response.status_code, code(response)) == (422, "invalid_application")
    assert fields(response) == {field}
    assert field in response.json()["error"]["message"]


def test_what_is_no_request_is_refused_in_json(desk: Desk) -> None:
    as_json = {"content-type": "application/json"}
    cases = [
        (desk.request("POST", "/predict", content=b"{", headers=as_json), 400, "malformed_json"),
        (desk.request("POST", "/predict", content=b"", headers=as_json), 400, "malformed_json"),
        (desk.request("POST", "/predict", content=b"{}"), 415, "wrong_content_type"),
        (desk.request("POST", "/predict", data={"person_age": 31}), 415, "wrong_content_type"),
        (
            desk.request("POST", "/predict", content=b"[" * 1_000_001, headers=as_json),
            413,
            "too_large",
        ),
        (
            desk.request("POST", "/predict", content=b"[" * 900_000, headers=as_json),
            400,
            "malformed_json",
        ),
        (desk.request("GET", "/predict"), 405, "wrong_method"),
        (desk.request("GET", "/nowhere"), 404, "not_found"),
    ]
    for response, status, word in cases:
        assert (response.status_code, code(response)) == (status, word)


def test_without_a_champion_it_says_what_to_do(
    open_desk: Callable[..., Desk], champion: Champion, credit_risk: Contract
) -> None:
    desk = open_desk(None)
    health, refused = desk.request("GET", "/health"), desk.predict(example(credit_risk))
    assert (health.status_code, refused.status_code) == (503, 503)
    assert health.json()["status"] == "no_champion"
    assert "MLFLOW_TRACKING_URI" in health.json()["what_to_do"]
    assert code(refused) == "no_champion"
    assert desk.request("GET", "/docs").status_code == 200
    desk.champions.current = champion
    assert desk.request("GET", "/health").json()["model_version"] == "1"
    assert desk.predict(example(credit_risk)).status_code == 200


def test_those_who_wait_together_share_a_commit(desk: Desk, credit_risk: Contract) -> None:
    rows = applications(credit_risk, 60, seed=8)
    responses = desk.predict_together(rows)
    assert [response.status_code for response in responses] == [200] * 60
    logged = read_decisions(desk.home, "credit_risk")
    assert logged.num_rows == 60
    assert len(set(logged["decided_at"].to_pylist())) <= 6
    alone = [desk.predict(row).json()["probability_default"] for row in rows[:10]]
    assert alone == [r.json()["probability_default"] for r in responses[:10]]


def test_a_row_no_expression_can_bear_fails_alone(
    open_desk: Callable[..., Desk], credit_risk: Contract
) -> None:
    contract = overflowing(credit_risk)
    # Fitted where the same feature bears every row; served where it does not.
    bearing = contract.features["fragile"].model_copy(update={"sql": "0 * loan_amnt"})
    harmless = contract.model_copy(update={"features": {**contract.features, "fragile": bearing}})
    fitted = Champion.of("1", bundle(harmless), "credit_risk")
    desk = open_desk(replace(fitted, features=PreparedFeatures(contract)))
    rows = [row | {"cb_person_cred_hist_length": 1} for row in applications(contract, 9, seed=8)]
    rows[4]["cb_person_cred_hist_length"] = 5
    statuses = [response.status_code for response in desk.predict_together(rows)]
    assert statuses == [200] * 4 + [500] + [200] * 4
    assert read_decisions(desk.home, "credit_risk").num_rows == 8


def test_a_log_that_cannot_be_written_means_no_decision(
    open_desk: Callable[..., Desk],
    home: Home,
    champion: Champion,
    credit_risk: Contract,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = "postgresql+psycopg2://nobody:hush@127.0.0.1:9/none"
    desk = open_desk(champion, replace(home, decisions_url=nowhere))
    responses = desk.predict_together([example(credit_risk) for _ in range(3)])
    assert {response.status_code for response in responses} == {503}
    assert code(responses[0]) == "not_recorded"
    assert "hush" not in caplog.text


@pytest.mark.slow
def test_decisions_may_go_to_postgresql(
    open_desk: Callable[..., Desk],
    home: Home,
    champion: Champion,
    credit_risk: Contract,
    new_database: Callable[[], str],
) -> None:
    elsewhere = replace(home, decisions_url=new_database())
    rows = applications(credit_risk, 20, seed=15)
    responses = open_desk(champion, elsewhere).predict_together(rows)
    answered = {response.json()["decision_id"] for response in responses}
    assert len(answered) == 20
    assert set(read_decisions(elsewhere, "credit_risk")["decision_id"].to_pylist()) == answered
    assert not home.decisions.exists()


def test_more_than_can_wait_are_sent_away_at_once(
    desk: Desk, credit_risk: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MOST_WAITING", 5)
    responses = desk.predict_together(applications(credit_risk, 30, seed=16))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 5
    assert {code(r) for r in responses if r.status_code == 503} == {"overloaded"}
    assert read_decisions(desk.home, "credit_risk").num_rows == statuses[200]


def test_a_failure_here_is_told_by_number_and_logged_without_values(
    open_desk: Callable[..., Desk],
    champion: Champion,
    credit_risk: Contract,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = replace(champion, bundle=replace(champion.bundle, scorer=LightGBM("no model")))
    desk = open_desk(broken)
    with caplog.at_level(logging.DEBUG):
        response = desk.predict({**example(credit_risk), "person_income": 987654.25})
    assert (response.status_code, code(response)) == (500, "internal")
    found = re.search(r"under (\w{12})", response.json()["error"]["message"])
    assert found
    assert f"error {found[1]}: LightGBMError" in caplog.text
    assert "batching.py" in caplog.text
    assert "987654" not in caplog.text + response.text
    assert desk.predict(example(credit_risk)).status_code == 500, "it goes on answering"


def test_refusals_are_logged_nowhere(
    desk: Desk, credit_risk: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    planted = {**example(credit_risk), "loan_intent": "PLANTED", "person_income": -987654.25}
    with caplog.at_level(logging.DEBUG):
        response = desk.predict(planted)
    assert response.status_code == 422
    for text in (caplog.text, response.text):
        assert "PLANTED" not in text
        assert "987654" not in text


def test_a_request_keeps_the_champion_it_met(
    desk: Desk, champion: Champion, credit_risk: Contract
) -> None:
    other = Champion.of("2", bundle(credit_risk, seed=9), "credit_risk")
    rows = applications(credit_risk, 40, seed=10)
    expected = {
        one.version: one.bundle.probability(one.features.evaluate(rows)[0])
        for one in (champion, other)
    }
    for turn in range(6):
        desk.champions.current = (champion, other)[turn % 2]
        for number, response in enumerate(desk.predict_together(rows)):
            answer = response.json()
            assert answer["probability_default"] == expected[answer["model_version"]][number]


def test_the_description_fits_what_is_served(desk: Desk, credit_risk: Contract) -> None:
    document = desk.request("GET", "/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    schemas = document["components"]["schemas"]
    assert document["info"]["title"] == f"{credit_risk.title} (SIMULATED)"
    assert "SIMULATED" in document["info"]["description"]
    assert "(SIMULATED)</title>" in desk.request("GET", "/docs").text
    jsonschema.validate(content["example"], schemas["Application"])
    response = desk.predict(content["example"])
    assert response.status_code == 200
    as_described = document | {"$ref": "#/components/schemas/Decision"}
    jsonschema.validate(response.json(), as_described)
    jsonschema.validate(desk.predict({}).json(), schemas["Refusal"])


def test_a_model_of_a_real_book_is_not_called_simulated(
    open_desk: Callable[..., Desk], champion: Champion, credit_risk: Contract
) -> None:
    record = champion.bundle.record.model_copy(update={"simulated": False})
    desk = open_desk(replace(champion, bundle=replace(champion.bundle, record=record)))
    document = desk.request("GET", "/openapi.json")
    assert document.json()["info"]["title"] == credit_risk.title
    assert "simulated" not in (document.text + desk.request("GET", "/docs").text).lower()


def test_the_page_needs_no_other_host(desk: Desk) -> None:
    assert desk.request("GET", "/").headers["location"] == "/docs"
    page = desk.request("GET", "/docs").text
    files = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert files
    for file in files:
        assert file.startswith("/docs/files/")
        assert desk.request("GET", file).status_code == 200
    assert "//" not in page.replace("<!-- ", "").split("<script>")[0].replace("/docs", "")
