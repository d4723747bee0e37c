"""Proposes a contract for a book from its profile: asks nothing, and accounts for every column.

Here: what each column is for, and why those that are left out are. Not here: the guesses of
outcome, date and key (`guesses`), a column's own entry (`entries`), the figures of a stand-in
(`stand_in`), the YAML (`text`).

A column's reason is the first of these that holds: asked for, unusable name, empty or constant,
known only after origination, a leak the evidence blocks, the lender's own decision, protected,
a stand-in for origin, identifier, part of the date, a date nothing can be made of, free text, a
leak for review, the same as another column.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loan_platform.contract.portfolio import PLATFORM_COLUMNS, Source
from loan_platform.ingest import vocabulary
from loan_platform.ingest.leaks import Suspicion, evidence
from loan_platform.ingest.profile import ColumnProfile, Profile
from loan_platform.ingest.vocabulary import meaning, normalised
from loan_platform.proposal.entries import (
    Entry,
    bands_note,
    entry_of,
    is_categorical,
    quantile,
    refused,
    spelled_numbers,
    unused_entry,
)
from loan_platform.proposal.guesses import (
    NAME,
    OutcomeGuess,
    ProposalError,
    TimeGuess,
    Wishes,
    check_wishes,
    guess_key,
    guess_outcome,
    guess_time,
    listed,
)
from loan_platform.proposal.stand_in import simulation_section
from loan_platform.proposal.text import Document, document_text

__all__ = ["Proposal", "ProposalError", "Wishes", "propose"]

SMALL_SHARE = 0.1
"""Of all bad loans, in a suspicious group: a column with a smaller one is used, and pointed at."""
SAME_RANK = 0.9995
SAME_SHARE = 0.999
YEARS = (1900, 2100)
REPLAY_MATURES_AFTER_DAYS = 30
MATURES_AFTER_DAYS = 365
CHARGED_OFF_WITHIN_DAYS = 150
"""After the last instalment was due: what lenders commonly wait before they give up a loan."""
BOOK_ENDED_AFTER_DAYS = 366
"""A younger one may go on; then its later months are simply empty until they arrive."""

AMOUNT = r"^(loan_|credit_|requested_)?(amnt|amount|amt)(_requested)?$|^loan_am(oun)?t"
INCOME = r"(^|_)(inc|income|salary)$"
TERM = r"^(loan_)?(term|tenure|duration)(_(in_)?months?)?$"
UTILISATION = r"^(revol_util|credit_utili[sz]ation|utili[sz]ation)$"
INQUIRIES = r"^inq_last_6mths$|^(num_)?inquiries(_|$)"
REVOLVING = r"^revol_bal$|^revolving_balance$"
OPEN_ACCOUNTS, ALL_ACCOUNTS = r"^open_acc(ounts)?$", r"^total_acc(ounts)?$"
LOAN_TO_INCOME = r"^loan_(percent|to|over)_income$|^lti$|^loan_income_ratio$"
CALENDAR = r"^((issue|application|origination|loan)_)?(year|month|quarter|week)(_number)?$"


@dataclass(frozen=True)
class Proposal:
    """A contract as a YAML document, and what a person should look at before trusting it."""

    text: str
    to_check: list[str]


def propose(
    profile: Profile,
    source: Source,
    name: str,
    wishes: Wishes,
    *,
    today: dt.date | None = None,
) -> Proposal:
    """A contract for the book that `profile` was made of; the profile has outcome figures.

    Raises:
        ProposalError: the outcome cannot be guessed, a wish cannot be met, or no column is left
            to be a feature.
    """
    check_wishes(profile, wishes)
    today = today or dt.datetime.now(dt.UTC).date()
    outcome = guess_outcome(profile, wishes)
    time = guess_time(profile, wishes, today)
    if source.one_file_a_partition and time.column is None:
        raise ProposalError(
            "a book with a file a month needs a column that says when an application was made; "
            "name it with --time"
        )
    key = guess_key(profile, wishes, (outcome.column, *([time.column] if time.column else [])))
    plan = _Plan(profile, wishes, outcome, time, key)
    plan.decide()
    derived = _derived(plan)
    plan.leave_out_what_is_derived(derived)
    if not any(entry.get("role", "feature") == "feature" for entry in plan.entries.values()):
        raise ProposalError(
            "no column is left for a model to learn from: "
            + "; ".join(f"{column}: {reason}" for column, reason in plan.reasons.items())[:2000]
            + ". Name one to use all the same with --use"
        )
    document = Document(
        name=name,
        source=source,
        profile=profile,
        outcome=outcome,
        time=time,
        key=key,
        matures_after_days=_matures_after_days(plan, today),
        ended=time.column is not None
        and not source.one_file_a_partition
        and (today - time.last).days > BOOK_ENDED_AFTER_DAYS,
        entries=plan.written_entries(),
        notes=plan.notes,
        ignored=plan.groups(),
        features=derived,
        simulation=None
        if source.one_file_a_partition
        else simulation_section(profile, plan.entries, time),
    )
    return Proposal(document_text(document), _to_check(document, plan))


@dataclass
class _Plan:
    """What each column is for. `entries`: used columns; `reasons`: the others, with why not."""

    profile: Profile
    wishes: Wishes
    outcome: OutcomeGuess
    time: TimeGuess
    key: str | None
    entries: dict[str, Entry] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    for_review: list[str] = field(default_factory=list)
    meaningless: set[str] = field(default_factory=set)
    """Unused columns that tell no two rows apart."""

    def decide(self) -> None:
        suspicions = {each.column: each for each in evidence(self.profile)}
        blocked = {n: s.sentence for n, s in suspicions.items() if s.verdict == "blocked"}
        review = {n: s for n, s in suspicions.items() if s.verdict == "review"}
        taken: set[str] = set()
        for column in self.profile.columns:
            name = column.name
            if name.lower() in taken:
                self._leave_out(column, "another column has this name; rename one in the file")
                continue
            taken.add(name.lower())
            if role := self._given_role(name):
                self._place(column, role)
            elif name in self.wishes.use:
                self._use_as_asked(column, blocked.get(name))
            elif name in self.wishes.ignore:
                self._leave_out(column, "left out on request")
            elif reason := self._why_not(column, blocked, review):
                self._leave_out(column, reason)
            elif vocabulary.protected(name) or _is_age(name):
                self._place(column, "protected")
            else:
                self._place(column, "input" if column.type == "date" else "feature")
                if name in review:
                    self._add_note(name, review[name].sentence)

    def _given_role(self, name: str) -> str | None:
        roles = {self.outcome.column: "outcome"}
        if self.time.column:
            roles[self.time.column] = "time"
        if self.key:
            roles[self.key] = "key"
        return roles.get(name)

    def _place(self, column: ColumnProfile, role: str) -> None:
        match role:
            case "outcome":
                entry: Entry = {"name": column.name, "type": "category"}
                entry["categories"] = [share.value for share in column.categories]
                entry["role"] = role
            case "key":
                entry = unused_entry(column, role)
            case _:
                entry = entry_of(column, role)
                self._note(column, entry)
        self.entries[column.name] = entry

    def _note(self, column: ColumnProfile, entry: Entry) -> None:
        notes = []
        read = sum(s.rows for s in column.unreadable_values if s.value in entry.get("values", {}))
        if lost := column.unreadable - read:
            notes.append(f"{lost:,} rows are refused, they hold no {column.type}")
        if entry.get("role") == "time" and column.missing:
            notes.append(f"{column.missing:,} rows are refused, they have no date")
        if "range" in entry and column.quantiles and refused(column, tuple(entry["range"])):
            notes.append("the book has values outside the range; those rows are refused")
        if column.name in self.wishes.use and (why := self._policy_reason(column)):
            notes.append(f"used on request; {why}")
        if "bands" in entry:
            notes.append(bands_note(entry))
        for note in notes:
            self._add_note(column.name, note)

    def _add_note(self, name: str, note: str) -> None:
        before = self.notes.get(name)
        self.notes[name] = f"{before}; {note}" if before else note

    def _policy_reason(self, column: ColumnProfile) -> str | None:
        """Why such a column would be left out or kept apart, by its name alone."""
        name = column.name
        if what := vocabulary.protected(name):
            return f"protected: {what}"
        if _is_age(name):
            return "protected: age"
        return vocabulary.after_origination(name) or vocabulary.lender_decision(name)

    def _use_as_asked(self, column: ColumnProfile, leak: str | None) -> None:
        if reason := _unusable(column):
            raise ProposalError(f"--use {column.name}: {reason}")
        if column.type == "date":
            if self.time.column is None:
                raise ProposalError(
                    f"--use {column.name}: a date is only of use beside the application's date, "
                    "and the book has none; name it with --time"
                )
            self._place(column, "input")
            return
        if not _readable(column):
            raise ProposalError(
                f"--use {column.name}: {column.distinct:,} different texts are too many categories"
            )
        self._place(column, "feature")
        if leak:
            self.entries[column.name]["leak_accepted"] = (
                f"asked for with --use when the contract was written, not explained yet: {leak}"
            )

    def _leave_out(self, column: ColumnProfile, reason: str) -> None:
        self.reasons[column.name] = reason
        if column.distinct <= 1 or not NAME.fullmatch(column.name) or "rename one" in reason:
            self.meaningless.add(column.name)

    def _why_not(
        self, column: ColumnProfile, blocked: Mapping[str, str], review: Mapping[str, Suspicion]
    ) -> str | None:
        name = column.name
        if reason := _unusable(column):
            return reason
        nothing = _says_nothing(column, self.profile.rows)
        if nothing and not column.missing:
            return nothing
        if reason := vocabulary.after_origination(name):
            return reason
        if reason := blocked.get(name):
            return f"leaks the outcome: {reason}"
        if nothing:
            return nothing
        if reason := vocabulary.lender_decision(name):
            return reason
        if what := vocabulary.protected(name) or ("age" if _is_age(name) else None):
            return None if _readable(column) else f"protected: {what}"
        if (reason := _by_policy(column)) or (reason := self._dated(column)):
            return reason
        if not _readable(column):
            return f"free text: {column.distinct:,} different texts"
        doubt = review.get(name)
        if doubt and doubt.figures.get("share_of_bad", 1.0) >= SMALL_SHARE:
            self.for_review.append(name)
            return f"left out until somebody has explained it: {doubt.sentence}"
        return self._says_the_same(column)

    def _dated(self, column: ColumnProfile) -> str | None:
        """Why a date, or a part of one, stays out."""
        years = column.type in ("integer", "number") and (
            YEARS[0] <= quantile(column, 0.0) <= quantile(column, 1.0) <= YEARS[1]
        )
        plain = normalised(column.name)
        if re.search(CALENDAR, plain) and (years or "year" not in plain):
            return "the calendar: what is learnt of one year is no help in the next"
        if column.type != "date":
            return None
        if self.time.column is None:
            return "a date, in a book that does not say when an application was made"
        return None

    def _says_the_same(self, column: ColumnProfile) -> str | None:
        for other in self.entries.values():
            if other.get("role", "feature") != "feature":
                continue
            before = self.profile.column(other["name"])
            if self._correlation(before.name, column.name) >= SAME_RANK:
                return f"ranks the loans as {before.name} does"
            if column.type == before.type == "category" and _counts(column) == _counts(before):
                return f"says the same as {before.name}: as many loans and bad ones, value by value"
        return None

    def _correlation(self, one: str, other: str) -> float:
        return self._correlations.get(frozenset((one, other)), 0.0)

    @functools.cached_property
    def _correlations(self) -> dict[frozenset[str], float]:
        return {frozenset((a, b)): abs(rank) for a, b, rank in self.profile.correlations}

    def leave_out_what_is_derived(self, derived: Mapping[str, Entry]) -> None:
        """Take out a given ratio that is computed afresh: one truth, from what was applied for."""
        if "loan_to_income" not in derived:
            return
        for name in [n for n in self.entries if re.search(LOAN_TO_INCOME, normalised(n))]:
            if name in self.wishes.use or self._given_role(name):
                continue
            del self.entries[name]
            self.notes.pop(name, None)
            self.reasons[name] = (
                "computed afresh as loan_to_income; as it stands in the book it may have been "
                "computed from other figures, or later"
            )

    def written_entries(self) -> list[Entry]:
        """Entries of `columns:`, in the file's order.

        Without a key a row is known by its content, so columns left out are part of it too.
        """
        entries = []
        for column in self.profile.columns:
            if column.name in self.entries:
                entries.append(self.entries[column.name])
            elif self.key is None and column.name not in self.meaningless:
                reason = self.reasons[column.name]
                entries.append(unused_entry(column, "ignored") | {"reason": reason})
        return entries

    def groups(self) -> dict[str, list[str]]:
        """Reason -> the columns that have no part in anything."""
        groups: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            if self.key is not None or name in self.meaningless:
                groups.setdefault(reason, []).append(name)
        return groups


def _matures_after_days(plan: _Plan, today: dt.date) -> int:
    """Of a book all of whose loans have run their term: that term, and the time to give one up."""
    if plan.time.column is None:
        return REPLAY_MATURES_AFTER_DAYS
    for name, entry in plan.entries.items():
        column = plan.profile.column(name)
        if re.search(TERM, normalised(name)) and entry.get("unit") == "months" and column.quantiles:
            days = round(quantile(column, 0.999) * 365.25 / 12) + CHARGED_OFF_WITHIN_DAYS
            if plan.time.last + dt.timedelta(days=days + 31) < today:
                return days
    return MATURES_AFTER_DAYS


def _is_age(name: str) -> bool:
    return re.search(r"(^|_)(age|age_(group|band|range))$", normalised(name)) is not None


def _unusable(column: ColumnProfile) -> str | None:
    if not NAME.fullmatch(column.name):
        return "its name is none a contract can have: letters, digits, spaces, _ . - after a letter"
    if column.name.lower() in PLATFORM_COLUMNS:
        return "the platform uses this name itself; rename the column"
    if column.type == "empty" or column.distinct == 0:
        return "empty: no row holds a value"
    return None


def _says_nothing(column: ColumnProfile, rows: int) -> str | None:
    if column.distinct == 1:
        return "constant: one value only"
    present = rows - column.missing
    shares = [share.rows for share in column.categories]
    same = len(shares) == column.distinct and max(shares, default=0) >= SAME_SHARE * present
    if column.quantiles and quantile(column, 0.0) == quantile(column, 0.999):
        same = True
    return "nearly constant: 999 rows in 1,000 hold the same value" if same else None


def _by_policy(column: ColumnProfile) -> str | None:
    """Why a column that says who or where somebody is stays out."""
    name = column.name
    if what := meaning(vocabulary.PROXY, name):
        return f"{what}: stands in for ethnic origin, as people live apart"
    if what := meaning(vocabulary.IDENTIFIER, name):
        return f"identifier: {what}"
    if meaning(vocabulary.FREE_TEXT, name):
        return f"free text: {column.distinct:,} different texts"
    return None


def _readable(column: ColumnProfile) -> bool:
    """A model can be given it: figures, a date to count days from, or a list of categories."""
    if column.type in ("number", "integer"):
        return bool(column.quantiles)
    return column.type == "date" or is_categorical(column) or bool(spelled_numbers(column))


def _counts(column: ColumnProfile) -> list[tuple[int, int, int]]:
    return sorted((share.rows, share.known, share.bad) for share in column.categories)


def _derived(plan: _Plan) -> dict[str, Entry]:
    """Derived features that the used columns allow, by name."""
    numeric = [
        entry["name"]
        for entry in plan.entries.values()
        if entry["type"] in ("number", "integer") and entry.get("role", "feature") == "feature"
    ]

    def find(pattern: str) -> str | None:
        return next((quoted_name(n) for n in numeric if re.search(pattern, normalised(n))), None)

    def money(pattern: str) -> str | None:
        sums = [n for n in numeric if (meaning(vocabulary.UNITS, n) or "").startswith("currency")]
        return next((quoted_name(n) for n in sums if re.search(pattern, normalised(n))), None)

    found: dict[str, Entry] = {}
    amount, income, term = money(AMOUNT), money(INCOME), find(TERM)
    if amount and income:
        found["loan_to_income"] = {
            "sql": f"{amount} / nullif({income}, 0)",
            "unit": "ratio",
            "description": "Amount asked for over income",
        }
    if amount and income and term:
        found["principal_to_income"] = {
            "sql": f"{amount} / nullif({term}, 0) / nullif({income}, 0)",
            "unit": "ratio",
            "description": "An instalment before interest over income",
        }
    if (revolving := find(REVOLVING)) and income:
        found["revolving_to_income"] = {
            "sql": f"{revolving} / nullif({income}, 0)",
            "unit": "ratio",
            "description": "Revolving balance over income",
        }
    if (used := find(UTILISATION)) and (asked := find(INQUIRIES)):
        found["utilisation_x_inquiries"] = {
            "sql": f"{used}::double * {asked}::double",
            "description": "Use of credit lines times recent inquiries",
        }
    if (there := find(OPEN_ACCOUNTS)) and (ever := find(ALL_ACCOUNTS)):
        found["open_account_share"] = {
            "sql": f"{there}::double / nullif({ever}, 0)",
            "unit": "ratio",
            "description": "Open accounts of all there were",
        }
    for entry in plan.entries.values():
        if entry.get("role") == "input" and plan.time.column:
            date = entry["name"]
            found[f"days_since_{normalised(date)}"[:60]] = {
                "sql": f"date_diff('day', {quoted_name(date)}, {quoted_name(plan.time.column)})",
                "unit": "days",
                "description": f"Days from {date} to the application",
            }
    # A name the book has already, in whatever case, keeps its meaning.
    names = {column.name.lower() for column in plan.profile.columns} | set(PLATFORM_COLUMNS)
    return {name: feature for name, feature in found.items() if name not in names}


def quoted_name(name: str) -> str:
    """A column's name in an expression: in quotes only where SQL needs them."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _keywords()
    return name if plain else f'"{name}"'


@functools.cache
def _keywords() -> frozenset[str]:
    import duckdb

    with duckdb.connect() as connection:
        words = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        )
        return frozenset(word for (word,) in words.fetchall())


def _to_check(document: Document, plan: _Plan) -> list[str]:
    outcome, time = document.outcome, document.time
    found = [f"{outcome.column}: {doubt}" for doubt in outcome.doubts]
    if outcome.undecided:
        found.append(f"{outcome.column}: {listed(outcome.undecided)} count as not known yet")
    if time.column is None:
        found.append(
            f"no column says when an application was made: the book is dealt onto {time.months} "
            "months at random; name the column with --time if there is one"
        )
    elif time.doubt:
        found.append(f"{time.column} is taken for the day of the application: {time.doubt}")
    if document.ended:
        found.append(f"{time.last:%B %Y} is taken for the last month of the book: time.end")
    found.append(
        f"an outcome is taken to be known {document.matures_after_days} days after the "
        "application: outcome.matures_after_days"
    )
    if plan.for_review:
        found.append(
            f"{listed(plan.for_review)}: may give the outcome away, so left out; --use takes one in"
        )
    kept = [n for n, e in plan.entries.items() if e.get("role") == "protected"]
    if kept:
        found.append(f"{listed(kept)}: protected, so no model sees it; --use takes it in")
    found += [f"{name}: {note}" for name, note in plan.notes.items()]
    strange = _unknown_to_the_field(document.entries)
    if strange:
        found.append(f"{listed(strange)}: used, is it known when an application is made?")
    return found


def _unknown_to_the_field(entries: Iterable[Entry]) -> list[str]:
    """Used columns whose name says nothing to this platform."""
    return [
        entry["name"]
        for entry in entries
        if entry.get("role", "feature") == "feature"
        and meaning(vocabulary.UNITS, entry["name"]) is None
        and meaning(vocabulary.KNOWN, entry["name"]) is None
    ]
