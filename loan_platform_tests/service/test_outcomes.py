"""POST /outcomes: recorded once and durably, all or none, and never what a model says."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bento.outcomes import MOST_OUTCOMES, MOST_TOLD
from loan_platform.contract import Contract
from loan_platform.contract.request import example
from loan_platform.decisions import outcomes as recording
from loan_platform.decisions import read_outcome_history, read_outcomes
from loan_platform.engine.home import Home
from loan_platform_tests.contract.test_request import JSON
from loan_platform_tests.service.conftest import Desk
from loan_platform_tests.service.test_app import ONE_DESK, code, fields


def outcome(application: str, value: int = 1, **changes: object) -> dict[str, Any]:
    known = {"known_at": "2025-06-30T12:00:00+02:00", "source": "lender"}
    return {"application_id": application, "outcome": value, **known, **changes}


def tell(desk: Desk, body: object) -> httpx.Response:
    return desk.request("POST", "/outcomes", json=body)


def recorded(desk: Desk) -> int:
    return read_outcome_history(desk.home, "credit_risk").num_rows


def test_outcomes_are_recorded_once_whoever_sends_them_again(
    open_desk: Callable[..., Desk],
) -> None:
    """Without a champion too: what became of a loan does not wait for a model."""
    desk = open_desk(None)
    both = [outcome("A-1"), outcome("A-2", 0, known_at="2025-06-30", source="bureau")]
    answer = tell(desk, both)
    assert (answer.status_code, answer.json()) == (
        200,
        {"received": 2, "recorded": 2, "already_known": 0},
    )
    again = tell(desk, [*both, outcome("A-3")])
    assert again.json() == {"received": 3, "recorded": 1, "already_known": 2}
    assert tell(desk, outcome("A-3")).json()["already_known"] == 1, "one object, not a list"
    read = {
        row["application_id"]: row for row in read_outcomes(desk.home, "credit_risk").to_pylist()
    }
    assert read["A-1"]["known_at"] == dt.datetime(2025, 6, 30, 10, tzinfo=dt.UTC)
    # A day says no hour: it counts from its end, so that no label is used before it was known.
    assert read["A-2"]["known_at"] == dt.datetime(2025, 7, 1, tzinfo=dt.UTC)
    assert (read["A-2"]["outcome"], read["A-2"]["source"]) == (0, "bureau")
    assert tell(desk, []).json() == {"received": 0, "recorded": 0, "already_known": 0}


SOON = (dt.datetime.now(dt.UTC) + dt.timedelta(days=2)).isoformat()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outcome": 2}, "outcome"),
        ({"outcome": "1"}, "outcome"),
        ({"outcome": True}, "outcome"),
        ({"known_at": SOON}, "known_at"),
        ({"known_at": SOON[:10]}, "known_at"),
        ({"known_at": "2025-06-30T12:00:00"}, "known_at"),
        ({"known_at": 1751284800}, "known_at"),
        ({"known_at": "1751284800"}, "known_at"),
        ({"known_at": "9999-12-31"}, "known_at"),
        ({"known_at": "0001-01-01T00:00:00+14:00"}, "known_at"),
        ({"known_at": "9999-12-31T23:59:59-14:00"}, "known_at"),
        ({"source": "model_v3"}, "source"),
        ({"source": "credit_model"}, "source"),
        ({"source": "service"}, "source"),
        ({"source": "Mr. Planted"}, "source"),
        ({"application_id": ""}, "application_id"),
        ({"application_id": 7}, "application_id"),
        ({"note": "PLANTED"}, "note"),
    ],
)
def test_a_wrong_outcome_is_named_by_its_place_and_nothing_is_recorded(
    desk: Desk, caplog: pytest.LogCaptureFixture, change: dict[str, object], field: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = tell(desk, [outcome("PLANTED-1"), outcome("PLANTED-2") | change])
    assert (response.status_code, code(response)) == (422, "invalid_outcomes")
    assert fields(response) == {f"[1].{field}"}
    assert f"[1].{field}" in response.json()["error"]["message"]
    assert recorded(desk) == 0
    for text in (caplog.text, response.text):
        assert "PLANTED" not in text.replace("Mr. Planted", "PLANTED")


def test_what_is_no_list_of_outcomes_is_refused_with_the_mend(desk: Desk) -> None:
    as_json = {"content-type": "application/json"}

    def send(content: bytes, headers: dict[str, str] = as_json) -> httpx.Response:
        return desk.request("POST", "/outcomes", content=content, headers=headers)

    many = [outcome(f"A-{number}") for number in range(MOST_OUTCOMES + 1)]
    lean = json.dumps(many, separators=(",", ":")).encode()
    cases = [
        (send(b"["), 400, "malformed_json"),
        (send(b"\xff"), 400, "malformed_json"),
        (send(b"[]", {}), 415, "wrong_content_type"),
        (send(b" " * 1_000_001), 413, "too_large"),
        (send(lean), 413, "too_many"),
        (send(b'"A-1"'), 422, "invalid_outcomes"),
        (send(b"[1]"), 422, "invalid_outcomes"),
        (desk.request("GET", "/outcomes"), 405, "wrong_method"),
    ]
    for response, status, word in cases:
        assert (response.status_code, code(response)) == (status, word)
    wrong = tell(desk, [outcome(f"A-{number}", 5) for number in range(MOST_TOLD + 7)])
    assert len(fields(wrong)) == MOST_TOLD
    assert "and 7 more places" in wrong.json()["error"]["message"]
    opposite = tell(desk, [outcome("A-1"), outcome("A-2"), outcome("A-1", 0)])
    assert fields(opposite) == {"[2].outcome"}
    assert "the opposite of [0]" in opposite.json()["error"]["fields"][0]["problem"]
    assert recorded(desk) == 0


@ONE_DESK
@given(JSON | st.lists(st.dictionaries(st.sampled_from([*outcome("x"), "y"]), JSON), max_size=3))
def test_no_json_is_the_services_own_fault(desk: Desk, body: object) -> None:
    content = json.dumps(body)
    headers = {"content-type": "application/json"}
    response = desk.request("POST", "/outcomes", content=content, headers=headers)
    assert response.status_code in (200, 422)


def test_outcomes_that_cannot_be_recorded_are_not_said_to_be(
    open_desk: Callable[..., Desk], home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "postgresql+psycopg2://nobody:hush@127.0.0.1:9/none"
    response = tell(open_desk(None, replace(home, decisions_url=nowhere)), outcome("PLANTED"))
    assert (response.status_code, code(response)) == (503, "not_recorded")
    assert "hush" not in caplog.text
    assert "PLANTED" not in caplog.text


def test_no_decision_waits_for_outcomes(
    desk: Desk, credit_risk: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that keeps outcomes waiting must not keep applicants waiting."""
    write = recording.record_outcomes

    def slowly(*asked: Any) -> int:
        time.sleep(0.4)
        return write(*asked)

    monkeypatch.setattr("bento.outcomes.record_outcomes", slowly)
    done: list[str] = []

    async def both() -> None:
        async def post(path: str, body: object) -> None:
            response = await desk.client.post(path, json=body)
            assert response.status_code == 200
            done.append(path)

        told = asyncio.create_task(post("/outcomes", outcome("A-1")))
        await asyncio.sleep(0.05)
        await post("/predict", example(credit_risk))
        await told

    desk.portal.call(both)
    assert done == ["/predict", "/outcomes"]


def test_the_description_fits_what_is_served(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(None)
    document = desk.request("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/outcomes"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    jsonschema.validate(
        content["example"], content["schema"] | {"components": {"schemas": schemas}}
    )
    response = tell(desk, content["example"])
    jsonschema.validate(response.json(), schemas["Receipt"])
    jsonschema.validate(tell(desk, {}).json(), schemas["Refusal"])
    assert response.json()["recorded"] == 2
