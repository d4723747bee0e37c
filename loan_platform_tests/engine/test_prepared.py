"""The prepared statement gives the service the very bits the batch path gives training."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from loan_platform.contract import Contract
from loan_platform.contract.request import Value
from loan_platform.contract.sql import features_sql, matrix_sql
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.prepared import ARROW_TYPES, PreparedFeatures
from loan_platform_tests.service.bundles import applications, overflowing

Row = dict[str, Value]


def from_files(contract: Contract, rows: list[Row], folder: Path) -> NDArray[np.float64]:
    """The matrix as training makes it: Parquet, features written down, then the matrix."""
    schema = pa.schema([(c.name, ARROW_TYPES[c.type]) for c in contract.feature_columns])
    write_parquet(pa.Table.from_pylist(rows, schema=schema), folder / "typed.parquet")
    with duck.connect() as connection:
        typed = duck.parquet(folder / "typed.parquet")
        features = connection.sql(features_sql(contract, typed)).to_arrow_table()
        write_parquet(features, folder / "features.parquet")
        cleaned = duck.parquet(folder / "features.parquet")
        matrix = connection.sql(matrix_sql(contract, cleaned)).to_arrow_table()
    return np.column_stack([matrix[name].to_numpy() for name in contract.model_inputs])


def awkward(contract: Contract) -> list[Row]:
    """Rows at the edges: zeros to divide by, missing values, extremes, every category."""
    base = applications(contract, 1, seed=1)[0]
    rows = [
        base | {"person_income": 0.0},
        base | {"person_income": 5e-324},
        base | {"person_income": 1e7, "loan_amnt": 1000 * (0.1 + 0.2)},
        base | {"person_emp_length": None},
        base | {"person_emp_length": 0.0},
    ]
    for column in contract.feature_columns:
        rows += [base | {column.name: value} for value in column.categories or []]
    return rows


def test_the_bits_are_those_of_the_batch_path(credit_risk: Contract, tmp_path: Path) -> None:
    rows = [*applications(credit_risk, 3000, seed=2), *awkward(credit_risk)]
    batch = from_files(credit_risk, rows, tmp_path)
    prepared = PreparedFeatures(credit_risk)
    at_once, _ = prepared.evaluate(rows)
    assert at_once.dtype == np.float64
    assert at_once.tobytes() == batch.tobytes()
    assert np.isnan(at_once).any()
    in_turn = np.vstack([prepared.evaluate([row])[0] for row in rows[-40:]])
    assert in_turn.tobytes() == batch[-40:].tobytes()


def test_drains_of_any_size_keep_the_order(credit_risk: Contract) -> None:
    rows = applications(credit_risk, 1500, seed=3)
    prepared = PreparedFeatures(credit_risk)
    whole, _ = prepared.evaluate(rows)
    start = 0
    for size in (1, 2, 31, 128, 129, 700):
        part, refusals = prepared.evaluate(rows[start : start + size])
        assert part.tobytes() == whole[start : start + size].tobytes()
        assert len(refusals) == size
        start += size


def test_a_broken_rule_is_told_for_its_row_alone(credit_risk: Contract) -> None:
    good = applications(credit_risk, 1, seed=4)[0]
    broken = good | {"person_age": 30, "person_emp_length": 40.0}
    unknown = good | {"person_emp_length": None}
    matrix, refusals = PreparedFeatures(credit_risk).evaluate([good, broken, unknown])
    assert refusals == ["", "employed_longer_than_alive: employment is longer than life", ""]
    assert matrix.shape == (3, len(credit_risk.model_inputs))


def test_no_rows_give_an_empty_matrix(credit_risk: Contract) -> None:
    matrix, refusals = PreparedFeatures(credit_risk).evaluate([])
    assert matrix.shape == (0, len(credit_risk.model_inputs))
    assert refusals == []


def test_threads_with_one_each_do_not_disturb_one_another(credit_risk: Contract) -> None:
    rows = applications(credit_risk, 400, seed=5)
    expected = PreparedFeatures(credit_risk).evaluate(rows)[0]
    wrong: list[int] = []

    def work(offset: int) -> None:
        prepared = PreparedFeatures(credit_risk)
        for start in range(offset, 300, 7):
            found, _ = prepared.evaluate(rows[start : start + 9])
            if found.tobytes() != expected[start : start + 9].tobytes():
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_failing_row_raises_and_the_next_drain_is_unharmed(credit_risk: Contract) -> None:
    prepared = PreparedFeatures(overflowing(credit_risk))
    good = applications(credit_risk, 1, seed=6)[0] | {"cb_person_cred_hist_length": 1}
    with pytest.raises(duckdb.Error, match="Overflow"):
        prepared.evaluate([good, good | {"cb_person_cred_hist_length": 2}])
    matrix, _ = prepared.evaluate([good])
    assert matrix[0, -1] == 2.0**63
