"""Moves the aliases, and writes every move down: before it is made, and after.

A move is three steps: an entry that says what is about to happen, the alias (one write in MLflow,
after the bundle was loaded and proved), an entry that says it happened. Whoever dies between two of
them leaves an open entry; the next one here, a person's command or `reconcile`, finishes it first.
So an alias always names a version that was loaded once, and the ledger always catches up.

One mover at a time (`Ledger.moving`). An alias that is not where the ledger has it was moved by
hand: that is written down too. A champion is then adopted or put back by `reconcile`; a challenger
stays, since nothing is served by it, and the verdict on it names its version.

Here: challenge, promote, request, approve, rollback, reconcile, and what stands against a move. Not
here: the verdict on a challenger (`promotion`), the entries (`ledger`), MLflow (`models`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from loan_platform.model.bundle import BundleError
from loan_platform.registry.ledger import CLOSING, Entry, Event, Ledger, Standing
from loan_platform.registry.models import Registry
from loan_platform.registry.versions import BUNDLE_HASH_TAG, Alias, RegistryError

HEAD_TAG = "ledger_head"
WATCH = "loan-platform/champion watch"
UNKNOWN = "unknown"
BY_HAND = "the alias was moved in MLflow, and the ledger was not told"


class MoveError(RegistryError):
    """A move that is not made: says why, and what would be needed."""


def challenge(
    registry: Registry,
    ledger: Ledger,
    version: str,
    *,
    by: str,
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Entry:
    """Make a version the challenger; gives the entry that says so. Again is harmless.

    Raises:
        MoveError: there is no such version, or its bundle cannot be loaded.
        LedgerError: another move goes on and does not end.
    """
    with ledger.moving():
        now, _ = _caught_up(registry, ledger)
        if now.challenger and now.challenger.to_version == version:
            return now.challenger
        return _move(
            registry,
            ledger,
            "naming",
            registry.version_of("challenger"),
            version,
            by=by,
            reason=reason,
            evidence={**(evidence or {}), "bundle_hash": _bundle_hash(registry, version)},
            alias="challenger",
        )


def judged(
    registry: Registry,
    ledger: Ledger,
    version: str,
    *,
    in_favour: bool,
    champion_before: str | None,
    by: str,
    reasons: Sequence[str],
    evidence: Mapping[str, Any],
) -> Entry:
    """Write down a verdict that moves nothing: a refusal, or a proposal left to a person.

    `champion_before`: the version it was judged against, None where there was none.
    """
    with ledger.moving():
        _caught_up(registry, ledger)
        return _write(
            registry,
            ledger,
            "proposed" if in_favour else "refused",
            by=by,
            from_version=champion_before,
            to_version=version,
            reason="; ".join(reasons),
            evidence=evidence,
        )


def promote(
    registry: Registry,
    ledger: Ledger,
    version: str,
    *,
    by: str,
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
    despite: str | None = None,
) -> Entry:
    """Make a version champion; gives the entry `promoted`. A move that was cut short is finished.

    `evidence`: a verdict in favour that was just reached; its `champion_before` is the version it
    was judged against. Without it the ledger's last verdict on the version counts. `despite`: why
    to promote although something stands against it.

    Raises:
        MoveError: it is champion already, there is no such version, something stands against it
            and `despite` is not given, or its bundle cannot be loaded.
        LedgerError: another move goes on and does not end.
    """
    with ledger.moving():
        now, closed = _caught_up(registry, ledger)
        if closed and closed.event == "promoted" and closed.to_version == version:
            return closed
        facts = _admitted(registry, now, version, evidence, despite)
        return _move(
            registry,
            ledger,
            "promoting",
            now.served,
            version,
            by=by,
            reason=reason or despite or "",
            evidence={**(evidence or {}), **facts},
        )


def request(
    registry: Registry,
    ledger: Ledger,
    version: str,
    *,
    by: str,
    reason: str = "",
    despite: str | None = None,
) -> Entry:
    """Ask for a promotion that somebody else approves; a request before it is replaced.

    Raises:
        MoveError, BundleError, LedgerError: as `promote`.
    """
    with ledger.moving():
        now, _ = _caught_up(registry, ledger)
        facts = _admitted(registry, now, version, None, despite)
        registry.load(version)
        return _write(
            registry,
            ledger,
            "requested",
            by=_somebody(by),
            from_version=now.champion,
            to_version=version,
            reason=reason or despite or "",
            evidence={**facts, "challenger": registry.version_of("challenger")},
        )


def approve(registry: Registry, ledger: Ledger, *, by: str, reason: str = "") -> Entry:
    """Promote what somebody else requested; gives the entry `promoted`.

    Raises:
        MoveError: nothing is requested, the same person asked, a newer version came or something
            stands against the version since, or its bundle cannot be loaded.
        LedgerError: another move goes on and does not end.
    """
    with ledger.moving():
        now, closed = _caught_up(registry, ledger)
        if closed and closed.event == "promoted":
            return closed
        asked = now.request
        if asked is None:
            raise MoveError(
                f"nothing is requested for {ledger.portfolio}: a request ends with any move of the "
                f"champion; ask again with loan-platform promote {ledger.portfolio}"
            )
        if same_person(asked.by, by):
            raise MoveError(
                f"{asked.by} asked for version {asked.to_version}, so somebody else has to approve "
                "it; give another name with --by"
            )
        version = str(asked.to_version)
        newest = registry.version_of("challenger")
        if asked.facts["challenger"] != newest:
            raise MoveError(
                f"version {newest} was trained since {asked.by} asked for version {version}; look "
                f"at it and ask again with loan-platform promote {ledger.portfolio}"
            )
        facts = _admitted(registry, now, version, None, asked.facts.get("despite"))
        if facts["bundle_hash"] != asked.facts["bundle_hash"]:
            raise MoveError(
                f"version {version} is another bundle than the one {asked.by} asked for; ask again "
                f"with loan-platform promote {ledger.portfolio}"
            )
        objection = facts.get("objection")
        if objection and objection != asked.facts.get("objection"):
            raise MoveError(
                f"since {asked.by} asked for version {version}: {objection}; ask again with "
                f"loan-platform promote {ledger.portfolio}"
            )
        return _move(
            registry,
            ledger,
            "promoting",
            now.served,
            version,
            by=by,
            reason=reason or f"as {asked.by} requested: {asked.reason or 'no reason given'}",
            evidence={**facts, "request": asked.seq, "requested_by": asked.by},
        )


def rollback(
    registry: Registry, ledger: Ledger, *, by: str, reason: str = "", to: str | None = None
) -> Entry:
    """Go back to the champion before the present one, or to an earlier one; gives `rolled_back`.

    The version that is left is not promoted again by itself.

    Raises:
        MoveError: there is none before, `to` never was champion, or its bundle cannot be loaded.
        LedgerError: another move goes on and does not end.
    """
    with ledger.moving():
        now, closed = _caught_up(registry, ledger)
        if closed and closed.event == "rolled_back" and to in (None, closed.to_version):
            return closed
        target = to or next((one for one in reversed(now.line) if one != now.served), None)
        if target is None:
            raise MoveError(
                f"{ledger.portfolio} has no champion to go back to; promote another version with "
                f"loan-platform promote {ledger.portfolio} --version V"
            )
        if target == now.served:
            raise MoveError(f"version {target} is the champion of {ledger.portfolio} already")
        been = {one.to_version for one in ledger.entries() if one.event in CHAMPION_SINCE}
        if target not in been:
            raise MoveError(
                f"version {target} never was champion of {ledger.portfolio}; promote it with "
                f"loan-platform promote {ledger.portfolio} --version {target}"
            )
        facts = {"bundle_hash": _bundle_hash(registry, target)}
        return _move(
            registry,
            ledger,
            "rolling_back",
            now.served,
            target,
            by=by,
            reason=reason,
            evidence=facts,
        )


def reconcile(
    registry: Registry, ledger: Ledger, setting: Literal["put_back", "adopt"]
) -> list[Entry]:
    """Finish what was cut short, and adopt or put back a champion moved by hand; gives the entries.

    Cheap where nothing is to be done. A hand-made champion that cannot be loaded is put back
    whatever the setting; one is adopted where there is nothing that could be put back.

    Raises:
        MoveError: neither of the two versions can be loaded, or the ledger is not as it was
            written: then it is no guide to what should be champion.
        LedgerError: another move goes on and does not end.
    """
    now = ledger.standing()
    in_place = registry.version_of("champion") == now.champion and not _strayed(registry, now)
    if in_place and not (now.intent or now.by_hand):
        return []
    with ledger.moving():
        if broken := ledger.verify(chain_head(registry)):
            raise MoveError(
                f"the ledger of {ledger.portfolio} is not as it was written ({broken.why}), so "
                f"nothing is done by it; look at loan-platform history {ledger.portfolio}"
            )
        known = len(ledger.entries())
        now, _ = _caught_up(registry, ledger)
        if now.by_hand:
            _settle(registry, ledger, now, now.by_hand, setting)
        return ledger.entries()[known:]


def same_person(one: str, other: str) -> bool:
    """Whether two names are one, whatever their case and spaces."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def chain_head(registry: Registry) -> tuple[int, str] | None:
    """Number and hash of the newest entry that MLflow knows of, as `Ledger.verify` takes it."""
    from mlflow.exceptions import MlflowException

    try:
        tags = registry.client.get_registered_model(registry.portfolio).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    number, _, seal = tags.get(HEAD_TAG, "").partition(" ")
    return (int(number), seal) if seal else None


CHAMPION_SINCE = ("promoted", "rolled_back", "put_back", "adopted")


def _caught_up(registry: Registry, ledger: Ledger) -> tuple[Standing, Entry | None]:
    """Finish an open move and note those made by hand: the standing, and the entry that closed."""
    now, closed = ledger.standing(), None
    if now.intent:
        closed = _finish(registry, ledger, now.intent)
        now = ledger.standing()
    if now.challenger and _strayed(registry, now):
        _write(
            registry,
            ledger,
            "moved_by_hand",
            by=UNKNOWN,
            from_version=now.challenger.to_version,
            to_version=registry.version_of("challenger"),
            reason=BY_HAND,
            alias="challenger",
        )
        now = ledger.standing()
    found = registry.version_of("champion")
    if found == now.served:
        return now, closed
    again = now.by_hand is not None and found == now.champion
    _write(
        registry,
        ledger,
        "put_back" if again else "moved_by_hand",
        by=UNKNOWN,
        from_version=now.served,
        to_version=found,
        reason=BY_HAND,
    )
    return ledger.standing(), closed


def _strayed(registry: Registry, now: Standing) -> bool:
    """Whether the challenger is not where the ledger has it, if the ledger has one at all."""
    named = now.challenger
    return named is not None and registry.version_of("challenger") != named.to_version


def _admitted(
    registry: Registry,
    now: Standing,
    version: str,
    evidence: Mapping[str, Any] | None,
    despite: str | None,
) -> dict[str, Any]:
    """What is written beside a promotion: the bundle, the verdict, and what it is done despite."""
    facts: dict[str, Any] = {"bundle_hash": _bundle_hash(registry, version)}
    if version == now.served and not now.by_hand:
        raise MoveError(f"version {version} is the champion of {registry.portfolio} already")
    if evidence is None and (verdict := now.verdicts.get(version)):
        facts["verdict"] = verdict.seq
    objection = _objection(registry.portfolio, now, version, evidence)
    if objection and not despite:
        raise MoveError(
            f"{objection}; to promote it all the same, say why with --despite 'the reason'"
        )
    return facts | ({"despite": despite, "objection": objection} if objection else {})


def _objection(
    portfolio: str, now: Standing, version: str, evidence: Mapping[str, Any] | None
) -> str | None:
    """What stands against promoting a version."""
    if left := now.withdrawn.get(version):
        why = f" ({left.reason})" if left.reason else ""
        return f"{left.by} rolled back from version {version} on {left.at[:10]}{why}"
    judge_it = f"materialize {portfolio}/champion to judge the newest version"
    verdict = now.verdicts.get(version)
    if evidence is not None:
        against = evidence.get("champion_before")
    elif verdict is None:
        return f"no verdict on version {version} is in the ledger; {judge_it}"
    elif verdict.event == "refused":
        return f"version {version} was refused: {verdict.reason}"
    else:
        against = verdict.from_version
    if against != now.champion:
        return (
            f"version {version} was judged against {_named(against)}, and the champion is "
            f"{_named(now.champion)}; {judge_it}"
        )
    return None


def _settle(
    registry: Registry, ledger: Ledger, now: Standing, by_hand: Entry, setting: str
) -> None:
    """Adopt a champion made by hand, or put back the one before."""
    # Before its first entry a ledger knows nothing that could be put back.
    wish = "adopt" if by_hand.seq == 1 else setting
    problems: list[str] = []
    for way in (wish, "put_back" if wish == "adopt" else "adopt"):
        target = by_hand.to_version if way == "adopt" else now.champion
        why = f"promotion.alias_moved_by_hand: {setting}"
        if way != setting:
            why += f"; {problems[0]}" if problems else "; the ledger has nothing before it"
        try:
            if target is not None:
                registry.load(target)
        except (BundleError, RegistryError) as problem:
            problems.append(str(problem))
            continue
        if way == "put_back":
            _move(
                registry,
                ledger,
                "putting_back",
                now.served,
                target,
                by=WATCH,
                reason=why,
                evidence={},
            )
        else:
            _write(
                registry,
                ledger,
                "adopted",
                by=WATCH,
                from_version=now.champion,
                to_version=target,
                reason=why,
                evidence={"bundle_hash": _bundle_hash(registry, target)} if target else {},
            )
        return
    raise MoveError(
        f"the champion of {ledger.portfolio} was moved by hand, and can neither be adopted nor put "
        f"back: {'; '.join(problems)}"
    )


def _move(
    registry: Registry,
    ledger: Ledger,
    event: Event,
    before: str | None,
    version: str | None,
    *,
    by: str,
    reason: str,
    evidence: Mapping[str, Any],
    alias: Alias = "champion",
) -> Entry:
    """The three steps, from the version `before`; gives the entry that closes the move."""
    intent = _write(
        registry,
        ledger,
        event,
        by=_somebody(by),
        from_version=before,
        to_version=version,
        reason=reason,
        evidence=evidence,
        alias=alias,
    )
    closed = _finish(registry, ledger, intent)
    if closed.event == "abandoned":
        raise MoveError(f"{closed.reason}; the {alias} stays {_named(before)}")
    return closed


def _finish(registry: Registry, ledger: Ledger, intent: Entry) -> Entry:
    """Point the alias where an open entry says, unless it is there, and close the entry."""
    target = intent.to_version
    found = registry.version_of(intent.alias)
    problem = None
    if found not in (target, intent.from_version):
        problem = f"the alias was moved to {_named(found)} meanwhile"
    elif found != target:
        try:
            if target is None:
                registry.client.delete_registered_model_alias(registry.portfolio, intent.alias)
            else:
                registry.promote(target, intent.alias)
        except (BundleError, RegistryError) as error:
            problem = f"{_named(target)} cannot be loaded: {error}"
    return _write(
        registry,
        ledger,
        "abandoned" if problem else CLOSING[intent.event],
        by=intent.by,
        from_version=intent.from_version,
        to_version=target,
        reason=problem or intent.reason,
        evidence={"began": intent.seq},
        alias=intent.alias,
    )


def _write(
    registry: Registry,
    ledger: Ledger,
    event: Event,
    *,
    by: str,
    from_version: str | None,
    to_version: str | None,
    reason: str,
    evidence: Mapping[str, Any] | None = None,
    alias: Alias = "champion",
) -> Entry:
    """Append an entry, and tell MLflow which is the last: a cut end of the ledger is seen there."""
    entry = ledger.append(
        event,
        by=by,
        from_version=from_version,
        to_version=to_version,
        reason=reason,
        evidence=evidence,
        alias=alias,
    )
    registry.client.set_registered_model_tag(
        registry.portfolio, HEAD_TAG, f"{entry.seq} {entry.hash}"
    )
    return entry


def _bundle_hash(registry: Registry, version: str) -> str | None:
    """The hash of a version's bundle; it tells the version from one of another registry.

    Raises:
        MoveError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = registry.client.get_model_version(registry.portfolio, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        made = registry.client.search_model_versions(f"name = '{registry.portfolio}'")
        numbers = sorted(int(one.version) for one in made)
        which = f"the versions are {', '.join(map(str, numbers))}" if numbers else "none is trained"
        raise MoveError(f"{registry.portfolio} has no version {version}; {which}") from error
    seal: str | None = found.tags.get(BUNDLE_HASH_TAG)
    return seal


def _somebody(by: str) -> str:
    if not by.strip():
        raise MoveError("who moves an alias has a name; give it with --by")
    return by


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"
