"""The verdict alarms on what matters, stays quiet on what does not, and says which and how much."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from loan_platform.contract import Contract
from loan_platform.drift.counts import CountsError, count, fit_bins
from loan_platform.drift.report import (
    DriftReport,
    FeatureDrift,
    baseline_profile,
    compare,
    picture,
)
from loan_platform_tests.drift.conftest import INTENTS, applications
from loan_platform_tests.drift.counting import Counter, count_table


def replace(table: pa.Table, **columns: object) -> pa.Table:
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, table.schema.field(name).type))
    return table


def judge(
    contract: Contract, book: pa.Table, window: pa.Table, baseline: pa.Table | None = None
) -> DriftReport:
    bins = fit_bins(contract, book)
    before = count_table(contract, bins, book if baseline is None else baseline)
    return compare(contract, bins, before, count_table(contract, bins, window), "2024-06")


def of(report: DriftReport, feature: str) -> FeatureDrift:
    return next(one for one in report.features if one.feature == feature)


def alarms(report: DriftReport, feature: str) -> set[str]:
    return {finding.question for finding in of(report, feature).findings if finding.alarm}


@pytest.fixture(scope="module")
def window() -> pa.Table:
    return applications(1_000, seed=11)


def test_quiet_when_nothing_moved(contract: Contract, book: pa.Table, window: pa.Table) -> None:
    report = judge(contract, book, window)
    assert (report.drifted, report.enough) == (False, True)
    assert {one.severity for one in report.features} == {"none"}
    assert [one.feature for one in report.features] == contract.model_inputs
    assert (report.baseline_rows, report.rows) == (13_000, 1_000)
    assert report.summary.startswith("2024-06: none of 6 features drifted")


def test_income_up_a_fifth_is_named_with_its_size(contract: Contract, book: pa.Table) -> None:
    report = judge(contract, book, applications(1_000, seed=11, income_factor=1.2))
    income = of(report, "income")
    assert report.drifted
    assert income.drifted
    assert income.severity in ("notice", "warn")
    assert not of(report, "age").drifted
    assert not of(report, "intent").drifted
    assert "income median" in report.summary
    assert "(+1" in income.sentence or "(+2" in income.sentence
    assert sum(share.psi for share in income.bins) == pytest.approx(income.psi_raw)
    assert income.explanation()[0].place == "inside"


def test_an_immaterial_shift_is_significant_but_no_alarm(contract: Contract) -> None:
    book, window = applications(60_000, seed=1), applications(60_000, seed=2, income_factor=1.03)
    report = judge(contract, book, window)
    income = of(report, "income")
    assert income.findings[0].question == "distribution"
    assert income.findings[0].q < contract.drift.alpha
    assert income.psi < contract.drift.psi_floor
    assert not report.drifted


@pytest.mark.parametrize(
    ("column", "share", "severity"),
    [
        ("employed", 0.08, "notice"),
        ("income", 0.05, "alert"),  # where no value was ever missing
        ("income", 1.0, "alert"),
    ],
)
def test_missing_values(
    contract: Contract,
    book: pa.Table,
    window: pa.Table,
    column: str,
    share: float,
    severity: str,
) -> None:
    filled = window[column].fill_null(5).to_pylist()
    values = [None if index < share * 1000 else value for index, value in enumerate(filled)]
    report = judge(contract, book, replace(window, **{column: values}))
    one = of(report, column)
    assert "missing" in alarms(report, column)
    assert one.missing == share
    assert one.severity == severity
    before = f"{one.missing_baseline:.1%}"
    expected = "all values are missing" if share == 1 else f"missing {before} → {share:.1%}"
    assert expected in one.sentence


def test_fewer_missing_values_are_no_missing_alarm(contract: Contract, book: pa.Table) -> None:
    window = applications(1_000, seed=11)
    report = judge(contract, book, replace(window, employed=window["employed"].fill_null(5)))
    assert "missing" not in alarms(report, "employed")


def test_a_constant_column_alarms_only_where_the_baseline_was_not(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    constant = replace(window, amount=[8000.0] * 1000, burden=[0.2] * 1000)
    report = judge(contract, book, constant)
    assert "constant" in alarms(report, "amount")
    assert "constant" in of(report, "amount").sentence
    always = replace(book, amount=[8000.0] * len(book), burden=[0.2] * len(book))
    assert not judge(contract, always, constant).drifted


def test_mass_outside_the_fitted_range(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    income = window["income"].to_numpy().copy()
    income[:10] = 9e8
    report = judge(contract, book, replace(window, income=income))
    assert alarms(report, "income") == {"out_of_range"}
    assert of(report, "income").out_of_range == 0.01
    assert "outside the fitted range 0.0% → 1.0%" in report.summary


def test_a_new_a_vanished_and_a_moved_category(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    intent = window["intent"].to_pylist()
    new = replace(window, intent=["PLANE" if i < 10 else v for i, v in enumerate(intent)])
    report = judge(contract, book, new)
    assert "unseen" in alarms(report, "intent")
    assert of(report, "intent").unseen == 0.01

    gone = replace(window, intent=["CAR" if v == "BOAT" else v for v in intent])
    report = judge(contract, book, gone)
    assert "vanished" in alarms(report, "intent")
    assert "no more BOAT" in of(report, "intent").sentence

    moved = replace(window, intent=["BOAT" if i < 100 else v for i, v in enumerate(intent)])
    report = judge(contract, book, moved)
    assert alarms(report, "intent") == {"distribution"}
    assert "BOAT" in of(report, "intent").sentence


def test_a_listed_category_the_baseline_never_had_is_unseen(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    without = replace(
        book, intent=["CAR" if v == "STUDY" else v for v in book["intent"].to_pylist()]
    )
    some = [INTENTS[3] if i < 10 else "CAR" for i in range(1000)]
    report = judge(contract, book, replace(window, intent=some), baseline=without)
    assert "unseen" in alarms(report, "intent")


def test_too_few_rows_are_not_judged(contract: Contract, book: pa.Table, window: pa.Table) -> None:
    shifted = replace(window, income=[None] * 1000)
    few = judge(contract, book, shifted.slice(0, contract.drift.minimum_rows - 1))
    assert (few.enough, few.drifted) == (False, False)
    assert "not enough data" in few.summary
    assert judge(contract, book, shifted.slice(0, contract.drift.minimum_rows)).drifted
    assert not judge(contract, book, shifted.slice(0, 0)).enough
    assert not judge(contract, book, shifted, baseline=book.slice(0, 10)).enough


def test_a_baseline_without_values_alarms_when_values_come(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    empty = replace(book, income=[None] * len(book))
    assert "out_of_range" in alarms(judge(contract, empty, window), "income")
    assert not of(judge(contract, empty, replace(window, income=[None] * 1000)), "income").drifted


def test_counts_of_other_bins_are_refused(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    other = fit_bins(contract, book.slice(0, 5000))
    with pytest.raises(CountsError, match="were not made with the bins"):
        compare(contract, bins, count(contract, bins, []), count(contract, other, []), "2024-06")


def test_the_report_survives_json_and_reads_well(
    contract: Contract, book: pa.Table, window: pa.Table
) -> None:
    from PIL import Image

    report = judge(contract, book, replace(window, income=[None] * 1000))
    assert DriftReport.model_validate_json(report.model_dump_json()) == report
    table = report.to_markdown()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(contract.model_inputs)
    assert rows[1].startswith("| income | **alert** |")
    png = picture(report)
    assert png == picture(report)
    assert len(png) < 60_000
    assert Image.open(io.BytesIO(png)).width > 600
    bins = fit_bins(contract, book)
    assert picture(judge(contract, book, window.slice(0, 0)))[:4] == b"\x89PNG"
    profile = baseline_profile(contract, bins, count_table(contract, bins, book))
    assert "13,000 rows" in profile
    assert "| intent | 0.0% | CAR 49.2%, HOME" in profile


@pytest.mark.slow
def test_false_alarms_are_rare_and_a_real_shift_is_found(contract: Contract) -> None:
    """200 windows without a shift, 60 with income up a fifth, from one population each."""
    population = applications(60_000, seed=21)
    richer = applications(60_000, seed=22, income_factor=1.2)
    bins = fit_bins(contract, population)
    nothing_moved, moved = (Counter(contract, bins, table) for table in (population, richer))
    random = np.random.default_rng(23)
    false_alarms, found = 0, 0
    for _ in range(10):
        rows = random.permutation(60_000)
        baseline = nothing_moved.count(rows[:13_000])

        def drifted(
            counter: Counter, window: NDArray[np.int64], baseline: pa.Table = baseline
        ) -> bool:
            return compare(contract, bins, baseline, counter.count(window), "window").drifted

        for start in range(13_000, 33_000, 2_000):
            false_alarms += drifted(nothing_moved, rows[start : start + 300])
            false_alarms += drifted(nothing_moved, rows[start + 1000 : start + 2000])
        found += sum(drifted(moved, random.choice(60_000, 500, replace=False)) for _ in range(6))
    assert false_alarms <= 0.025 * 200
    assert found >= 0.9 * 60
