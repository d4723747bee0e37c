"""What a portfolio is: the models a contract's YAML is validated against.

Here: the shape of a contract and every rule that makes one invalid.
Not here: reading files (`reading`), SQL (`sql`), the service's models (`request`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from loan_platform.contract.expression import ExpressionError, check_expression, columns_of
from loan_platform.contract.settings import (
    Checks,
    Drift,
    Fairness,
    Freshness,
    Interval,
    PolicySettings,
    Probability,
    Promotion,
    Retrain,
    Section,
    Training,
)

Problem = tuple[tuple[str | int, ...], str]
"""Where in a contract something is wrong, and what to do about it."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.\- ]*$", max_length=120)]

# Columns the platform itself adds beside a contract's own.
PLATFORM_COLUMNS = (
    "application_id",
    "applied_at",
    "origin",
    "outcome",
    "outcome_known_at",
    "outcome_source",
)


# What a date's format may hold, and between its parts.
DATE_TOKENS = ("%Y", "%y", "%m", "%b", "%d")
DATE_SEPARATORS = "-/., _:"

# With `duplicates: keep`: between the id a repeated row would have and its number.
COPY_MARK = "#copy-"


class Source(Section):
    """Where rows lie: file(s) at `path`, or a PostgreSQL `table` or `query` at `url`.

    A relative path is looked for in `LOAN_DATA_DIR`.
    """

    path: str | None = Field(
        None,
        description="CSV, gzipped CSV or Parquet: a file, a glob (`loans/*.csv.gz`), or object "
        "storage (`s3://bucket/loans.parquet`); "
        "`{partition}` stands for the month where there is a file a month",
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    url: str | None = Field(
        None,
        description="postgresql://user@host/database; `${NAME}` stands for an environment "
        "variable, so that no password lies in a contract",
    )
    table: str | None = Field(None, description="`loans` or `schema.loans`")
    query: str | None = Field(None, description="Instead of table: one SELECT")

    @property
    def one_file_a_partition(self) -> bool:
        return self.path is not None and "{partition}" in self.path

    @property
    def name(self) -> str:
        """What people call it in a message; never holds a password."""
        return self.path or (f"table {self.table}" if self.table else "query")

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if (self.path is None) == (self.url is None):
            yield None, "give either path: (files) or url: (a PostgreSQL database)"
        elif self.url is None and (self.table or self.query):
            yield "table" if self.table else "query", "needs a url: of the database"
        elif self.url is not None and (self.table is None) == (self.query is None):
            yield "url", "give either table: or query: with it"
        if self.url and re.match(r"^\w[\w+.-]*://[^/@]*:[^/@$]+@", self.url):
            yield "url", "a password lies here in the open; write ${NAME} and set that variable"
        if self.url and self.encoding != "utf-8":
            yield "encoding", "a database gives its rows in UTF-8; remove it"
        if self.delimiter in ('"', "\n", "\r"):
            yield "delimiter", "a quote or a line end separates no values; give , ; | or a tab"
        if self.url and self.delimiter != ",":
            yield "delimiter", "a database's rows have none; remove it"


class Column(Section):
    """One column of the book as it arrives."""

    name: Identifier
    type: Literal["number", "integer", "category", "text", "date"]
    unit: str | None = Field(None, description="USD, years, percent, ratio, ...")
    description: str | None = None
    range: Interval | None = Field(None, description="Allowed [low, high]; outside is refused")
    categories: list[str] | None = Field(None, description="Allowed values, in model order")
    nulls: Literal["allowed", "refused"] = "refused"
    role: Literal[
        "feature", "input", "outcome", "time", "key", "protected", "measure", "ignored"
    ] = Field(
        "feature",
        description="`input`: an application carries it, derived features read it, and the model "
        "does not see it itself; `measure`: kept beside the loans for money and segments, and no "
        "model sees it",
    )
    reason: str | None = Field(None, description="Why an ignored column stays out of the model")
    values: dict[str, float | str | None] | None = Field(
        None,
        description="What a text as it arrives stands for: {10+ years: 10, n/a: null}; null is "
        "missing, and other text is read as it is",
    )
    format: str | None = Field(
        None,
        description="How a date is written, of %Y %y %m %b %d and separators: %b-%Y; without %d "
        "the first of the month",
    )
    remove: list[str] = Field(
        [],
        description="What is taken off before a number is read: [$, %]; a separator of thousands "
        "only between groups of three digits",
    )
    decimal: Literal[".", ","] = Field(
        ".", description="Before the decimals; with a comma, 1.234,5 and 1 234,5 are 1234.5"
    )
    leak_accepted: str | None = Field(
        None, description="Why this is used although the leak guard blocks it; every report says so"
    )
    protected_accepted: str | None = Field(
        None,
        description="Why this feature is used although it is a protected attribute; every model "
        "card says so, and its groups are compared as those of a protected column are",
    )
    bands: list[float] | None = Field(
        None,
        min_length=1,
        description="Where the groups of a protected number begin: [25, 40, 62] makes four; "
        "without, quarters of the rows",
    )
    monotone: Literal["increasing", "decreasing"] | None = Field(
        None, description="How the probability of default moves as this rises"
    )

    def problems(self) -> Iterator[tuple[str | None, str]]:
        numeric = self.type in ("number", "integer")
        if self.range and not numeric:
            yield "range", f"a {self.type} column has no range; remove it"
        if self.range and self.range[0] >= self.range[1]:
            low, high = self.range
            yield "range", f"low {low:g} is not below high {high:g}; write [low, high]"
        if self.type == "category" and not self.categories:
            yield "categories", "a category column lists its allowed values; add categories: [...]"
        if self.categories is not None:
            if self.type != "category":
                yield "categories", f"a {self.type} column has no categories; remove them"
            if len(set(self.categories)) < len(self.categories):
                yield "categories", "a value is listed twice; list each once"
            if any(_frayed(value) for value in self.categories):
                yield (
                    "categories",
                    "a value is empty or has a blank at an end; rows are read without, take it off",
                )
        if self.role == "ignored" and not self.reason:
            yield "role", "an ignored column says why; add reason: (leak, lender's decision, ...)"
        if self.role == "feature" and self.type in ("text", "date"):
            yield (
                "role",
                f"a {self.type} column cannot be a feature as it is; set role: ignored with a "
                "reason, or role: input and make a feature from it in features:",
            )
        if self.role in ("key", "time") and self.nulls == "allowed":
            yield "nulls", f"every row needs its {self.role}; remove nulls: allowed"
        if self.monotone and not (numeric and self.role == "feature"):
            yield "monotone", "only a numeric feature has a monotone direction; remove it"
        if self.protected_accepted is not None:
            if self.role not in ("feature", "input"):
                yield (
                    "protected_accepted",
                    f"a column with role {self.role} reaches no model; remove it",
                )
            elif not self.protected_accepted.strip():
                yield "protected_accepted", "say why; every model card shows it"
        if self.bands is not None:
            if not numeric or not (self.role == "protected" or self.protected_accepted):
                yield "bands", "only a protected number is grouped by bands; remove them"
            elif sorted(set(self.bands)) != self.bands:
                yield "bands", "bands rise; sort them and name each once"
        if self.role == "measure" and not numeric and self.type != "category":
            yield "role", f"a {self.type} column measures nothing; use a number or a category"
        if self.leak_accepted is not None:
            if self.role not in ("feature", "input"):
                yield (
                    "leak_accepted",
                    f"a column with role {self.role} reaches no model; remove it",
                )
            elif not self.leak_accepted.strip():
                yield "leak_accepted", "say why; every report shows it"
        yield from self._notation_problems()

    def _notation_problems(self) -> Iterator[tuple[str | None, str]]:
        """Contradictions in how the book writes this column."""
        numeric = self.type in ("number", "integer")
        used = {
            "values": self.values is not None,
            "format": self.format is not None,
            "remove": bool(self.remove),
            "decimal": self.decimal != ".",
        }
        fitting = {
            "values": True,
            "format": self.type == "date",
            "remove": numeric,
            "decimal": numeric,
        }
        for key in (key for key, is_used in used.items() if is_used):
            if not fitting[key]:
                kinds = "date" if key == "format" else "number or integer"
                yield key, f"says how a {kinds} column is written, this is {self.type}; remove it"
            elif self.role == "ignored":
                yield key, "an ignored column is not read; remove it"
            elif self.role == "key":
                yield key, "a key is kept as it is; remove it"
            elif self.role == "outcome" and key != "values":
                yield key, "an outcome is compared as text; use values: instead"
        if self.format is not None and self.type == "date":
            yield from _format_problems(self.format)
        for removed in self.remove:
            if why := self._lost_with(removed):
                yield "remove", f"taking off {removed!r} {why}"
        for word, value in (self.values or {}).items():
            if _frayed(word):
                yield "values", f"{word!r} is empty or has a blank at an end; rows never do"
            elif why := self._wrong_target(value):
                yield f"values.{word}", why

    def _lost_with(self, removed: str) -> str | None:
        """What a number would lose with `removed`, or None."""
        if not removed:
            return "means nothing; remove it"
        if removed == self.decimal:
            point = "decimal: ','" if removed == "." else "decimal: '.'"
            return f"takes the decimals' sign off; write {point} if it separates thousands"
        if re.search(r"[0-9]", removed):
            return "takes digits off; use values: for a text that stands for a number"
        if removed in ("-", "(", ")", "e", "E"):
            return "changes the number; use values:, or let such rows be refused"
        return None

    def _wrong_target(self, value: float | str | None) -> str | None:
        """Why no row may have `value`, or None."""
        if value is None:
            if self.role in ("outcome", "protected", "measure") or self.nulls == "allowed":
                return None
            return "stands for a missing value, which is refused; add nulls: allowed"
        if self.role == "outcome" or self.type in ("category", "text"):
            if not isinstance(value, str):
                return f"{value!r} is no text; put it in quotes"
            if self.role != "outcome" and self.categories and value not in self.categories:
                return f"{value} is none of the categories; list it there"
            return "is empty or has a blank at an end; take it off" if _frayed(value) else None
        if self.type == "date":
            return "only null can be given for a date; use format: for how dates are written"
        if isinstance(value, str) or not math.isfinite(value):
            return f"{value!r} is no number; write a number"
        if self.type == "integer" and value != int(value):
            return f"{value:g} is no whole number; write one"
        if self.range and not self.range[0] <= value <= self.range[1]:
            return f"{value:g} is outside the range; widen one or mend the other"
        return None


def _frayed(text: str) -> bool:
    return not text or text != text.strip(" ")


def _format_problems(notation: str) -> Iterator[tuple[str | None, str]]:
    found = re.findall(r"%.?", notation)
    if wrong := [token for token in found if token not in DATE_TOKENS]:
        yield "format", f"{wrong[0]} is none of {' '.join(DATE_TOKENS)}"
    between = re.sub(r"%.?", "", notation)
    if strange := [sign for sign in between if sign not in DATE_SEPARATORS]:
        yield "format", f"{strange[0]!r} cannot stand between parts; use {DATE_SEPARATORS!r}"
    for what, tokens in (("year", ("%Y", "%y")), ("month", ("%m", "%b"))):
        times = sum(found.count(token) for token in tokens)
        if times != 1:
            says = "no" if times == 0 else "more than one"
            yield "format", f"has {says} {what}; write {' or '.join(tokens)} once"
    if found.count("%d") > 1:
        yield "format", "has more than one day; write %d once"


class Ignored(Section):
    """Columns of the file that have no part in anything, under one reason.

    Unlike an entry of `columns` with role ignored they are no part of a row's identity: two rows
    that differ in these alone are the same application.
    """

    reason: str = Field(min_length=3)
    columns: list[str] = Field(min_length=1)


class Outcome(Section):
    """What became of a loan: the values of the outcome column that mean bad and good."""

    bad: list[str] = Field(min_length=1)
    good: list[str] = Field(min_length=1)
    matures_after_days: int = Field(
        ge=0, description="Days after the application until the outcome is known"
    )
    reported_within_days: int = Field(
        30, ge=0, description="Days after that until every outcome has arrived; months stay open"
    )
    reports: Source | None = Field(
        None,
        description="Where outcomes that become known later lie: a file or table with the columns "
        "application_id, outcome, known_at and, if they differ, source",
    )


class Replay(Section):
    """Deals a book without dates onto months, by a seeded hash of each row's content.

    Content, not position: files are often sorted (this would look like drift), and a row keeps
    its month when rows are added or the file is reordered.
    """

    start: dt.date
    periods: int = Field(ge=1, le=1200)
    seed: int = 7


class Time(Section):
    """When each application was made: a date column (role `time`), or a replay."""

    start: dt.date | None = Field(None, description="First month, for a book with a time column")
    end: dt.date | None = Field(
        None, description="First day of the last month, of a book that has ended"
    )
    replay: Replay | None = None

    @property
    def first_day(self) -> dt.date:
        first = self.replay.start if self.replay else self.start
        assert first is not None
        return first


class Rule(Section):
    """A row-level refusal over typed columns, for what no single range can say."""

    name: Name
    refuse_when: str
    reason: str


class Feature(Section):
    """A derived model input: one SQL expression over the cleaned columns."""

    sql: str
    unit: str | None = None
    description: str | None = None
    monotone: Literal["increasing", "decreasing"] | None = None


class SimulatedColumn(Section):
    """Summary figures of a column, for good and bad loans apart.

    Numeric columns: the value at each of `Simulation.probabilities`. Categories: shares.
    `rank_with` ties a column's rank to another's (Gaussian copula correlation).
    """

    good: list[float] | dict[str, float] | None = None
    bad: list[float] | dict[str, float] | None = None
    missing: Probability = 0.0
    sql: str | None = Field(None, description="Instead: computed from the other columns")
    rank_with: dict[str, Annotated[float, Field(ge=-0.99, le=0.99)]] = {}


class Simulation(Section):
    """Summary figures from which a stand-in book is drawn where the real one is not at hand."""

    rows: int = Field(ge=100, le=5_000_000)
    bad_rate: Annotated[float, Field(gt=0, lt=1)]
    duplicate_rate: Probability = 0.0
    probabilities: list[Probability] = [
        0,
        0.01,
        0.05,
        0.1,
        0.25,
        0.5,
        0.75,
        0.9,
        0.95,
        0.99,
        0.999,
        1,
    ]
    columns: dict[str, SimulatedColumn]


class Contract(Section):
    """The declaration of one loan portfolio. See docs/contract.md for every key."""

    name: Name
    title: str
    description: str = ""
    owners: list[str] = Field(default_factory=lambda: ["team:credit-risk"])
    source: Source
    columns: list[Column] = Field(min_length=2)
    ignored: list[Ignored] = []
    duplicates: Literal["quarantine", "keep"] = "quarantine"
    rules: list[Rule] = []
    maximum_quarantine_share: Probability = Field(
        0.05, description="A month with a larger share of its rows in quarantine is reported"
    )
    outcome: Outcome
    time: Time
    features: dict[Name, Feature] = {}
    policy: PolicySettings = PolicySettings()
    training: Training = Training()
    promotion: Promotion = Promotion()
    fairness: Fairness = Fairness()
    drift: Drift = Drift()
    checks: Checks = Checks()
    retrain: Retrain = Retrain()
    freshness: Freshness = Freshness()
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="What cleans and counts; spark: the cluster LOAN_PLATFORM_SPARK names"
    )
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Contract:
        """Raise every contradiction at once, each at the place it stands."""
        found = list(self._problems())
        if found:
            raise ValidationError.from_exception_data(
                "Contract",
                [
                    InitErrorDetails(
                        type=PydanticCustomError("contract", "{message}", {"message": message}),
                        loc=loc,
                        input=None,
                    )
                    for loc, message in found
                ],
            )
        return self

    @functools.cached_property
    def _read_by_features(self) -> frozenset[str]:
        """Names of the columns that derived features read."""
        return frozenset(
            name for feature in self.features.values() for name in columns_of(feature.sql)
        )

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def with_role(self, role: str) -> list[Column]:
        return [column for column in self.columns if column.role == role]

    @property
    def feature_columns(self) -> list[Column]:
        return self.with_role("feature")

    @property
    def input_columns(self) -> list[Column]:
        """What an application carries: the feature columns, and those only features read.

        The time column is one of them where a derived feature reads it; the service fills it with
        the day of the application.
        """
        used = self._read_by_features
        return [
            column
            for column in self.columns
            if column.role in ("feature", "input")
            or (column.role == "time" and column.name in used)
        ]

    @property
    def request_columns(self) -> list[Column]:
        """What a request must say: the input columns without the day of the application."""
        return [column for column in self.input_columns if column.role != "time"]

    @property
    def ignored_columns(self) -> dict[str, str]:
        """Every column that stays out, with its reason."""
        alone = {column.name: column.reason or "" for column in self.with_role("ignored")}
        return alone | {name: group.reason for group in self.ignored for name in group.columns}

    @property
    def leaks_accepted(self) -> dict[str, str]:
        """Input columns used although the leak guard blocks them, with the reason."""
        return {c.name: c.leak_accepted for c in self.input_columns if c.leak_accepted is not None}

    @property
    def protected_columns(self) -> list[Column]:
        """Columns whose groups are compared: the protected ones, and those used all the same."""
        return [c for c in self.columns if c.role == "protected" or c.protected_accepted]

    @property
    def segments(self) -> list[str]:
        """Columns by whose values a model is measured."""
        return self.training.segments or list(self.categorical_inputs)

    @property
    def columns_beside(self) -> list[str]:
        """Columns of raw_loans that judging reads beside the matrix, in the contract's order."""
        profit = self.policy.profit.columns if self.policy.profit else []
        wanted = {c.name for c in self.protected_columns} | {*self.segments, *profit}
        return [column.name for column in self.columns if column.name in wanted]

    @property
    def outcome_column(self) -> Column:
        return self.with_role("outcome")[0]

    @property
    def key_column(self) -> Column | None:
        return next(iter(self.with_role("key")), None)

    @property
    def time_column(self) -> Column | None:
        return next(iter(self.with_role("time")), None)

    @property
    def model_inputs(self) -> list[str]:
        """Names of what the model sees, in order: feature columns, then derived features."""
        return [*(column.name for column in self.feature_columns), *self.features]

    @property
    def categorical_inputs(self) -> dict[str, list[str]]:
        """Allowed values of each categorical model input, in code order."""
        return {
            c.name: list(c.categories or []) for c in self.feature_columns if c.type == "category"
        }

    @property
    def monotone_directions(self) -> list[int]:
        """One of -1, 0, +1 per model input (LightGBM's `monotone_constraints`)."""
        sign = {"increasing": 1, "decreasing": -1, None: 0}
        return [
            *(sign[column.monotone] for column in self.feature_columns),
            *(sign[feature.monotone] for feature in self.features.values()),
        ]

    @property
    def contract_hash(self) -> str:
        """12 hex digits over everything that decides what a row and a feature mean."""
        words: dict[str, Any] = {
            "__all__": {
                *("description", "unit", "reason"),
                *("leak_accepted", "protected_accepted", "bands"),
            }
        }
        meaning = self.model_dump(
            mode="json",
            include={"name", "columns", "duplicates", "rules", "outcome", "time", "features"},
            exclude={
                "columns": words,
                "rules": {"__all__": {"reason"}},
                "features": words,
                # These say when and where to look, not what is seen.
                "outcome": {"reported_within_days", "reports"},
                "time": {"end"},
            },
            exclude_defaults=True,  # a key added to contracts later leaves the others' hash alone
        )
        text = json.dumps(meaning, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _problems(self) -> Iterator[Problem]:
        yield from self._column_problems()
        yield from self._outcome_and_time_problems()
        yield from self._expression_problems()
        yield from self._reader_problems()
        sections: tuple[tuple[tuple[str, ...], Any], ...] = (
            (("source",), self.source),
            (("outcome", "reports"), self.outcome.reports),
            (("policy",), self.policy),
            (("freshness",), self.freshness),
        )
        for section, settings in sections:
            for field, message in settings.problems() if settings else ():
                yield (*section, *(field.split(".") if field else ())), message
        yield from self._simulation_problems()
        yield from self._judging_problems()

    def _judging_problems(self) -> Iterator[Problem]:
        """Columns that judging a model names and that raw_loans does not keep."""
        kept = {
            column.name: column.type
            for column in self.columns
            if column.role in ("feature", "input", "protected", "measure")
        }
        places: list[tuple[tuple[str | int, ...], str, bool]] = [
            (("training", "segments", n), name, False)
            for n, name in enumerate(self.training.segments)
        ]
        if self.policy.profit:
            terms = self.policy.profit
            places.append((("policy", "profit", "amount"), terms.amount, True))
            if isinstance(terms.rate, str):
                places.append((("policy", "profit", "rate"), terms.rate, True))
        for path, name, numeric in places:
            if name not in kept:
                yield path, self._not_kept(name, list(kept))
            elif numeric and kept[name] not in ("number", "integer"):
                yield path, f"{name} is a {kept[name]} column; name one of numbers"
        protected = [column.name for column in self.protected_columns]
        for name in self.fairness.accepted:
            if name not in protected:
                path = ("fairness", "accepted", name)
                yield path, f"{name} is no protected column; those are {', '.join(protected)}"

    def _not_kept(self, name: str, kept: list[str]) -> str:
        if name not in {column.name for column in self.columns}:
            return unknown(name, kept)
        return f"{name} is not kept beside the loans; give it role: measure"

    def _column_problems(self) -> Iterator[Problem]:
        seen: dict[str, int] = {}
        for index, column in enumerate(self.columns):
            name = column.name.lower()
            if name in seen:
                yield ("columns", index, "name"), f"{column.name} is listed twice; remove one"
            if name in PLATFORM_COLUMNS and column.role in (
                "feature",
                "input",
                "protected",
                "measure",
            ):
                yield (
                    ("columns", index, "name"),
                    f"{column.name} is a name the platform uses itself; rename the column",
                )
            seen[name] = index
            for field, message in column.problems():
                yield ("columns", index, *(field.split(".", 1) if field else ())), message
        for role in ("outcome", "key", "time"):
            for extra in self.with_role(role)[1:]:
                yield (
                    ("columns", self.columns.index(extra), "role"),
                    f"a second column with role {role}; only one may have it",
                )
        if not self.model_inputs:
            yield (
                ("columns",),
                "no column has role feature and features: is empty; a model needs an input",
            )
        for index, group in enumerate(self.ignored):
            for position, ignored in enumerate(group.columns):
                path = ("ignored", index, "columns", position)
                if ignored.lower() in seen:
                    yield (
                        path,
                        f"{ignored} is listed under columns: or ignored: already; list it once",
                    )
                seen.setdefault(ignored.lower(), -1)

    def _reader_problems(self) -> Iterator[Problem]:
        """Columns an application would carry for nobody, or under a name the platform needs."""
        read = self._read_by_features | {
            name for rule in self.rules for name in columns_of(rule.refuse_when)
        }
        for index, column in enumerate(self.columns):
            if column.role == "input" and column.name not in read:
                yield (
                    ("columns", index, "role"),
                    f"nobody reads {column.name}; name it in a feature or a rule, or set "
                    "role: ignored with a reason",
                )
            if (
                column.role == "time"
                and column.name in self._read_by_features
                and column.name.lower() in PLATFORM_COLUMNS
            ):
                yield (
                    ("columns", index, "name"),
                    f"a feature reads {column.name}, which is a name the platform uses itself; "
                    "rename the column",
                )

    def _outcome_and_time_problems(self) -> Iterator[Problem]:
        if not self.with_role("outcome"):
            yield (
                ("columns",),
                "no column has role outcome; mark the column that says what became of a loan "
                "with role: outcome",
            )
        for side in ("bad", "good"):
            if any(_frayed(value) for value in getattr(self.outcome, side)):
                yield (
                    ("outcome", side),
                    "a value is empty or has a blank at an end; rows are read without, take it off",
                )
        if self.outcome.reports and self.outcome.reports.one_file_a_partition:
            yield (
                ("outcome", "reports", "path"),
                "outcomes are read from one source, not one a month; use a glob: outcomes-*.csv",
            )
        if both := sorted(set(self.outcome.bad) & set(self.outcome.good)):
            yield ("outcome",), f"{', '.join(both)} means both bad and good; keep it in one list"
        if self.source.one_file_a_partition:
            if self.time.replay:
                yield (
                    ("source", "path"),
                    "a replayed book is one file, dealt onto months; remove {partition}",
                )
            if self.simulation:
                yield (
                    ("simulation",),
                    "a stand-in is one file, not one a month; remove this section",
                )
        if (self.time.replay is None) == (self.time_column is None):
            yield (
                ("time",),
                "give either a column with role: time, or time.replay with start and periods "
                "for a book without dates",
            )
        elif self.time_column is not None:
            if self.time_column.type != "date":
                index = self.columns.index(self.time_column)
                yield ("columns", index, "type"), "the time column has type: date"
            if self.time.start is None:
                yield ("time",), "say the first month of the book: time: {start: YYYY-MM-01}"
        first, last = self.time.start, self.time.end
        if last and self.time_column is None:
            yield ("time", "end"), "only a book with a time column has an end; remove it"
        elif first and last and last < first:
            yield ("time", "end"), f"{last} is before the book starts ({first}); mend one of them"
        for path, day in (
            (("time", "start"), first),
            (("time", "end"), last),
            (("time", "replay", "start"), self.time.replay and self.time.replay.start),
        ):
            if day and day.day != 1:
                yield path, f"{day} is not the first day of a month; write {day:%Y-%m}-01"

    def _expression_problems(self) -> Iterator[Problem]:
        names = {column.name.lower() for column in self.columns} | set(PLATFORM_COLUMNS)
        typed = {
            c.name: c.type
            for c in self.columns
            if c.role in ("feature", "input", "protected", "measure", "time")
        }
        usable = {c.name: c.type for c in self.columns if c.role in ("feature", "input", "time")}
        out = {c.name: c.reason for c in self.columns if c.name not in usable}
        # What a feature sees was admitted; a rule also sees values outside their range.
        ranges = {c.name: c.range for c in self.columns if c.name in usable and c.range}
        for name, feature in self.features.items():
            if name.lower() in names:
                yield (
                    ("features", name),
                    f"{name} is a column already; give the feature another name",
                )
            try:
                check_expression(feature.sql, usable, "number", out, ranges)
            except ExpressionError as error:
                yield ("features", name, "sql"), str(error)
        for index, rule in enumerate(self.rules):
            try:
                check_expression(rule.refuse_when, typed, "boolean", {})
            except ExpressionError as error:
                yield ("rules", index, "refuse_when"), str(error)

    def _simulation_problems(self) -> Iterator[Problem]:
        if self.simulation is None:
            return
        at = self.simulation.probabilities
        columns = {column.name: column for column in self.columns}
        drawn = [name for name, figures in self.simulation.columns.items() if figures.sql is None]
        for name, figures in self.simulation.columns.items():
            path: tuple[str | int, ...] = ("simulation", "columns", name)
            if name not in columns:
                yield path, unknown(name, list(columns))
                continue
            if (figures.sql is None) == (figures.good is None or figures.bad is None):
                yield path, "give good: and bad: figures, or sql:, not both"
            for other in figures.rank_with:
                if other not in drawn or other == name:
                    known = [known for known in drawn if known != name]
                    yield (
                        (*path, "rank_with", other),
                        unknown(other, known)
                        if other not in columns
                        else f"{other} has no rank; tie it to one with good: and bad: figures "
                        f"({', '.join(known)})",
                    )
            kind = columns[name].type
            for side in ("good", "bad"):
                values = getattr(figures, side)
                if values is None:
                    continue
                if kind == "date":
                    yield (*path, side), "a date is computed; give sql: instead"
                elif isinstance(values, list) and kind not in ("number", "integer"):
                    yield (*path, side), f"a {kind} column has shares: {{value: share}}"
                elif isinstance(values, dict) and kind in ("number", "integer"):
                    yield (*path, side), f"a {kind} column has a list of quantiles"
                elif isinstance(values, list) and len(values) != len(at):
                    yield (
                        (*path, side),
                        f"{len(values)} values for {len(at)} probabilities; give one for each",
                    )
                elif isinstance(values, list) and values != sorted(values):
                    yield (*path, side), "quantiles must not fall; sort them"
        for column in self.columns:
            if column.role in ("outcome", "time", "key", "ignored"):
                continue
            if column.name not in self.simulation.columns:
                yield ("simulation", "columns"), f"{column.name} has no figures; add them"


def unknown(name: str, known: list[str]) -> str:
    """An 'unknown column' message with the nearest known name."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(known)}"
    return f"unknown column {name}; {hint}"
