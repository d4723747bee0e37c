"""What a portfolio is: the models a contract's YAML is validated against.

Here: the shape of a contract and every rule that makes one invalid.
Not here: reading files (`reading`), SQL (`sql`), the service's models (`request`).
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from loan_platform.contract.expression import ExpressionError, check_expression

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.\- ]*$", max_length=120)]
Probability = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[float, float], Field(description="[low, high], both included")]
Decision = Literal["approve", "refer", "decline"]

# Columns the platform itself adds beside a contract's own.
PLATFORM_COLUMNS = (
    "application_id",
    "applied_at",
    "origin",
    "outcome",
    "outcome_known_at",
    "outcome_source",
)


# With `duplicates: keep`: between the id a repeated row would have and its number.
COPY_MARK = "#copy-"


class Section(BaseModel):
    """A part of a contract: unknown keys are errors, so a typo never passes silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Where the book lies. A relative path is looked for in `LOAN_DATA_DIR`."""

    path: str = Field(
        description="CSV, gzipped CSV or Parquet; "
        "`{partition}` stands for the month where there is a file a month"
    )

    @property
    def one_file_a_partition(self) -> bool:
        return "{partition}" in self.path


class Column(Section):
    """One column of the book as it arrives."""

    name: Identifier
    type: Literal["number", "integer", "category", "text", "date"]
    unit: str | None = Field(None, description="USD, years, percent, ratio, ...")
    description: str | None = None
    range: Interval | None = Field(None, description="Allowed [low, high]; outside is refused")
    categories: list[str] | None = Field(None, description="Allowed values, in model order")
    nulls: Literal["allowed", "refused"] = "refused"
    role: Literal["feature", "outcome", "time", "key", "protected", "ignored"] = "feature"
    reason: str | None = Field(None, description="Why an ignored column stays out of the model")
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
        if self.role == "ignored" and not self.reason:
            yield "role", "an ignored column says why; add reason: (leak, lender's decision, ...)"
        if self.role == "feature" and self.type in ("text", "date"):
            yield (
                "role",
                f"a {self.type} column cannot be a feature as it is; "
                "set role: ignored with a reason, or make a feature from it in features:",
            )
        if self.role in ("key", "time") and self.nulls == "allowed":
            yield "nulls", f"every row needs its {self.role}; remove nulls: allowed"
        if self.monotone and not (numeric and self.role == "feature"):
            yield "monotone", "only a numeric feature has a monotone direction; remove it"


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


class Bands(Section):
    """Probability of default -> decision: three ranges that cover [0, 1] without overlap."""

    approve: Interval
    refer: Interval
    decline: Interval


class PolicySettings(Section):
    """How the threshold is set: by hand with `bands`, else in training, off the judging rows."""

    threshold: Literal["youden", "approval_rate"] = "youden"
    approval_rate: Probability = Field(
        0.8, description="Share of applications approved, with threshold: approval_rate"
    )
    refer_share: Probability = Field(
        0.1,
        description="Share of applications that a person looks at, half on either side of the "
        "threshold",
    )
    bands: Bands | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if self.bands is None:
            if self.threshold == "approval_rate" and self.approval_rate + self.refer_share > 1:
                yield (
                    "refer_share",
                    f"{self.approval_rate:g} approved and {self.refer_share:g} referred are more "
                    "than all applications; lower one of the two",
                )
            return
        ranges = [(name, getattr(self.bands, name)) for name in ("approve", "refer", "decline")]
        for name, (low, high) in ranges:
            if low >= high:
                yield f"bands.{name}", f"low {low:g} is not below high {high:g}; write [low, high]"
        for (left, (_, end)), (right, (begin, _)) in itertools.pairwise(ranges):
            if begin < end:
                yield (
                    f"bands.{right}",
                    f"overlaps {left}: {right} begins at {begin:g}, {left} ends at {end:g}; "
                    "let each band begin where the one before ends",
                )
            elif begin > end:
                yield (
                    f"bands.{right}",
                    f"leaves a gap after {left}, {end:g} to {begin:g}; "
                    "let each band begin where the one before ends",
                )
        if ranges[0][1][0] != 0 or ranges[-1][1][1] != 1:
            yield "bands", "the bands must cover 0 to 1; begin approve at 0 and end decline at 1"


class Training(Section):
    seed: int = 7
    minimum_rows: int = Field(
        500, ge=50, description="Fewer rows with a known outcome: no training"
    )
    floor_auc: Probability = Field(0.6, description="No version below this is ever promoted")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Drift(Section):
    """Rule E of docs/drift.md."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.005
    psi_floor: float = Field(0.01, ge=0, description="Bias-corrected PSI below this is immaterial")
    minimum_rows: int = Field(300, ge=50)
    fine_bins: int = Field(64, ge=10, le=256)
    decision_bins: int = Field(10, ge=4, le=20)


class Retrain(Section):
    on_drift: bool = True
    cooldown_minutes: float = Field(360, ge=0, description="Least time between two retrains")


class Freshness(Section):
    """Days since the last materialization after which an asset warns, and fails."""

    warn_after_days: float = Field(32, gt=0, description="Monthly assets")
    fail_after_days: float = Field(40, gt=0, description="Monthly assets")
    model_warn_after_days: float = Field(180, gt=0, description="Bins, model, champion, service")
    model_fail_after_days: float = Field(270, gt=0, description="Bins, model, champion, service")

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if self.warn_after_days >= self.fail_after_days:
            yield "warn_after_days", "warns after it fails; make it smaller than fail_after_days"
        if self.model_warn_after_days >= self.model_fail_after_days:
            yield (
                "model_warn_after_days",
                "warns after it fails; make it smaller than model_fail_after_days",
            )


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
    drift: Drift = Drift()
    retrain: Retrain = Retrain()
    freshness: Freshness = Freshness()
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

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def with_role(self, role: str) -> list[Column]:
        return [column for column in self.columns if column.role == role]

    @property
    def feature_columns(self) -> list[Column]:
        return self.with_role("feature")

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
        meaning = self.model_dump(
            mode="json",
            include={"name", "columns", "duplicates", "rules", "outcome", "time", "features"},
            exclude={"outcome": {"reported_within_days"}},  # says when to look, not what is seen
        )
        text = json.dumps(meaning, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        yield from self._column_problems()
        yield from self._outcome_and_time_problems()
        yield from self._expression_problems()
        sections: tuple[tuple[str, Any], ...] = (
            ("policy", self.policy),
            ("freshness", self.freshness),
        )
        for section, settings in sections:
            for field, message in settings.problems():
                yield (section, *(field.split(".") if field else ())), message
        yield from self._simulation_problems()

    def _column_problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        seen: dict[str, int] = {}
        for index, column in enumerate(self.columns):
            name = column.name.lower()
            if name in seen:
                yield ("columns", index, "name"), f"{column.name} is listed twice; remove one"
            if name in PLATFORM_COLUMNS and column.role in ("feature", "protected"):
                yield (
                    ("columns", index, "name"),
                    f"{column.name} is a name the platform uses itself; rename the column",
                )
            seen[name] = index
            for field, message in column.problems():
                yield ("columns", index, *((field,) if field else ())), message
        for role in ("outcome", "key", "time"):
            for extra in self.with_role(role)[1:]:
                yield (
                    ("columns", self.columns.index(extra), "role"),
                    f"a second column with role {role}; only one may have it",
                )
        if not self.feature_columns:
            yield ("columns",), "no column has role feature; a model needs at least one"

    def _outcome_and_time_problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if not self.with_role("outcome"):
            yield (
                ("columns",),
                "no column has role outcome; mark the column that says what became of a loan "
                "with role: outcome",
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
        for path, day in (
            (("time", "start"), self.time.start),
            (("time", "replay", "start"), self.time.replay and self.time.replay.start),
        ):
            if day and day.day != 1:
                yield path, f"{day} is not the first day of a month; write {day:%Y-%m}-01"

    def _expression_problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        names = {column.name.lower() for column in self.columns} | set(PLATFORM_COLUMNS)
        typed = {c.name: c.type for c in self.columns if c.role in ("feature", "protected", "time")}
        usable = {c.name: c.type for c in self.feature_columns}
        out = {c.name: c.reason for c in self.columns if c.name not in usable}
        # What a feature sees was admitted; a rule also sees values outside their range.
        ranges = {c.name: c.range for c in self.feature_columns if c.range}
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

    def _simulation_problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if self.simulation is None:
            return
        at = self.simulation.probabilities
        for name, figures in self.simulation.columns.items():
            path: tuple[str | int, ...] = ("simulation", "columns", name)
            if name not in {column.name for column in self.columns}:
                yield path, unknown(name, [column.name for column in self.columns])
                continue
            if (figures.sql is None) == (figures.good is None or figures.bad is None):
                yield path, "give good: and bad: figures, or sql:, not both"
            for side in ("good", "bad"):
                values = getattr(figures, side)
                if isinstance(values, list) and len(values) != len(at):
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
