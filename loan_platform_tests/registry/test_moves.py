"""Moving the aliases: modes, refusals, the way back, moves by hand, and two movers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from loan_platform.registry import moves
from loan_platform.registry.ledger import Entry, Ledger
from loan_platform.registry.models import Registry
from loan_platform.registry.moves import MoveError
from loan_platform_tests.registry.made import add_version, damage, move_by_hand
from loan_platform_tests.registry.made import saved as saved


@pytest.fixture
def ledger(registry: Registry) -> Ledger:
    return Ledger(registry.home, registry.portfolio)


@pytest.fixture
def three(registry: Registry, saved: Path) -> list[str]:
    """Three versions; the newest is the challenger, none the champion."""
    return [add_version(registry, saved) for _ in range(3)]


def promote(registry: Registry, ledger: Ledger, version: str) -> Entry:
    """As the champion asset does on a verdict in favour."""
    against = ledger.standing().champion
    return moves.promote(
        registry,
        ledger,
        version,
        by="asset",
        reason="a gain",
        evidence={"champion_before": against, "auc_gain": 0.01},
    )


def propose(registry: Registry, ledger: Ledger, version: str, in_favour: bool = True) -> Entry:
    return moves.judged(
        registry,
        ledger,
        version,
        in_favour=in_favour,
        champion_before=ledger.standing().champion,
        by="asset",
        reasons=["AUC gains 0.01" if in_favour else "its AUC is 0.02 below the floor"],
        evidence={"rows": 900},
    )


def challenge(registry: Registry, ledger: Ledger, version: str) -> Entry:
    """As the asset trained_model does with what it registered."""
    return moves.challenge(registry, ledger, version, by="training", evidence={"auc": 0.8})


def events(ledger: Ledger) -> list[str]:
    return [entry.event for entry in ledger.entries()]


def whole(registry: Registry, ledger: Ledger) -> bool:
    """The chain holds, its end is the one MLflow knows, and the alias is where it says."""
    return (
        ledger.verify(moves.chain_head(registry)) is None
        and registry.version_of("champion") == ledger.standing().champion
    )


def test_a_promotion_is_written_before_and_after_with_its_evidence(
    registry: Registry, ledger: Ledger, three: list[str]
):
    done = promote(registry, ledger, "2")
    assert registry.version_of("champion") == "2"
    begun, ended = ledger.entries()
    assert ended == done
    assert (begun.event, ended.event) == ("promoting", "promoted")
    assert (ended.from_version, ended.to_version, ended.by) == (None, "2", "asset")
    assert begun.facts["auc_gain"] == 0.01
    bundle_hash = registry.client.get_model_version("home_loans", "2").tags["bundle_hash"]
    assert begun.facts["bundle_hash"] == bundle_hash
    assert ended.facts == {"began": 1}
    assert whole(registry, ledger)
    with pytest.raises(MoveError, match="version 2 is the champion of home_loans already"):
        promote(registry, ledger, "2")
    with pytest.raises(MoveError, match="home_loans has no version 9; the versions are 1, 2, 3"):
        promote(registry, ledger, "9")
    with pytest.raises(MoveError, match="home_loans has no version best; the versions are"):
        promote(registry, ledger, "best")
    with pytest.raises(MoveError, match="has a name; give it with --by"):
        moves.promote(registry, ledger, "3", by=" ", evidence={"champion_before": "2"})
    assert len(ledger.entries()) == 2


def test_a_challenger_is_named_before_and_after_with_its_evidence_and_once(
    registry: Registry, ledger: Ledger, saved: Path
):
    for version in ("1", "2"):
        assert add_version(registry, saved, challenger=False) == version
        named = challenge(registry, ledger, version)
        assert registry.version_of("challenger") == version
    begun, ended = ledger.entries()[2:]
    assert ended == named == challenge(registry, ledger, "2")
    assert (begun.event, ended.event) == ("naming", "named")
    assert {begun.alias, ended.alias} == {"challenger"}
    assert (ended.from_version, ended.to_version, ended.by) == ("1", "2", "training")
    bundle_hash = registry.client.get_model_version("home_loans", "2").tags["bundle_hash"]
    assert begun.facts == {"auc": 0.8, "bundle_hash": bundle_hash}
    assert ended.facts == {"began": begun.seq}
    assert len(ledger.entries()) == 4, "again is harmless"
    with pytest.raises(MoveError, match="home_loans has no version 9"):
        challenge(registry, ledger, "9")
    promote(registry, ledger, "2")
    assert whole(registry, ledger)
    with pytest.raises(MoveError, match="version 1 never was champion of home_loans"):
        moves.rollback(registry, ledger, by="Ann", to="1")


def test_a_version_that_cannot_be_loaded_does_not_become_challenger(
    registry: Registry, ledger: Ledger, saved: Path
):
    challenge(registry, ledger, add_version(registry, saved, challenger=False))
    damage(registry, add_version(registry, saved, challenger=False))
    with pytest.raises(
        MoveError, match=r"version 2 cannot be loaded: .*challenger stays version 1"
    ):
        challenge(registry, ledger, "2")
    assert registry.version_of("challenger") == "1"
    assert events(ledger)[2:] == ["naming", "abandoned"]


def test_a_ledger_from_before_challengers_were_in_it_goes_on(
    registry: Registry, ledger: Ledger, three: list[str], saved: Path
):
    promote(registry, ledger, "1")
    assert moves.reconcile(registry, ledger, "put_back") == [], "version 3 was not moved by hand"
    named = challenge(registry, ledger, add_version(registry, saved, challenger=False))
    assert (named.from_version, named.to_version) == ("3", "4")
    assert events(ledger) == ["promoting", "promoted", "naming", "named"]
    assert whole(registry, ledger)


def test_a_challenger_moved_by_hand_is_written_down_and_stays(
    registry: Registry, ledger: Ledger, three: list[str]
):
    challenge(registry, ledger, "3")
    promote(registry, ledger, "3")
    move_by_hand(registry, "1", "challenger")
    (noted,) = moves.reconcile(registry, ledger, "put_back")
    assert (noted.event, noted.alias, noted.by) == ("moved_by_hand", "challenger", "unknown")
    assert (noted.from_version, noted.to_version) == ("3", "1")
    assert moves.reconcile(registry, ledger, "put_back") == []
    assert registry.version_of("challenger") == "1"
    registry.client.delete_registered_model_alias("home_loans", "challenger")
    propose(registry, ledger, "2")
    assert events(ledger)[-2:] == ["moved_by_hand", "proposed"]
    assert whole(registry, ledger)


@pytest.mark.parametrize("reached", [False, True])
def test_a_challenger_begun_to_be_named_is_named_by_whoever_comes_next(
    registry: Registry, ledger: Ledger, three: list[str], reached: bool
):
    """As a training leaves it that died before, or after, the alias was moved."""
    ledger.append("naming", by="x", from_version="3", to_version="2", alias="challenger")
    if reached:
        move_by_hand(registry, "2", "challenger")
    done = promote(registry, ledger, "1")
    assert (done.alias, done.to_version) == ("champion", "1")
    assert registry.version_of("challenger") == "2"
    assert events(ledger) == ["naming", "named", "promoting", "promoted"]
    assert {one.alias for one in ledger.entries()[:2]} == {"challenger"}
    assert whole(registry, ledger)


def test_a_version_that_cannot_be_loaded_is_not_promoted(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    damage(registry, "2")
    with pytest.raises(MoveError, match=r"version 2 cannot be loaded: .*stays version 1"):
        promote(registry, ledger, "2")
    assert events(ledger)[2:] == ["promoting", "abandoned"]
    assert whole(registry, ledger)
    promote(registry, ledger, "3")
    assert registry.version_of("champion") == "3"


def test_a_person_promotes_what_a_verdict_is_in_favour_of(
    registry: Registry, ledger: Ledger, three: list[str]
):
    verdict = propose(registry, ledger, "3")
    done = moves.promote(registry, ledger, "3", by="Ann", reason="looks right")
    assert (done.by, done.reason) == ("Ann", "looks right")
    assert ledger.entries()[1].facts["verdict"] == verdict.seq
    assert whole(registry, ledger)


def test_promoting_against_the_evidence_needs_a_reason_that_is_kept(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    propose(registry, ledger, "3", in_favour=False)
    with pytest.raises(MoveError, match=r"version 3 was refused: its AUC is 0\.02 below"):
        moves.promote(registry, ledger, "3", by="Ann")
    with pytest.raises(MoveError, match="no verdict on version 2 is in the ledger"):
        moves.promote(registry, ledger, "2", by="Ann")
    moves.promote(registry, ledger, "3", by="Ann", despite="the regulator asked for it")
    begun = ledger.entries()[-2]
    assert begun.reason == "the regulator asked for it"
    assert begun.facts["despite"] == "the regulator asked for it"
    assert begun.facts["objection"].startswith("version 3 was refused: ")
    assert whole(registry, ledger)


def test_a_verdict_counts_only_against_the_champion_it_was_reached_with(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    propose(registry, ledger, "3")
    promote(registry, ledger, "2")
    with pytest.raises(MoveError, match=r"judged against version 1, and the champion is version 2"):
        moves.promote(registry, ledger, "3", by="Ann")
    with pytest.raises(MoveError, match=r"judged against version 1, and the champion is version 2"):
        moves.promote(registry, ledger, "3", by="asset", evidence={"champion_before": "1"})
    assert registry.version_of("champion") == "2"


def test_two_persons_are_needed_for_what_one_requests(
    registry: Registry, ledger: Ledger, three: list[str]
):
    with pytest.raises(MoveError, match="nothing is requested for home_loans"):
        moves.approve(registry, ledger, by="Bob")
    propose(registry, ledger, "3")
    asked = moves.request(registry, ledger, "3", by="Ann Lee", reason="it earns more")
    assert registry.version_of("champion") is None
    for same in ("Ann Lee", "ann lee", " ANN  LEE", "AnnLee", "Ａnn Lee"):  # noqa: RUF001
        with pytest.raises(MoveError, match="Ann Lee asked for version 3, so somebody else has to"):
            moves.approve(registry, ledger, by=same)
    done = moves.approve(registry, ledger, by="Bob")
    assert done.by == "Bob"
    assert done.reason == "as Ann Lee requested: it earns more"
    begun = ledger.entries()[-2]
    assert (begun.facts["request"], begun.facts["requested_by"]) == (asked.seq, "Ann Lee")
    assert registry.version_of("champion") == "3"
    assert whole(registry, ledger)
    with pytest.raises(MoveError, match="nothing is requested"):
        moves.approve(registry, ledger, by="Bob")


def test_a_request_ends_when_what_it_was_about_has_changed(
    registry: Registry, ledger: Ledger, three: list[str], saved: Path
):
    propose(registry, ledger, "3")
    moves.request(registry, ledger, "3", by="Ann")
    propose(registry, ledger, "3", in_favour=False)
    with pytest.raises(MoveError, match="3 was refused"):
        moves.approve(registry, ledger, by="Bob")
    propose(registry, ledger, "3")
    damage(registry, "3")
    with pytest.raises(MoveError, match="version 3 cannot be loaded"):
        moves.approve(registry, ledger, by="Bob")
    newest = add_version(registry, saved)
    with pytest.raises(MoveError, match="version 4 was trained since Ann asked for version 3"):
        moves.approve(registry, ledger, by="Bob")
    promote(registry, ledger, newest)
    with pytest.raises(MoveError, match="nothing is requested"):
        moves.approve(registry, ledger, by="Bob")
    assert whole(registry, ledger)


def test_asking_for_what_stands_against_the_evidence_is_approved_with_open_eyes(
    registry: Registry, ledger: Ledger, three: list[str]
):
    propose(registry, ledger, "3", in_favour=False)
    with pytest.raises(MoveError, match="3 was refused"):
        moves.request(registry, ledger, "3", by="Ann")
    moves.request(registry, ledger, "3", by="Ann", despite="there is no other")
    moves.approve(registry, ledger, by="Bob")
    begun = ledger.entries()[-2]
    assert begun.facts["despite"] == "there is no other"


def test_rolling_back_goes_the_line_back_and_to_a_chosen_champion(
    registry: Registry, ledger: Ledger, three: list[str], saved: Path
):
    with pytest.raises(MoveError, match="home_loans has no champion to go back to"):
        moves.rollback(registry, ledger, by="Ann")
    for version in three:
        promote(registry, ledger, version)
    done = moves.rollback(registry, ledger, by="Ann", reason="complaints")
    assert (done.event, done.from_version, done.to_version) == ("rolled_back", "3", "2")
    assert registry.version_of("champion") == "2"
    moves.rollback(registry, ledger, by="Ann")
    assert registry.version_of("champion") == "1"
    with pytest.raises(MoveError, match="has no champion to go back to"):
        moves.rollback(registry, ledger, by="Ann")
    with pytest.raises(MoveError, match="version 1 is the champion of home_loans already"):
        moves.rollback(registry, ledger, by="Ann", to="1")
    moves.rollback(registry, ledger, by="Ann", to="3")
    assert registry.version_of("champion") == "3"
    add_version(registry, saved)
    with pytest.raises(MoveError, match="version 4 never was champion of home_loans; promote it"):
        moves.rollback(registry, ledger, by="Ann", to="4")
    assert whole(registry, ledger)


def test_a_version_that_was_rolled_back_from_is_not_promoted_by_itself_again(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    promote(registry, ledger, "2")
    moves.rollback(registry, ledger, by="Ann", reason="complaints")
    with pytest.raises(MoveError, match=r"Ann rolled back from version 2 on 20.* \(complaints\)"):
        promote(registry, ledger, "2")
    moves.promote(registry, ledger, "2", by="Ann", despite="they were about something else")
    moves.rollback(registry, ledger, by="Ann")
    promote(registry, ledger, "3")
    assert whole(registry, ledger)


def test_a_move_by_hand_is_put_back(registry: Registry, ledger: Ledger, three: list[str]):
    promote(registry, ledger, "1")
    assert moves.reconcile(registry, ledger, "put_back") == []
    move_by_hand(registry, "3")
    noted = moves.reconcile(registry, ledger, "put_back")
    assert [entry.event for entry in noted] == ["moved_by_hand", "putting_back", "put_back"]
    assert (noted[0].from_version, noted[0].to_version, noted[0].by) == ("1", "3", "unknown")
    assert noted[2].reason == "promotion.alias_moved_by_hand: put_back"
    assert registry.version_of("champion") == "1"
    registry.client.delete_registered_model_alias("home_loans", "champion")
    moves.reconcile(registry, ledger, "put_back")
    assert registry.version_of("champion") == "1"
    assert moves.reconcile(registry, ledger, "put_back") == []
    assert whole(registry, ledger)


def test_a_move_by_hand_is_adopted(registry: Registry, ledger: Ledger, three: list[str]):
    promote(registry, ledger, "1")
    move_by_hand(registry, "3")
    noted = moves.reconcile(registry, ledger, "adopt")
    assert [entry.event for entry in noted] == ["moved_by_hand", "adopted"]
    assert registry.version_of("champion") == "3"
    assert whole(registry, ledger)
    moves.rollback(registry, ledger, by="Ann")
    assert registry.version_of("champion") == "1"


def test_a_champion_made_by_hand_where_none_was_is_put_back_to_none(
    registry: Registry, ledger: Ledger, three: list[str]
):
    propose(registry, ledger, "3", in_favour=False)
    move_by_hand(registry, "3")
    moves.reconcile(registry, ledger, "put_back")
    assert registry.version_of("champion") is None
    assert whole(registry, ledger)


def test_a_champion_from_before_the_ledger_is_adopted(
    registry: Registry, ledger: Ledger, three: list[str]
):
    move_by_hand(registry, "2")
    noted = moves.reconcile(registry, ledger, "put_back")
    assert [entry.event for entry in noted] == ["moved_by_hand", "adopted"]
    assert noted[1].reason.endswith("; the ledger has nothing before it")
    assert registry.version_of("champion") == "2"


def test_what_cannot_be_loaded_is_neither_adopted_nor_put_back(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    damage(registry, "3")
    move_by_hand(registry, "3")
    moves.reconcile(registry, ledger, "adopt")
    assert registry.version_of("champion") == "1"
    assert "damaged" in ledger.entries()[-1].reason or "bundle" in ledger.entries()[-1].reason
    damage(registry, "1")
    move_by_hand(registry, "2")
    moves.reconcile(registry, ledger, "put_back")
    assert registry.version_of("champion") == "2", "the ledger's champion is damaged"
    assert ledger.entries()[-1].event == "adopted"
    damage(registry, "2")
    move_by_hand(registry, "1")
    for _ in range(2):
        with pytest.raises(MoveError, match="can neither be adopted nor put back"):
            moves.reconcile(registry, ledger, "put_back")
    assert events(ledger)[-1] == "moved_by_hand", "trying again writes nothing more"


def test_one_who_moves_it_back_himself_is_believed(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    move_by_hand(registry, "3")
    propose(registry, ledger, "2")
    assert "moved_by_hand" in events(ledger)
    move_by_hand(registry, "1")
    moves.reconcile(registry, ledger, "put_back")
    assert events(ledger)[-1] == "put_back"
    assert whole(registry, ledger)


def test_a_command_notes_a_move_by_hand_before_its_own(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    promote(registry, ledger, "2")
    move_by_hand(registry, "3")
    moves.rollback(registry, ledger, by="Ann")
    assert registry.version_of("champion") == "2", "what was champion before the one served"
    assert events(ledger)[-3:] == ["moved_by_hand", "rolling_back", "rolled_back"]
    assert moves.reconcile(registry, ledger, "put_back") == []
    assert whole(registry, ledger)


@pytest.mark.parametrize("reached", [False, True])
def test_an_open_move_is_finished_by_whoever_comes_next(
    registry: Registry, ledger: Ledger, three: list[str], reached: bool
):
    """As a mover leaves it who died before, or after, the alias was moved."""
    promote(registry, ledger, "1")
    promote(registry, ledger, "2")
    ledger.append("rolling_back", by="Ann", from_version="2", to_version="1", reason="complaints")
    if reached:
        move_by_hand(registry, "1")
    done = moves.rollback(registry, ledger, by="Ann")
    assert (done.event, done.to_version, done.reason) == ("rolled_back", "1", "complaints")
    assert registry.version_of("champion") == "1", "finished, not one further back"
    assert events(ledger)[-2:] == ["rolling_back", "rolled_back"]
    assert moves.reconcile(registry, ledger, "put_back") == []
    assert whole(registry, ledger)


def test_an_open_move_gives_way_to_a_move_by_hand(
    registry: Registry, ledger: Ledger, three: list[str]
):
    promote(registry, ledger, "1")
    ledger.append("promoting", by="Ann", from_version="1", to_version="2")
    move_by_hand(registry, "3")
    noted = moves.reconcile(registry, ledger, "put_back")
    assert [entry.event for entry in noted] == [
        "abandoned",
        "moved_by_hand",
        "putting_back",
        "put_back",
    ]
    assert noted[0].reason == "the alias was moved to version 3 meanwhile"
    assert registry.version_of("champion") == "1"
    assert whole(registry, ledger)
