"""The ledger keeps what was written, shows what was changed, and adds up to the champion."""

from __future__ import annotations

import dataclasses
import datetime as dt
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from loan_platform.decisions import database
from loan_platform.engine.home import Home
from loan_platform.registry.ledger import (
    FILE,
    Entry,
    Ledger,
    LedgerError,
    first_break,
    standing,
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def ledger(request: pytest.FixtureRequest, home: Home) -> Ledger:
    """An empty ledger in either database."""
    if request.param == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("new_database")
        home = dataclasses.replace(home, decisions_url=create())
    return Ledger(home, "book")


def written(ledger: Ledger) -> list[Entry]:
    """A little history, as `moves` writes it."""
    return [
        ledger.append("refused", by="asset", to_version="1", reason="below the floor"),
        ledger.append("promoting", by="Ann", to_version="1", evidence={"auc": 0.7, "é": [None]}),
        ledger.append("promoted", by="Ann", to_version="1", evidence={"began": 2}),
        ledger.append("moved_by_hand", by="unknown", from_version="1", to_version=None),
    ]


def engine_of(ledger: Ledger) -> sa.Engine:
    if ledger.home.decisions_url:
        return database.server(ledger.home.decisions_url)
    return database.file(ledger.home.decisions / ledger.portfolio / FILE)


def test_what_is_read_is_what_was_written_and_is_proved(ledger: Ledger):
    assert ledger.entries() == []
    assert ledger.verify() is None
    entries = written(ledger)
    assert ledger.entries() == entries
    assert [entry.seq for entry in entries] == [1, 2, 3, 4]
    assert entries[1].facts == {"auc": 0.7, "é": [None]}
    assert ledger.verify() is None
    assert ledger.verify((4, entries[3].hash)) is None
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(entries[0].at)
    assert age < dt.timedelta(minutes=1)
    other = Ledger(ledger.home, "other_book")
    other.append("promoted", by="Ann", to_version="9")
    assert ledger.entries() == entries
    assert [entry.seq for entry in other.entries()] == [1]


def test_the_database_refuses_to_change_or_delete(ledger: Ledger):
    written(ledger)
    engine = engine_of(ledger)
    statements = ["UPDATE ledger SET reason = 'it was me'", "DELETE FROM ledger WHERE seq = 4"]
    if engine.dialect.name == "sqlite":
        statements.append("INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE seq = 2")
    else:
        statements.append("TRUNCATE ledger")
    for statement in statements:
        refused = pytest.raises(sa.exc.DBAPIError, match="the ledger is append-only")
        with refused, engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert ledger.verify() is None
    assert len(ledger.entries()) == 4


def test_one_who_takes_the_guards_away_is_found_by_the_chain(ledger: Ledger):
    head = (4, written(ledger)[3].hash)
    engine = engine_of(ledger)
    guards = {
        "sqlite": ["DROP TRIGGER ledger_no_update", "DROP TRIGGER ledger_no_delete"],
        "postgresql": ["DROP TRIGGER ledger_keeps ON ledger"],
    }
    with engine.begin() as connection:
        for statement in guards[engine.dialect.name]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE ledger SET \"by\" = 'Bob' WHERE seq = 2")
    found = ledger.verify(head)
    assert found is not None
    assert (found.seq, found.why) == (2, "entry 2 was changed after it was written")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger SET \"by\" = 'Ann' WHERE seq = 2")
    assert ledger.verify(head) is None
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ledger WHERE seq > 2")
    engine.dispose()
    assert ledger.verify() is None, "a chain alone does not miss its own end"
    found = ledger.verify(head)
    assert found is not None
    assert (found.seq, found.why) == (3, "entries 3 to 4 are missing")


TEXT = st.text(max_size=8)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "seq": st.integers(min_value=-1, max_value=9) | TEXT,
    **dict.fromkeys(
        ("portfolio", "at", "alias", "event", "by", "reason", "evidence", "hash"), TEXT
    ),
    "previous_hash": TEXT | st.just("0" * 64),
    "from_version": st.none() | TEXT,
    "to_version": st.none() | TEXT,
}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return written(Ledger(Home(tmp_path_factory.mktemp("home"), "sqlite://"), "book"))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 3), field=st.sampled_from(sorted(CHANGES)), data=st.data())
def test_any_change_of_any_field_of_any_entry_is_found(history: list[Entry], place, field, data):
    value = data.draw(CHANGES[field])
    changed = list(history)
    changed[place] = dataclasses.replace(history[place], **{field: value})
    head = (4, history[3].hash)
    found = first_break("book", changed, head)
    assert (found is None) == (changed == history)
    if found:
        assert found.seq in (place + 1, place + 2)  # a hash is missed by the one that follows


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_entries_taken_out_doubled_or_put_in_another_order_are_found(history: list[Entry], data):
    picked = data.draw(st.lists(st.sampled_from(history), max_size=5))
    head = (4, history[3].hash)
    assert (first_break("book", picked, head) is None) == (picked == history)


def test_one_who_changes_an_entry_and_seals_it_anew_is_found_at_the_next(history: list[Entry]):
    forged = dataclasses.replace(history[1], by="Bob")
    forged = dataclasses.replace(forged, hash=forged.sealed())
    found = first_break("book", [history[0], forged, *history[2:]])
    assert found is not None
    assert found.why == "entry 3 does not follow the entry before it"


def append_many(home: Home, name: str, count: int) -> None:
    for number in range(count):
        Ledger(home, "book").append("proposed", by=name, to_version=str(number))


def test_writers_at_the_same_time_make_one_chain(ledger: Ledger):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=append_many, args=(ledger.home, name, 8)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    entries = ledger.entries()
    assert ledger.verify() is None
    for name in ("a", "b"):
        mine = [entry.to_version for entry in entries if entry.by == name]
        assert mine == [str(number) for number in range(8)]


def hold(home: Home, said: Path) -> None:
    with Ledger(home, "book").moving():
        said.touch()
        time.sleep(60)


def test_one_mover_at_a_time_and_a_dead_one_holds_nobody_up(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.2)
    said = tmp_path / "holds"
    other = multiprocessing.get_context("fork").Process(target=hold, args=(ledger.home, said))
    other.start()
    until = time.monotonic() + 30
    while not said.exists() and time.monotonic() < until:
        time.sleep(0.02)
    waited = pytest.raises(LedgerError, match="another move of book's aliases has been going on")
    with waited, ledger.moving():
        pass
    with Ledger(ledger.home, "other_book").moving():
        pass  # another portfolio's champion waits for nobody
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    monkeypatch.setattr(database, "WAIT_SECONDS", 20)
    begin = time.monotonic()
    with ledger.moving():
        ledger.append("proposed", by="me", to_version="1")
    assert time.monotonic() - begin < 5


def test_the_ledger_as_of_a_moment(ledger: Ledger):
    entries = written(ledger)
    moment = dt.datetime.fromisoformat(entries[1].at)
    assert ledger.entries(moment) == entries[:2]
    berlin = moment.astimezone(dt.timezone(dt.timedelta(hours=2)))
    assert ledger.entries(berlin) == entries[:2]
    assert ledger.entries(moment - dt.timedelta(days=1)) == []


def test_a_name_or_reason_is_one_line_that_any_database_keeps(ledger: Ledger):
    entry = ledger.append("proposed", by=" Ann\x00\nLee ", to_version="1", reason="a\tb\udc80")
    assert (entry.by, entry.reason) == ("Ann Lee", "a b")
    assert ledger.verify() is None


def test_a_clock_set_back_does_not_turn_the_order_round(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    first = ledger.append("proposed", by="a", to_version="1")

    class Slow(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) - dt.timedelta(days=1)

    monkeypatch.setattr(dt, "datetime", Slow)
    second = ledger.append("proposed", by="a", to_version="2")
    assert second.at == first.at


def story(*events: tuple[str, str | None]) -> list[Entry]:
    """Entries that name what happened and the version it leads to."""
    return [
        Entry(number, "book", f"2026-01-0{number}", "champion", event, None, to, "x", "", "{}", "")  # type: ignore[arg-type]
        for number, (event, to) in enumerate(events, start=1)
    ]


P, R, H = "promoted", "rolled_back", "moved_by_hand"


@pytest.mark.parametrize(
    ("events", "champion", "line", "withdrawn"),
    [
        ([], None, (), set()),
        ([(P, "1"), (P, "2")], "2", ("1", "2"), set()),
        ([("refused", "1"), ("promoting", "2")], None, (), set()),
        ([(P, "1"), (P, "2"), (P, "3"), (R, "2")], "2", ("1", "2"), {"3"}),
        ([(P, "1"), (P, "2"), (P, "3"), (R, "1")], "1", ("1",), {"3"}),
        ([(P, "1"), (P, "2"), (P, "1"), (R, "2")], "2", ("1", "2"), {"1"}),
        ([(P, "1"), (P, "2"), (R, "1"), (R, "2")], "2", ("1", "2"), {"1"}),
        ([(P, "1"), (P, "2"), (R, "1"), (P, "2")], "2", ("1", "2"), set()),
        ([(P, "1"), (H, "2"), ("adopted", "2")], "2", ("1", "2"), set()),
        ([(P, "1"), (H, "2"), ("put_back", "1")], "1", ("1",), set()),
        ([(P, "1"), (H, None), ("adopted", None)], None, ("1",), set()),
        ([(P, "1"), (H, "2"), (R, "1")], "1", ("1",), {"2"}),
    ],
)
def test_entries_add_up_to_the_champion_and_the_way_back(events, champion, line, withdrawn):
    now = standing(story(*events))
    assert (now.champion, now.line, set(now.withdrawn)) == (champion, line, withdrawn)
    assert now.by_hand is None


def test_an_entry_of_an_earlier_release_is_still_as_it_was_written():
    """A field more in what is sealed would make every ledger there is look forged."""
    old = Entry(
        seq=1,
        portfolio="book",
        at="2026-01-31T12:00:00.000000+00:00",
        alias="champion",
        event="promoted",
        from_version=None,
        to_version="1",
        by="Ann",
        reason="a gain",
        evidence='{"began":1}',
        previous_hash="0" * 64,
        hash="4a09fd5070ecefaf301cb191f92f54ea887d068ac9247a534e6c068e09917075",
    )
    assert first_break("book", [old]) is None


def test_moves_of_the_challenger_leave_the_champion_and_what_it_waits_for_as_they_are():
    events = story((P, "1"), ("requested", "2"), ("naming", "3"), ("named", "3"), (H, "2"))
    moves = [dataclasses.replace(one, alias="challenger") if one.seq > 2 else one for one in events]
    begun, named, strayed = (standing(moves[:upto]) for upto in (3, 4, 5))
    assert begun.intent == moves[2]
    for now in (named, strayed):
        assert (now.champion, now.served, now.line, now.intent) == ("1", "1", ("1",), None)
        assert now.request == moves[1]
        assert now.by_hand is None
    assert (named.challenger, strayed.challenger) == (moves[3], moves[4])


def test_entries_add_up_to_what_is_still_open():
    asked = standing(story((P, "1"), ("requested", "2")))
    assert asked.request is not None
    assert asked.request.to_version == "2"
    assert standing(story((P, "1"), ("requested", "2"), (R, "1"))).request is None
    begun = standing(story((P, "1"), ("promoting", "2")))
    assert begun.intent is not None
    assert begun.champion == "1"
    assert standing(story((P, "1"), ("promoting", "2"), ("abandoned", "2"))).intent is None
    by_hand = standing(story((P, "1"), (H, "2")))
    assert (by_hand.champion, by_hand.served) == ("1", "2")
