"""Counts equal an independent count, add up, and their SQL runs on two engines' grammars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loan_platform.contract import Contract
from loan_platform.drift.counts import (
    Bins,
    CountsError,
    NumericBins,
    by_feature,
    count,
    count_sql,
    decision_bins,
    fit_bins,
    merge,
    total,
)
from loan_platform_tests.drift.conftest import applications
from loan_platform_tests.drift.counting import Counter, count_table


def test_equals_an_independent_count(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    other = applications(3_000, seed=2, income_factor=1.7)
    for table in (book, other):
        counts = count_table(contract, bins, table)
        assert counts.column_names == ["feature", "cell", "label", "n"]
        assert counts.equals(Counter(contract, bins, table).count(), check_metadata=True)


ANY_VALUE = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 6.8, 0.1 + 0.2, 1e-300, 1e300, 5e-324, 2.0**53, 1 / 3]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fitted=st.lists(ANY_VALUE, max_size=40),
    counted=st.lists(ANY_VALUE, max_size=40),
    intents=st.lists(st.sampled_from(["CAR", "HOME", "O'NEIL", "", None]), max_size=40),
)
@example(fitted=[], counted=[0.0, float("nan")], intents=[])  # not in a Parquet file's statistics
def test_equals_an_independent_count_of_any_value(
    contract: Contract,
    fitted: list[float | None],
    counted: list[float | None],
    intents: list[str | None],
) -> None:
    def table(values: list[float | None]) -> pa.Table:
        size = len(values)
        columns = {name: pa.array(values, pa.float64()) for name in contract.model_inputs}
        columns["age"] = pa.array([None] * size, pa.int64())
        columns["intent"] = pa.array((intents + [None] * size)[:size], pa.string())
        return pa.table(columns)

    bins = Bins.model_validate_json(fit_bins(contract, table(fitted)).model_dump_json())
    everything = table(counted + fitted)
    found = count_table(contract, bins, everything)
    assert found.equals(Counter(contract, bins, everything).count())
    sums = {int(vector.sum()) for vector in by_feature(bins, found).values()}
    assert sums == {len(counted) + len(fitted)}


def test_edges_are_values_of_the_data_and_cover_it(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    for feature in bins.features:
        if not isinstance(feature, NumericBins):
            continue
        values = book[feature.feature].drop_null().to_numpy()
        assert set(feature.edges) <= set(values.astype(float))
        assert (feature.low, feature.edges[-1]) == (values.min(), values.max())
        assert list(feature.edges) == sorted(set(feature.edges))
    cells = {feature.feature: len(feature.cells()) for feature in bins.features}
    assert cells["income"] == contract.drift.fine_bins + 3
    assert cells["employed"] < 20  # a discrete column has one cell a value, or fewer
    counts = by_feature(bins, count_table(contract, bins, book))
    inside = counts["income"][1:-2]
    assert inside.max() - inside.min() < 0.1 * inside.mean()


def test_months_add_up(contract: Contract, book: pa.Table, tmp_path: Path) -> None:
    bins = fit_bins(contract, book)
    files = []
    for month, table in enumerate((book.slice(0, 4000), book.slice(4000, 0), book.slice(4000))):
        files.append(tmp_path / f"{month}'s.parquet")
        pq.write_table(table, files[-1])
    whole = count_table(contract, bins, book)
    assert total([count(contract, bins, [file]) for file in files]).equals(whole)
    assert count(contract, bins, files).equals(whole)


def test_no_rows_give_the_same_cells_with_nothing_in_them(
    contract: Contract, book: pa.Table
) -> None:
    bins = fit_bins(contract, book)
    whole = count_table(contract, bins, book)
    for empty in (count(contract, bins, []), count_table(contract, bins, book.slice(0, 0))):
        assert empty.drop_columns("n").equals(whole.drop_columns("n"))
        assert set(empty["n"].to_pylist()) == {0}
    assert total([whole, count(contract, bins, [])]).equals(whole)


def test_hash_survives_json_and_changes_with_any_edge(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    assert Bins.model_validate_json(bins.model_dump_json()).bins_hash == bins.bins_hash
    assert fit_bins(contract, book).bins_hash == bins.bins_hash
    assert fit_bins(contract, book.slice(0, 12_000)).bins_hash != bins.bins_hash


def test_counts_of_other_bins_are_refused(
    contract: Contract, book: pa.Table, tmp_path: Path
) -> None:
    bins = fit_bins(contract, book)
    others = fit_bins(contract, book.slice(0, 12_000))
    pq.write_table(count_table(contract, others, book), tmp_path / "counts.parquet")
    stored = pq.read_table(tmp_path / "counts.parquet")
    with pytest.raises(CountsError, match="count the months again"):
        by_feature(bins, stored)
    with pytest.raises(CountsError, match="count these months again"):
        total([count_table(contract, bins, book), stored])


def test_bins_of_another_contract_are_refused(
    contract: Contract, credit_risk: Contract, book: pa.Table
) -> None:
    with pytest.raises(CountsError, match="fit the bins again"):
        count(credit_risk, fit_bins(contract, book), [])
    with pytest.raises(CountsError, match="no column burden"):
        fit_bins(contract, book.drop_columns("burden"))


def test_the_statement_is_valid_on_spark(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    (spark,) = sqlglot.transpile(count_sql(contract, bins, "cleaned"), read="duckdb", write="spark")
    parsed = sqlglot.parse_one(spark, dialect="spark")
    assert len(list(parsed.find_all(sqlglot.exp.Group))) == len(bins.features)
    literals = {value.name for value in parsed.find_all(sqlglot.exp.Literal)}
    income = next(feature for feature in bins.features if feature.feature == "income")
    assert isinstance(income, NumericBins)
    assert {repr(edge) for edge in income.edges} <= literals


def test_decision_bins_have_near_equal_mass_and_lose_no_row(
    contract: Contract, book: pa.Table
) -> None:
    bins = fit_bins(contract, book)
    baseline = count_table(contract, bins, book)
    counts = by_feature(bins, baseline)
    groups = decision_bins(contract, bins, baseline)
    for feature in bins.features:
        name = feature.feature
        cells = [cell for group in groups[name] for cell in group.cells]
        assert cells == list(range(len(feature.cells())))
        assert merge(groups[name], counts[name]).sum() == book.num_rows
    income = groups["income"]
    assert [group.place for group in income] == ["below", *["inside"] * 10, "above", "missing"]
    inside = merge(income, counts["income"])[1:-2] / book.num_rows
    assert 0.08 < inside.min() <= inside.max() < 0.12
    assert [group.place for group in groups["intent"]] == ["category"] * 4 + ["unseen", "missing"]


def test_a_heavy_value_keeps_a_decision_bin_of_its_own(contract: Contract, book: pa.Table) -> None:
    zeros = pa.array(np.concatenate([np.zeros(7000), np.arange(1.0, 6001.0)]))
    table = book.set_column(book.column_names.index("income"), "income", zeros)
    bins = fit_bins(contract, table)
    baseline = count_table(contract, bins, table)
    groups = decision_bins(contract, bins, baseline)["income"]
    merged = merge(groups, by_feature(bins, baseline)["income"])
    assert [g.label for g, n in zip(groups, merged, strict=True) if n == 7000] == ["0"]


def test_quantiles_read_off_counts_are_close(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    counts = by_feature(bins, count_table(contract, bins, book))
    for feature in bins.features:
        if not isinstance(feature, NumericBins):
            continue
        values = book[feature.feature].drop_null().to_numpy()
        for probability in (0.0, 0.05, 0.5, 0.95, 1.0):
            found = feature.quantile(counts[feature.feature], probability)
            assert found is not None
            assert abs((values < found).mean() - probability) < 0.02 or (
                (values < found).mean() <= probability <= (values <= found).mean()
            )


def test_labels_tell_whole_values(contract: Contract, book: pa.Table) -> None:
    bins = fit_bins(contract, book)
    labels = [cell.label for cell in bins.features[0].cells()]
    assert labels[:4] == ["below 20", "20", "21", "22"]
    assert labels[-1] == "missing"
