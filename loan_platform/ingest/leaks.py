"""The leak guard: which columns of a book give the outcome away.

Here: the evidence a profile holds, and how strong it must be. Not here: the figures themselves
(`profile`), stopping anything (`training`, the check `no_leak`). Thresholds, and what was measured
to set them: docs/leaks.md.

A column of good loans alone is never suspected: a lender's rule (no loan to whom has defaulted
before) makes such columns, and they are known when the loan is applied for. What goes wrong
afterwards leaves its marks on bad loans: payments stop, charges and settlements are booked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from loan_platform.ingest.profile import ColumnProfile, Profile, Share
from loan_platform.ingest.vocabulary import after_origination

Kind = Literal["outcome", "value", "missing", "group", "date", "name"]

SAME = 0.9999
"""AUC from which a column is the outcome under another name."""
BLOCKED_AUC = 0.95
REVIEWED_AUC = 0.85
"""AUC of a column alone, lower end of its interval. Of the five books' honest columns the best has
0.827; of those after origination that show by it the best has 0.994."""
PURE = 0.95
"""A group of loans of which more than this share is bad, lower end of the interval."""
PURE_ODDS = 10.0
"""And whose odds of a bad outcome are this many times those of all other loans."""
BLOCKED_SHARE = 0.5
"""Share of all bad loans from which such a group gives away the outcome, not a part of it."""
FEWEST = 30
"""Loans of either outcome (of a group: loans) below which nothing is said."""
BLOCKED_LATER = 0.1
REVIEWED_LATER = 0.01
"""Share of a date's values later than the application. Typing errors are rarer."""
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Suspicion:
    """Why a column may give the outcome away.

    `blocked`: no model may learn from it, unless its contract says why (`leak_accepted`).
    `review`: a person should look. `kind`: the strongest evidence; `sentence` names all there is,
    `figures` what was measured, by name.
    """

    column: str
    verdict: Literal["blocked", "review"]
    kind: Kind
    sentence: str
    figures: dict[str, float]


def evidence(profile: Profile) -> list[Suspicion]:
    """Every suspected column of a book, blocked ones first, in the book's order.

    The outcome and the time column are not suspected, nor columns that hold nothing. Without an
    outcome in the profile only names and dates speak.
    """
    found = []
    for column in profile.columns:
        if column.name in (profile.outcome, profile.time) or column.type == "empty":
            continue
        told = list(_told(profile, column))
        if not told:
            continue
        told.sort(key=lambda one: one.verdict != "blocked")
        found.append(
            Suspicion(
                column=column.name,
                verdict=told[0].verdict,
                kind=told[0].kind,
                sentence="; ".join(one.sentence for one in told),
                figures={name: value for one in told for name, value in one.figures.items()},
            )
        )
    return sorted(found, key=lambda one: one.verdict != "blocked")


def as_json(profile: Profile, suspicions: Iterable[Suspicion]) -> str:
    """The profile with its suspected columns, as people and other programs read it."""
    told = [dataclasses.asdict(one) for one in suspicions]
    return json.dumps({**profile.model_dump(mode="json"), "suspicions": told}, indent=1)


def blocked(
    suspicions: Iterable[Suspicion], accepted: Container[str] = frozenset()
) -> list[Suspicion]:
    """Those that no model may learn from; `accepted` ones are answered for by the contract."""
    return [one for one in suspicions if one.verdict == "blocked" and one.column not in accepted]


def mend(columns: Iterable[str]) -> str:
    """What to do about blocked columns of a contract."""
    return (
        f"Give {', '.join(columns)} role: ignored with a reason in the contract; or, if it was "
        "known when the loan was applied for, say how you know: leak_accepted: why."
    )


def _told(profile: Profile, column: ColumnProfile) -> Iterator[Suspicion]:
    if profile.outcome and profile.known:
        yield from _by_value(profile, column)
        missing = list(_by_missing(profile, column))
        yield from missing or _by_group(profile, column)
    yield from _by_date(profile, column)
    yield from _by_name(column)


def _by_value(profile: Profile, column: ColumnProfile) -> Iterator[Suspicion]:
    areas = [area for area in (column.auc_value, column.auc_binned) if area is not None]
    if not areas:
        return
    area = max(areas)
    missing = column.missing_share
    bad = profile.known_bad - (missing.bad if missing else 0)
    good = profile.known - (missing.known if missing else 0) - bad
    low = _lower_auc(area, good, bad)
    verdict = _verdict(low, BLOCKED_AUC, REVIEWED_AUC)
    if verdict is None or min(good, bad) < FEWEST:
        return
    if area >= SAME:
        told = f"its values are the outcome under another name (AUC {area:.4f})"
    else:
        told = (
            f"its values alone rank bad loans above good ones with an AUC of {area:.3f} "
            f"(at least {low:.3f} with {CONFIDENCE:.0%} confidence)"
        )
    yield Suspicion(
        column.name, verdict, "outcome" if area >= SAME else "value", told, {"auc_value": area}
    )


def _by_missing(profile: Profile, column: ColumnProfile) -> Iterator[Suspicion]:
    missing, area = column.missing_share, column.auc_missing
    if area is None or missing is None:
        return
    low = _lower_auc(area, profile.known - profile.known_bad, profile.known_bad)
    verdict = _verdict(low, BLOCKED_AUC, REVIEWED_AUC)
    if verdict is None or min(missing.known, profile.known - missing.known) < FEWEST:
        return
    present = _others(profile, missing)
    yield Suspicion(
        column.name,
        verdict,
        "missing",
        f"whether it is missing tells the outcome (AUC {area:.3f}): {_rate(missing)} without it "
        f"are bad, and {_rate(present)} with it",
        {
            "auc_missing": area,
            "bad_rate_missing": missing.bad / missing.known,
            "bad_rate_present": present.bad / present.known,
        },
    )


def _by_group(profile: Profile, column: ColumnProfile) -> Iterator[Suspicion]:
    """The group of its loans, nearly all of them bad, that holds most bad loans."""
    groups = [(share.value, share) for share in column.categories]
    if column.tail:
        groups.append((column.tail.value, column.tail))
    if missing := column.missing_share:
        groups += [("missing", missing), ("not missing", _others(profile, missing))]
    pure = [
        (low, words, group) for words, group in groups if (low := _pure(profile, group)) is not None
    ]
    if not pure:
        return
    low, words, group = max(pure, key=lambda one: one[2].bad)
    share = group.bad / profile.known_bad
    yield Suspicion(
        column.name,
        "blocked" if share >= BLOCKED_SHARE else "review",
        "group",
        f"where it is {words}, {_rate(group)} are bad, {share:.1%} of all bad loans, against "
        f"{_rate(_others(profile, group))} elsewhere",
        {
            "bad_rate_of_group": group.bad / group.known,
            "bad_rate_of_group_low": low,
            "rows_of_group": float(group.known),
            "share_of_bad": share,
        },
    )


def _pure(profile: Profile, group: Share) -> float | None:
    """Lower end of the bad rate of a group that is nearly all bad; None if it is not."""
    others = _others(profile, group)
    if group.known < FEWEST or not others.known or group.bad <= PURE * group.known:
        return None
    low = _lower_share(group.bad, group.known)
    elsewhere = max(others.bad, 0.5) / max(others.known - others.bad, 0.5)
    if low < PURE or low / (1 - low) < PURE_ODDS * elsewhere:
        return None
    return low


def _by_date(profile: Profile, column: ColumnProfile) -> Iterator[Suspicion]:
    later = column.after_application
    if later is None or column.rows - column.missing < FEWEST:
        return
    verdict = _verdict(later, BLOCKED_LATER, REVIEWED_LATER)
    if verdict:
        yield Suspicion(
            column.name,
            verdict,
            "date",
            f"{later:.1%} of its dates are later than the application ({profile.time})",
            {"after_application": later},
        )


def _by_name(column: ColumnProfile) -> Iterator[Suspicion]:
    if known := after_origination(column.name):
        yield Suspicion(column.name, "blocked", "name", f"by its name it is {known}", {})


def _others(profile: Profile, group: Share) -> Share:
    """All loans that are not of the group."""
    return Share(
        value="others",
        rows=profile.rows - group.rows,
        known=profile.known - group.known,
        bad=profile.known_bad - group.bad,
    )


def _rate(group: Share) -> str:
    share = group.bad / group.known
    shown = f"{share:.2%}" if share in (0.0, 1.0) or 0.0001 <= share <= 0.9999 else f"{share:.4%}"
    return f"{shown} of {group.known:,} loans"


def _verdict(
    value: float, from_blocked: float, from_review: float
) -> Literal["blocked", "review"] | None:
    if value >= from_blocked:
        return "blocked"
    return "review" if value >= from_review else None


def _lower_auc(area: float, good: int, bad: int) -> float:
    """Lower end of a one-sided interval of an AUC (Hanley and McNeil 1982)."""
    if min(good, bad) == 0:
        return 0.0
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    square = area**2
    variance = (area * (1 - area) + (bad - 1) * (q1 - square) + (good - 1) * (q2 - square)) / (
        good * bad
    )
    return float(area - NormalDist().inv_cdf(CONFIDENCE) * max(variance, 0.0) ** 0.5)


def _lower_share(part: int, whole: int) -> float:
    """Lower end of a one-sided interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(1 - CONFIDENCE, part, whole - part + 1)) if part else 0.0
