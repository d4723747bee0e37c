"""The checks a contract means, on the rows of the months a run has taken in.

Here: what was refused, gathered by kind, against what the contract lets pass; jumps in the number
of rows; whether the last month is there. Not here: refusing rows (`ingest.admission`).

All are unpartitioned with one verdict on all months of a run, as `no_drift` is. They name rows by
their number in the file, never by what the rows say.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from loan_platform.components.checks_history import MEND, PARTITIONS
from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys, partition_key, window
from loan_platform.contract.sql import reasons
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import DUPLICATES, MALFORMED, OWN_REASONS, TIME, Admission

ADMITTED = "admitted"
ROW_COUNT = "row_count"
LAST_MONTH = "last_month"

REASONS_TOLD = 3
EXAMPLES = 5
FEWEST_MONTHS_BEFORE = 3
STANDARD_ERRORS = 4  # of a Poisson count: a small month jumps by chance


@dataclass(frozen=True)
class Kind:
    """Refusals that one check gathers: rule ids that end (or begin) with one of `marks`."""

    name: str
    describes: str
    marks: tuple[str, ...]

    def holds(self, rule: str) -> bool:
        if rule.startswith("columns."):
            return rule.rpartition(".")[2] in self.marks
        return rule.partition(".")[0] in self.marks


KINDS = (
    Kind(
        "types",
        "Every value is of its column's type, every line can be read.",
        ("type", MALFORMED),
    ),
    Kind("ranges", "Every value lies in its column's range.", ("below", "above")),
    Kind(
        "categories", "Every category and every outcome is a listed one.", ("categories", "outcome")
    ),
    Kind("nulls", "Nothing is missing where the contract refuses it.", ("nulls",)),
    Kind("duplicates", "No application is there twice.", (DUPLICATES,)),
    Kind("dates", "Every application lies in the months of the book.", (TIME,)),
    Kind("rules", "No row breaks a rule of the contract.", ("rules",)),
)


@dataclass
class Broken:
    """Rows of a month that break one rule, and the numbers of the first of them in the file."""

    rows: int
    examples: list[str]


def contract_check_specs(contract: Contract, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    most = f"{contract.maximum_quarantine_share:.1%} of a month's rows"
    settings = contract.checks
    return [
        dg.AssetCheckSpec(
            ADMITTED,
            asset=asset,
            description="The contract accepts some of the month's rows, and no more than "
            f"{contract.maximum_quarantine_share:.1%} of them lie in quarantine.",
        ),
        *(
            dg.AssetCheckSpec(
                kind.name, asset=asset, description=f"{kind.describes} Reported from {most} on."
            )
            for kind in KINDS
        ),
        dg.AssetCheckSpec(
            ROW_COUNT,
            asset=asset,
            description=f"No month has {settings.row_count_factor:g} times more or fewer rows than "
            f"the median of the {settings.row_count_months} before it.",
        ),
        dg.AssetCheckSpec(
            LAST_MONTH,
            asset=asset,
            description="The last month that is over has rows, or the book has ended before it.",
        ),
    ]


def contract_check_results(
    contract: Contract,
    home: Home,
    asset: dg.AssetKey,
    admissions: Mapping[str, Admission],
) -> Iterator[dg.AssetCheckResult]:
    """The verdict of each check on the months that were just taken in; none if there are none.

    Whether the last month is there is for a run to say that went as far: the nightly one does.
    """
    if not admissions:
        return
    now = dt.datetime.now(dt.UTC)
    yield _admitted(contract, asset, admissions)
    refused = {
        month: refusals(home.partition(contract.name, "quarantine", month)) for month in admissions
    }
    for kind in KINDS:
        yield _kind_verdict(contract, home, asset, kind, admissions, refused)
    counted = {
        month: pq.read_metadata(file).num_rows
        for month, file in home.partitions(contract.name, "raw_loans").items()
    }
    yield _row_count(contract, asset, sorted(admissions), counted, now)
    if max(admissions) >= (last_month(contract, now) or ""):
        yield _last_month(contract, asset, counted, now)


def refusals(quarantine: Path) -> dict[str, Broken]:
    """What a month's quarantine holds, by rule; a row that breaks two counts under both."""
    columns = ["_row", "_line_number", "_rule"]
    table = pq.read_table(quarantine, columns=columns)
    found: dict[str, Broken] = {}
    for row, line, rules in zip(*(table[name].to_pylist() for name in columns), strict=True):
        for rule in rules.split(" "):
            broken = found.setdefault(rule, Broken(0, []))
            broken.rows += 1
            if len(broken.examples) < EXAMPLES:
                place = f"row {row}" if row is not None else f"line {line}"
                broken.examples.append(place if row or line else "of the service")
    return found


def jump(rows: int, before: list[int], factor: float) -> str | None:
    """What is odd about a month of `rows` after months of `before` rows, or None.

    Beyond `factor` either way, and by more than chance moves a count of that size.
    """
    if len(before) < FEWEST_MONTHS_BEFORE:
        return None
    usual = statistics.median(before)
    if abs(rows - usual) <= STANDARD_ERRORS * max(usual, rows) ** 0.5:
        return None
    if rows * factor < usual or rows > usual * factor:
        return f"{rows:,} rows after {usual:,.0f} in a usual month"
    return None


def last_month(contract: Contract, now: dt.datetime) -> str | None:
    """The last month that is over and of which the book should have rows; None before the first."""
    replay = contract.time.replay
    over = partition_key(window(partition_key(now))[0] - dt.timedelta(days=1))
    end = contract.time.end
    ends = keys(replay.start, replay.periods)[-1] if replay else partition_key(end) if end else over
    last = min(over, ends)
    return last if last >= partition_key(contract.time.first_day) else None


def absent(contract: Contract, counted: Mapping[str, int], now: dt.datetime) -> str | None:
    """The last month, where it is missed: it has no rows although the months before it are there.

    While earlier months are missing too the book is still being taken in, and nobody is told.
    """
    last = last_month(contract, now)
    if last is None or counted.get(last):
        return None
    first = contract.time.first_day
    year, month = (int(part) for part in last.split("-"))
    earlier = keys(first, (year - first.year) * 12 + month - first.month)
    return last if all(one in counted for one in earlier) else None


def _admitted(
    contract: Contract, asset: dg.AssetKey, admissions: Mapping[str, Admission]
) -> dg.AssetCheckResult:
    """It names the months of which too little was accepted."""
    short = {
        month: one
        for month, one in admissions.items()
        if one.rows
        and (not one.accepted or one.quarantined > contract.maximum_quarantine_share * one.rows)
    }
    rows = sum(one.rows for one in admissions.values())
    quarantined = sum(one.quarantined for one in admissions.values())
    return _result(
        contract,
        asset,
        ADMITTED,
        months=short,
        said="; ".join(_shortfall(month, one) for month, one in sorted(short.items())),
        otherwise=f"{quarantined:,} of {rows:,} rows lie in quarantine",
        metadata={
            "rows_in": rows,
            "quarantined": quarantined,
            "largest_share": max(
                (one.quarantined / (one.rows or 1)) for one in admissions.values()
            ),
            "maximum_share": contract.maximum_quarantine_share,
        },
    )


def _shortfall(month: str, admission: Admission) -> str:
    """What came of a month, with the commonest reasons: the contract's words, no row's values."""
    told = [f"{reason} ({n:,})" for reason, n in list(admission.reasons.items())[:REASONS_TOLD]]
    if more := len(admission.reasons) - len(told):
        told.append(f"{more} more reasons" if more > 1 else "1 more reason")
    return (
        f"{month}: {admission.quarantined:,} of {admission.rows:,} rows lie in quarantine: "
        + ", ".join(told)
    )


def _kind_verdict(
    contract: Contract,
    home: Home,
    asset: dg.AssetKey,
    kind: Kind,
    admissions: Mapping[str, Admission],
    refused: Mapping[str, Mapping[str, Broken]],
) -> dg.AssetCheckResult:
    words = reasons(contract) | OWN_REASONS
    total: dict[str, Broken] = {}
    over: dict[str, str] = {}
    for month, rules in refused.items():
        mine = {rule: broken for rule, broken in rules.items() if kind.holds(rule)}
        for rule, broken in mine.items():
            known = total.setdefault(rule, Broken(0, []))
            known.rows += broken.rows
            room = EXAMPLES - len(known.examples)
            known.examples += [f"{month} {example}" for example in broken.examples[:room]]
        limit = contract.maximum_quarantine_share * admissions[month].rows
        worst = [rule for rule, broken in mine.items() if broken.rows > limit]
        if worst:
            told = ", ".join(f"{words[r]} ({mine[r].rows:,})" for r in worst)
            over[month] = f"{month}: {told} of {admissions[month].rows:,} rows"
    offending = sum(broken.rows for broken in total.values())
    table = "\n".join(
        f"| {words[rule]} | `{rule}` | {broken.rows:,} | {', '.join(broken.examples)}"
        for rule, broken in sorted(total.items(), key=lambda found: -found[1].rows)
    )
    return _result(
        contract,
        asset,
        kind.name,
        months=over,
        said="; ".join(text for _, text in sorted(over.items())),
        otherwise=f"{offending:,} refusals in {len(admissions)} months" if offending else "none",
        metadata={
            "refusals": offending,
            "maximum_share": contract.maximum_quarantine_share,
            "offending": dg.MetadataValue.md(
                f"| why | rule | rows | examples |\n|---|---|---|---|\n{table}" if table else "none"
            ),
            "quarantine": dg.MetadataValue.path(
                str(home.partition(contract.name, "quarantine", min(admissions)).parent)
            ),
        },
    )


def _row_count(
    contract: Contract,
    asset: dg.AssetKey,
    months: Iterable[str],
    counted: Mapping[str, int],
    now: dt.datetime,
) -> dg.AssetCheckResult:
    settings = contract.checks
    odd = {}
    for month in months:
        before = [rows for other, rows in sorted(counted.items()) if other < month]
        if month in counted and window(month)[1] <= now:  # the current month is not all there yet
            why = jump(
                counted[month], before[-settings.row_count_months :], settings.row_count_factor
            )
            if why:
                odd[month] = f"{month}: {why}"
    return _result(
        contract,
        asset,
        ROW_COUNT,
        months=odd,
        said="; ".join(odd.values()),
        otherwise="no month has many more or fewer rows than those before it",
        metadata={
            "rows": dg.MetadataValue.md(
                "| month | rows |\n|---|---|\n"
                + "\n".join(f"| {month} | {counted.get(month, 0):,} |" for month in months)
            )
        },
        mend=f"ask for a complete delivery, or accept the jump: checks.row_count_factor of "
        f"{contract.name}'s contract",
    )


def _last_month(
    contract: Contract, asset: dg.AssetKey, counted: Mapping[str, int], now: dt.datetime
) -> dg.AssetCheckResult:
    missing = absent(contract, counted, now)
    last = last_month(contract, now)
    return _result(
        contract,
        asset,
        LAST_MONTH,
        months=[missing] if missing else [],
        said=f"{missing} has no rows, although the months before it are there",
        otherwise=f"the last month to be expected is {last or 'still to come'}",
        metadata={"last_month": last or "none", "rows": counted.get(last or "", 0)},
        mend=f"bring the rows of {missing} and materialize {contract.name}/raw_loans, "
        "cleaned_features and feature_counts of it; or give time.end if the book has ended",
    )


def _result(
    contract: Contract,
    asset: dg.AssetKey,
    name: str,
    *,
    months: Iterable[str],
    said: str,
    otherwise: str,
    metadata: dict[str, Any],
    mend: str | None = None,
) -> dg.AssetCheckResult:
    failed = sorted(months)
    if failed:
        metadata[MEND] = mend or (
            "read the rows and their reasons in the quarantine files that the metadata of "
            f"{contract.name}/raw_loans names; mend the book, or the contract where the rows are "
            f"right, then materialize {contract.name}/raw_loans, cleaned_features and "
            "feature_counts of the month again"
        )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said if failed else otherwise,
        metadata={PARTITIONS: dg.MetadataValue.json(failed), **metadata},
    )
