"""What is pending for a receiver, over ticks, restarts and outages; without any sending."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loan_platform.alerts.ledger import DAY, FIRST_LOOK, KEPT, OVERLAP, Ledger, pending
from loan_platform.alerts.message import Alert

NOW = 1_700_000_000.0


def alert(name: str, failed_at: float = NOW) -> Alert:
    return Alert(name, failed_at, "failure", name, "what", "where", "mend", "link")


def tick(ledger: Ledger, alerts: list[Alert], now: float, *, up: bool = True):
    """One tick: what a receiver that is up (or down) was sent, and the ledger as stored."""
    due = pending(alerts, ledger)
    keys = {one.key for one in due}
    after = ledger.after(
        due, delivered=keys if up else set(), refused=set() if up else keys, now=now
    )
    return [one.key for one in due] if up else [], Ledger.model_validate_json(
        after.model_dump_json()
    )


def test_a_failure_is_told_once_although_every_tick_sees_it_again():
    sent, ledger = tick(Ledger.opened(NOW), [alert("a"), alert("a")], NOW)
    again, ledger = tick(ledger, [alert("a"), alert("b", NOW + 1)], NOW + 10)
    assert (sent, again) == (["a"], ["b"])


def test_a_failure_that_becomes_visible_late_is_still_told():
    _, ledger = tick(Ledger.opened(NOW), [alert("a")], NOW)
    late, _ = tick(ledger, [alert("a"), alert("late", NOW - OVERLAP / 2)], NOW + 10)
    assert late == ["late"]


def test_what_a_receiver_did_not_take_stays_owed_however_long_the_look_back():
    _, ledger = tick(Ledger.opened(NOW), [alert("a")], NOW, up=False)
    for minute in range(1, 60):
        _, ledger = tick(ledger, [alert("a")], NOW + 60 * minute, up=False)
    assert ledger.since < NOW
    sent, ledger = tick(ledger, [alert("a")], NOW + 3600)
    assert sent == ["a"]
    assert tick(ledger, [alert("a")], NOW + 3610)[0] == []


def test_a_message_refused_for_good_goes_to_the_back_of_the_queue():
    poison, fresh = alert("poison", NOW - 5), alert("fresh", NOW)
    ledger = Ledger.opened(NOW)
    ledger = ledger.after([poison], delivered=(), refused={"poison"}, now=NOW)
    assert [one.key for one in pending([poison, fresh], ledger)] == ["fresh", "poison"]


def test_a_new_receiver_hears_of_the_last_day_only():
    old, recent = alert("old", NOW - FIRST_LOOK - 1), alert("recent", NOW - FIRST_LOOK + 1)
    assert [one.key for one in pending([old, recent], Ledger.opened(NOW))] == ["recent"]


def test_the_ledger_does_not_grow_with_what_was_told_long_ago():
    ledger = Ledger.opened(NOW)
    for day in range(30):
        failures = [alert(f"{day}-{i}", NOW + day * DAY) for i in range(20)]
        _, ledger = tick(ledger, failures, NOW + day * DAY + 1)
    assert len(ledger.told) == 20
    assert not ledger.owed


def test_a_debt_is_given_up_after_a_week():
    _, ledger = tick(Ledger.opened(NOW), [alert("a")], NOW, up=False)
    _, ledger = tick(ledger, [], NOW + KEPT + 1, up=False)
    assert not ledger.owed


@given(
    failures=st.lists(st.floats(0, 3600), max_size=12, unique=True),
    delays=st.lists(st.floats(0, OVERLAP - 1), min_size=12, max_size=12),
    up=st.lists(st.booleans(), min_size=70, max_size=70),
)
def test_every_failure_is_told_exactly_once_whatever_the_receiver_does(failures, delays, up):
    """Failures appear up to the overlap late, the receiver comes and goes, then stays up."""
    alerts = [alert(f"{at}", NOW + at) for at in failures]
    visible = [one.failed_at + delay for one, delay in zip(alerts, delays, strict=False)]
    ledger = Ledger.opened(NOW)
    told: list[str] = []
    for minute, is_up in enumerate([*up, True]):
        now = NOW + 60.0 * minute
        seen = [one for one, at in zip(alerts, visible, strict=False) if at <= now]
        sent, ledger = tick(
            ledger, [one for one in seen if one.failed_at > ledger.since], now, up=is_up
        )
        told += sent
    assert sorted(told) == sorted(one.key for one in alerts)
