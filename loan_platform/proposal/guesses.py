"""Guesses what a book does not say: which column is the outcome, the application's date, the key.

Here: three guesses, each from names and figures, each overridden by what was asked for.
Not here: what the other columns are for (`propose`), or their text (`text`).
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loan_platform.contract.portfolio import unknown
from loan_platform.ingest import vocabulary
from loan_platform.ingest.profile import ColumnProfile, Profile
from loan_platform.ingest.vocabulary import meaning, normalised

MOST_STATUSES = 40
MOST_LISTED = 12
REPLAYED_MONTHS = 24
ROWS_A_REPLAYED_MONTH = 500
EMPTY_MONTHS_BEFORE_A_STRAY = 12
STRAY_SHARE = 0.001

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\- ]{0,119}")

# Statuses as lenders write them. The first that fits decides, so `unpaid` is not `paid`.
STATUSES = (
    ("good", r"\b(no|not|non|never)\b[ _-]*(in[ _-]*)?(a[ _-]*)?(bad|late|default|charged|delinq)"),
    (
        "bad",
        r"charge[ds]?[ _-]?off|default|writt?en?[ _-]?off|write[ _-]?off|\blate\b|overdue|loss",
    ),
    (
        "bad",
        r"past[ _-]?due|delinq|arrears|\bbad\b|unpaid|not[ _-]?paid|foreclos|repossess|bankrupt",
    ),
    ("bad", r"collection|non[ _-]?performing|\bnpl\b"),
    ("undecided", r"current|grace|issued|active|open|ongoing|pending|running|progress|deferred"),
    ("good", r"paid|repaid|closed|\bgood\b|performing|completed|matured|\bok\b"),
)
TRUTHS = ({"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"})
HISTORY = re.compile(
    r"birth|dob|earliest|oldest|first|since|opened|employ|hired|last|next|end|close"
)
APPLICATION_KEY = re.compile(r"^(id|(loan|application|account|contract|app|case)_?(id|no|number))$")


class ProposalError(ValueError):
    """No contract can be proposed as asked: says why, and which option mends it."""


@dataclass(frozen=True)
class Wishes:
    """What was asked for, in place of a guess. Names are the book's own.

    `use`: columns to use although they would be left out; `ignore`: columns to leave out.
    """

    outcome: str | None = None
    bad: tuple[str, ...] = ()
    good: tuple[str, ...] = ()
    time: str | None = None
    key: str | None = None
    use: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutcomeGuess:
    """The outcome column, and which of its values (as they stand) mean what."""

    column: str
    bad: tuple[str, ...]
    good: tuple[str, ...]
    undecided: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class TimeGuess:
    """The time column with the first and last month of the book, or a replay from `first`."""

    column: str | None
    first: dt.date
    last: dt.date
    doubt: str | None

    @property
    def months(self) -> int:
        return (self.last.year - self.first.year) * 12 + self.last.month - self.first.month + 1


def check_wishes(profile: Profile, wishes: Wishes) -> None:
    """Raise `ProposalError` where a wish names no column, or two wishes cannot both be met."""
    names = [column.name for column in profile.columns]
    roles = {"--outcome": wishes.outcome, "--time": wishes.time, "--key": wishes.key}
    single = {option: name for option, name in roles.items() if name is not None}
    asked = [*single.items()]
    asked += [("--use", name) for name in wishes.use] + [("--ignore", n) for n in wishes.ignore]
    for option, name in asked:
        if name not in names:
            raise ProposalError(f"{option}: {unknown(name, names)}")
        if option in single and not NAME.fullmatch(name):
            raise ProposalError(f"{option}: {_unusable_name(name)}")
    given: dict[str, str] = {}
    for option, name in asked:
        if given.setdefault(name, option) != option:
            raise ProposalError(f"{name} is asked for with {given[name]} and {option}; give one")
    if both := sorted(set(wishes.bad) & set(wishes.good)):
        raise ProposalError(f"{', '.join(both)} cannot be both --bad and --good")


def guess_outcome(profile: Profile, wishes: Wishes) -> OutcomeGuess:
    """Which column says what became of a loan.

    By name (`vocabulary.OUTCOME`) among columns whose values sort into bad and good ones: texts
    such as 'Charged Off' and 'Fully Paid', yes and no where the name means default, else 1 and 0.

    Raises:
        ProposalError: no column, or no reading of its values, suggests itself.
    """
    if wishes.outcome is not None:
        return _outcome_of(profile.column(wishes.outcome), wishes)
    named = _by_name(vocabulary.OUTCOME, _usable(profile, wishes))
    problem = ""
    found = []
    for column in named:
        try:
            found.append(_outcome_of(column, wishes))
        except ProposalError as error:
            problem = problem or f" {error}"
    if found:
        others = ", ".join(guess.column for guess in found[1:])
        doubt = (f"taken for the outcome, but it could be {others}",)
        return found[0] if not others else _with_doubts(found[0], doubt)
    raise ProposalError(
        "which column says what became of a loan cannot be guessed; name it with --outcome"
        f"{_candidates(profile)}.{problem}"
    )


def guess_time(profile: Profile, wishes: Wishes, today: dt.date) -> TimeGuess:
    """Which column says when an application was made; else a replay that ends with last month.

    Raises:
        ProposalError: the column asked for holds no dates.
    """
    column, doubt = _time_column(profile, wishes)
    if column is None:
        this_month = today.replace(day=1)
        periods = min(REPLAYED_MONTHS, max(3, profile.rows // ROWS_A_REPLAYED_MONTH))
        return TimeGuess(None, add_months(this_month, -periods), add_months(this_month, -1), None)
    first, last = _reach(profile, column, today)
    return TimeGuess(column.name, first, last, doubt)


def guess_key(profile: Profile, wishes: Wishes, taken: Iterable[str]) -> str | None:
    """Which column numbers the applications: named like an identifier, never missing, unique.

    Raises:
        ProposalError: the column asked for has rows without a value.
    """
    if wishes.key is not None:
        if missing := profile.column(wishes.key).missing:
            raise ProposalError(
                f"--key {wishes.key}: {missing:,} rows have none; every application needs its own"
            )
        return wishes.key
    unique = [
        column.name
        for column in _usable(profile, wishes)
        if column.name not in taken
        and column.type in ("integer", "text", "category")
        and column.missing == 0
        and column.distinct == profile.rows > 1
        and meaning(vocabulary.IDENTIFIER, column.name) == "a number"
    ]
    plain = [name for name in unique if APPLICATION_KEY.match(normalised(name))]
    return next(iter([*plain, *unique]), None)


def add_months(day: dt.date, months: int) -> dt.date:
    """The first day of the month `months` after that of `day`."""
    position = day.year * 12 + day.month - 1 + months
    return dt.date(position // 12, position % 12 + 1, 1)


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _usable(profile: Profile, wishes: Wishes) -> list[ColumnProfile]:
    return [
        column
        for column in profile.columns
        if column.type != "empty"
        and column.name not in (*wishes.ignore, *wishes.use)
        and NAME.fullmatch(column.name)
    ]


def _by_name(
    meanings: tuple[vocabulary.Meaning, ...], columns: Iterable[ColumnProfile]
) -> list[ColumnProfile]:
    """Columns whose name has one of the meanings, the likeliest first."""
    ranked = []
    for column in columns:
        plain = normalised(column.name)
        ranks = [i for i, each in enumerate(meanings) if re.search(each.pattern, plain)]
        if ranks:
            ranked.append((ranks[0], column))
    return [column for _, column in sorted(ranked, key=lambda pair: pair[0])]


def _outcome_of(column: ColumnProfile, wishes: Wishes) -> OutcomeGuess:
    values = [share.value for share in column.categories]
    if not 2 <= column.distinct <= MOST_STATUSES or len(values) < column.distinct:
        raise ProposalError(
            f"{column.name} has {column.distinct:,} different values; an outcome has from 2 to "
            f"{MOST_STATUSES}"
        )
    strange = [value for value in (*wishes.bad, *wishes.good) if value not in values]
    if strange:
        raise ProposalError(
            f"{column.name} never holds {', '.join(strange)}; its values are {listed(values)}"
        )
    meant = _meant(column.name, values)
    for value in values:
        if value in wishes.bad:
            meant[value] = "bad"
        elif value in wishes.good:
            meant[value] = "good"
        elif wishes.bad and wishes.good:
            meant[value] = "undecided"
        elif wishes.bad and meant[value] != "undecided":
            meant[value] = "good"
        elif wishes.good and meant[value] != "undecided":
            meant[value] = "bad"
    sides = {
        side: tuple(value for value in values if meant[value] == side)
        for side in ("bad", "good", "undecided", "unknown")
    }
    if not sides["bad"] or not sides["good"]:
        raise ProposalError(
            f"which values of {column.name} are bad cannot be guessed; its values are "
            f"{listed(values)}: say --outcome {column.name!r} --bad VALUE, and --good VALUE"
        )
    doubts = []
    if sides["unknown"]:
        doubts.append(f"{listed(sides['unknown'])}: taken for outcomes that are not known yet")
    bad = ", ".join(sides["bad"])
    if not wishes.bad and not re.search(r"[a-z]{3}", bad, re.IGNORECASE):
        doubts.append(f"{bad} is taken to mean bad")
    return OutcomeGuess(
        column.name, sides["bad"], sides["good"], sides["undecided"] + sides["unknown"],
        tuple(doubts),
    )  # fmt: skip


def _meant(name: str, values: Sequence[str]) -> dict[str, str]:
    """What each value says of a loan: bad, good, undecided or unknown."""
    plain = {value: value.strip().lower() for value in values}
    numbers = {value: _number(text) for value, text in plain.items()}
    known = [number for number in numbers.values() if number is not None]
    if len(known) == len(values) == 2:
        return {value: "bad" if numbers[value] == max(known) else "good" for value in values}
    if any(set(plain.values()) == truths for truths in TRUTHS):
        if meaning(vocabulary.OUTCOME, name) != "bad":
            return dict.fromkeys(values, "unknown")
        return {value: "bad" if text[0] in "yt" else "good" for value, text in plain.items()}
    if set(plain.values()) == {"g", "b"}:
        return {value: "bad" if text == "b" else "good" for value, text in plain.items()}
    return {
        value: next((side for side, words in STATUSES if re.search(words, text)), "unknown")
        for value, text in plain.items()
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _with_doubts(guess: OutcomeGuess, doubts: tuple[str, ...]) -> OutcomeGuess:
    return OutcomeGuess(guess.column, guess.bad, guess.good, guess.undecided, doubts + guess.doubts)


def _candidates(profile: Profile) -> str:
    """Columns that could be one, by their values."""
    two = [column.name for column in profile.columns if column.distinct == 2]
    few = [c.name for c in profile.columns if 2 < c.distinct <= MOST_LISTED]
    if two:
        return f" (columns with two values: {listed(two)})"
    return f" (columns with few values: {listed(few)})" if few else ""


def _time_column(profile: Profile, wishes: Wishes) -> tuple[ColumnProfile | None, str | None]:
    if wishes.time is not None:
        column = profile.column(wishes.time)
        if column.type != "date":
            raise ProposalError(
                f"--time {column.name}: holds no dates ({column.type}); leave it out to replay the "
                "book over months"
            )
        return column, None
    dated = [
        column
        for column in _usable(profile, wishes)
        if column.type == "date"
        and column.distinct > 1
        and column.missing + column.unreadable <= STRAY_SHARE * profile.rows
        and vocabulary.after_origination(column.name) is None
    ]
    named = _by_name(vocabulary.TIME, dated)
    if named:
        others = [column.name for column in named[1:]]
        doubt = f"it could be {listed(others)} as well" if others else None
        return named[0], doubt
    plausible = [column for column in dated if not HISTORY.search(normalised(column.name))]
    if len(plausible) == 1:
        return plausible[0], "the one column with dates that could be it"
    return None, None


def _reach(profile: Profile, column: ColumnProfile, today: dt.date) -> tuple[dt.date, dt.date]:
    """First and last month of the book; a few stray rows far off (1900, 2099) do not count."""
    months = sorted(
        (dt.date.fromisoformat(f"{month}-01"), rows)
        for month, rows, _ in profile.months
        if profile.time == column.name
    )
    if not months:
        ends = [dt.date.fromisoformat(str(end)[:10]) for end in (column.low, column.high)]
        months = [(end.replace(day=1), profile.rows) for end in ends]
    months = [month for month in months if month[0] <= today] or months[:1]
    return _without_strays(months)[0][0], _without_strays(months[::-1])[0][0]


def _without_strays(months: list[tuple[dt.date, int]]) -> list[tuple[dt.date, int]]:
    """Months, from one end, after those that a long gap parts from nearly all rows."""
    total, before = sum(rows for _, rows in months), 0
    for position, ((month, rows), (after, _)) in enumerate(itertools.pairwise(months)):
        before += rows
        if before > STRAY_SHARE * total:
            return months
        if abs((after - month).days) > EMPTY_MONTHS_BEFORE_A_STRAY * 31:
            return _without_strays(months[position + 1 :])
    return months


def _unusable_name(name: str) -> str:
    return (
        f"{name!r} cannot name a column of a contract; rename it in the file: letters, digits, "
        "spaces and _ . - after a letter"
    )
