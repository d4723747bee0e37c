"""Alerts reach a real HTTP receiver through Apprise, and no log ever shows a URL."""

from __future__ import annotations

import logging

import pytest

from loan_platform.alerts.delivery import REFUSALS_IN_A_ROW, deliver, receivers
from loan_platform.alerts.message import Alert
from loan_platform_tests.receiver import HttpReceiver, free_port, http_receiver


def alert(name: str, severity="failure") -> Alert:
    return Alert(name, 0.0, severity, f"title {name}", "what", "where", "mend", "link")


def told(receiver: HttpReceiver, alerts: list[Alert]):
    (one,), _ = receivers(receiver.url)
    return deliver(alerts, one)


def test_the_receiver_gets_title_body_and_kind():
    with http_receiver() as receiver:
        delivery = told(receiver, [alert("a"), alert("b", "warning")])
    assert delivery.delivered == {"a", "b"}
    assert receiver.titles == ["title a", "title b"]
    assert [message["type"] for message in receiver.messages] == ["failure", "warning"]
    assert receiver.messages[0]["message"] == alert("a").body


def test_a_receiver_that_is_down_is_left_alone_after_a_few_refusals():
    with http_receiver(up=False) as receiver:
        delivery = told(receiver, [alert(str(i)) for i in range(20)])
    assert delivery.delivered == frozenset()
    assert len(delivery.refused) == REFUSALS_IN_A_ROW


def test_one_message_that_is_refused_does_not_hold_up_the_others():
    with http_receiver() as receiver:
        receiver.refuses = lambda message: message["title"] == "title poison"
        delivery = told(receiver, [alert("poison"), alert("b"), alert("c")])
    assert delivery.delivered == {"b", "c"}
    assert delivery.refused == {"poison"}


def test_no_time_means_no_attempt():
    with http_receiver() as receiver:
        (one,), _ = receivers(receiver.url)
        assert deliver([alert("a")], one, seconds=0).refused == frozenset()
    assert receiver.messages == []


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n", " , "])
def test_urls_are_separated_by_spaces_or_commas(between: str):
    urls = ["json://a.example/x", "mailto://u:p@b.example?to=one@b.example,two@b.example"]
    found, problems = receivers(between.join(urls))
    assert [one.name for one in found] == ["json #1", "mailto #2"]
    assert problems == []


def test_the_variable_is_read_and_its_absence_means_no_receiver(monkeypatch: pytest.MonkeyPatch):
    assert receivers() == ([], [])
    monkeypatch.setenv("LOAN_PLATFORM_ALERT_URLS", "json://a.example json://a.example")
    assert len(receivers()[0]) == 1


def test_a_receiver_keeps_its_identity_and_two_urls_have_two():
    url = "json://a.example/"
    (first, second), _ = receivers(f"{url}token-1 {url}token-2")
    assert first.identity != second.identity
    assert receivers(f"{url}token-2")[0][0].identity == second.identity


def test_a_url_that_is_none_is_reported_by_place_and_does_not_stop_the_rest():
    found, problems = receivers("json://a.example, nonsense://s3cret-token, s3cret-token")
    assert [one.name for one in found] == ["json #1"]
    assert ["entry 2" in problems[0], "entry 3" in problems[1]] == [True, True]
    assert "s3cret" not in str(problems)


def test_no_log_and_no_repr_shows_a_url(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.NOTSET)
    with http_receiver() as receiver:
        told(receiver, [alert("a")])
        receiver.down()
        told(receiver, [alert("b")])
    found, _ = receivers(f"{receiver.url} slack://s3cret-token json://127.0.0.1:{free_port()}/x")
    assert "s3cret-token" not in caplog.text + repr(found)
