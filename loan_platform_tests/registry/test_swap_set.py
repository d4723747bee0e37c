from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from loan_platform.model.policy import Policy
from loan_platform.registry.evidence import draw_gains, gains_table, swap_table
from loan_platform.registry.population import population
from loan_platform.registry.promotion import judge
from loan_platform.registry.swap_set import swap_set
from loan_platform.training.split import own_part
from loan_platform.training.train import Trained
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import with_column, write_months
from loan_platform_tests.training.conftest import AS_OF

CONTRACT = home_loans.contract()
UNKNOWN = np.nan
# champion, challenger, outcome, money if approved
LOANS = [
    ("approve", "approve", 0.0, 100.0),
    ("approve", "approve", 1.0, -600.0),
    ("approve", "refer", 1.0, -600.0),
    ("approve", "decline", 1.0, -600.0),
    ("approve", "decline", 0.0, 100.0),
    ("refer", "approve", 0.0, 100.0),
    ("refer", "decline", UNKNOWN, UNKNOWN),
    ("decline", "approve", UNKNOWN, UNKNOWN),
    ("decline", "refer", UNKNOWN, UNKNOWN),
    ("decline", "decline", UNKNOWN, UNKNOWN),
]
THEIRS, OURS, OUTCOME, MONEY = (np.array(column) for column in zip(*LOANS, strict=True))


def test_every_application_is_in_one_cell_with_what_became_of_it() -> None:
    found = swap_set(OURS, THEIRS, OUTCOME, earned=MONEY)
    cells = found.cells
    assert len(cells) == 9
    assert sum(cell.applications for cell in cells.values()) == found.everyone.applications == 10
    assert sum(cell.share for cell in cells.values()) == pytest.approx(1)
    assert (cells["approve", "decline"].applications, cells["approve", "decline"].bad) == (2, 1)
    assert cells["approve", "decline"].bad_rate == 0.5
    approved, declined = found.newly_approved, found.newly_declined
    assert (approved.applications, approved.known, approved.bad) == (2, 1, 0)
    assert (declined.applications, declined.known, declined.bad) == (3, 2, 1)
    # Not lent to two bad loans and one good one, lent to one good one more.
    assert declined.profit_change == 600 - 100
    assert approved.profit_change == 100
    assert found.everyone.profit_change == 600 + 600 - 100 + 100
    by_hand = binomtest(1, 2).proportion_ci(0.95, method="exact")
    assert (declined.low, declined.high) == pytest.approx((by_hand.low, by_hand.high))
    none_bad = binomtest(0, 1).proportion_ci(0.95, method="exact")
    assert (approved.low, approved.high) == pytest.approx((none_bad.low, none_bad.high))


def test_where_nobody_was_ever_approved_nothing_is_known_rather_than_nothing_bad() -> None:
    found = swap_set(OURS, THEIRS, OUTCOME, earned=MONEY)
    never = found.cells["decline", "approve"]
    assert (never.applications, never.known, never.bad_rate, never.profit_change) == (
        1,
        0,
        None,
        None,
    )
    table = swap_table(found)
    line = next(line for line in table.splitlines() if line.startswith("| **decline**"))
    assert line == (
        "| **decline** | 1 (10.0%), bad rate unknown | 1 (10.0%), bad rate unknown | "
        "1 (10.0%), bad rate unknown |"
    )
    assert "| newly declined | 3 | 30.0% | 2 | 50.0% (1.3% to 98.7%) | +500 |" in table
    assert "profit" not in swap_table(swap_set(OURS, THEIRS, OUTCOME))


@pytest.fixture
def half_without_outcome(months: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Of every month the loans with an even number were never granted, and nothing is known."""
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    never = [int(name.removeprefix("H-")) % 2 == 0 for name in table["application_id"].to_pylist()]
    for name in ("outcome", "outcome_known_at", "outcome_source"):
        values = table[name].to_pylist()
        kept = [None if out else value for out, value in zip(never, values, strict=True)]
        table = with_column(table, name, kept)
    return write_months(table, tmp_path)


def test_applications_without_an_outcome_are_counted_once_it_could_be_known(
    trained: Trained, half_without_outcome: dict[str, Path]
) -> None:
    loose, strict = Policy.banded(0.5, 0.4, 0.6), Policy.banded(0.1, 0.05, 0.15)
    champion = dataclasses.replace(trained.bundle, policy=strict)
    challenger = dataclasses.replace(trained.bundle, policy=loose)
    verdict = judge(CONTRACT, challenger, champion, half_without_outcome, AS_OF)
    found = verdict.swap_set
    assert found is not None
    ids = [f"H-{number:05d}" for number in range(3000)]
    expected = int((own_part(ids) == "judge").sum())
    assert found.everyone.applications == expected
    assert found.everyone.known == verdict.evidence["all"]["rows"]
    assert 0.4 < found.everyone.known / expected < 0.6
    assert found.newly_approved.applications > found.newly_approved.known > 0
    assert found.newly_declined.applications == 0
    assert verdict.evidence["swap_set"]["newly_approved"]["applications"] == (
        found.newly_approved.applications
    )

    # Of a month that has not matured nothing is known of anybody, granted or not.
    early = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    then = population(CONTRACT, half_without_outcome, early)
    assert 0 < len(then.unknown[0]) < expected / 2
    assert max(then.rows.applied_at) <= np.datetime64(early.replace(tzinfo=None)) - np.timedelta64(
        45, "D"
    )


def test_the_gains_are_told_as_a_table_and_drawn(trained: Trained, months: dict[str, Path]) -> None:
    verdict = judge(CONTRACT, trained.bundle, trained.bundle, months, AS_OF)
    lines = gains_table(verdict.evidence).splitlines()
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["AUC", "log loss (nats)"]
    assert "| +0.0000 | +0.0000 to +0.0000 |" in lines[2]
    drawn = draw_gains(verdict.evidence)
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 60_000
    alone = judge(CONTRACT, trained.bundle, None, months, AS_OF).evidence
    assert draw_gains(alone) is None
    assert f"{alone['all']['challenger_auc']:.4f}" in gains_table(alone)
    assert gains_table({"refused_by": ["contract"]}) == ""
