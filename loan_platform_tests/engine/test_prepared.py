"""The prepared statement gives the service the very bits the batch path gives training."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from loan_platform.contract import Contract
from loan_platform.contract.request import Value, request_model
from loan_platform.contract.sql import features_sql, matrix_sql
from loan_platform.decisions.log import SCHEMA as DECISIONS
from loan_platform.engine import duck
from loan_platform.engine.files import write_parquet
from loan_platform.engine.home import Home
from loan_platform.engine.prepared import ARROW_TYPES, PreparedFeatures
from loan_platform_tests import club_loans, home_loans
from loan_platform_tests.ingest.taking_in import take_in
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


def test_a_book_in_its_own_notation_gives_the_bits_its_requests_give(
    home: Home, tmp_path: Path
) -> None:
    """Days of credit history counted from another day in the service than in training."""
    pairs = club_loans.rows()
    path = home_loans.write_csv(tmp_path / "club.csv", [written for written, _ in pairs])
    contract = club_loans.contract(source={"path": str(path)})
    taken = take_in(contract, home, club_loans.MONTHS)
    assert taken.quarantined == []
    months = home.partitions(contract.name, "raw_loans").values()
    raw = duck.query(f"SELECT * FROM {duck.parquet(*months)} ORDER BY application_id")
    cleaned = duck.query(features_sql(contract, "raw", also=("application_id",)), raw=raw)
    matrix = duck.query(matrix_sql(contract, "cleaned"), cleaned=cleaned)
    batch = np.column_stack([matrix[name].to_numpy() for name in contract.model_inputs])
    assert {"issue_d", "earliest line", "purpose"} <= set(cleaned.column_names)

    request = request_model(contract)
    bodies = sorted((typed for _, typed in pairs), key=lambda typed: typed["application_id"])
    applications = [request.model_validate_json(json.dumps(body)) for body in bodies]
    found, refusals = PreparedFeatures(contract).evaluate([one.inputs for one in applications])
    assert found.tobytes() == batch.tobytes()
    assert set(refusals) == {""}
    assert np.isnan(found).any(axis=0).tolist() == [False, False, True, False, True, False, False]

    # What the service logs is what the book said: the same rows come back from its log.
    for month in club_loans.MONTHS:
        decisions = home.partition(contract.name, "decisions", month)
        mine = [one for one in applications if f"{one.applied_at:%Y-%m}" == month]
        log = [
            {
                "decision_id": one.application_id, "application_id": "again-" + one.application_id,
                "applied_at": one.applied_at, "decided_at": one.applied_at, "model_version": "1",
                "contract_hash": "c", "policy_hash": "p", "probability_default": 0.1, "label": 0,
                "decision": "approve", "inputs": json.dumps(one.inputs, ensure_ascii=False),
            }
            for one in mine
        ]  # fmt: skip
        write_parquet(pa.Table.from_pylist(log, schema=DECISIONS), decisions)
    again = take_in(contract, home, club_loans.MONTHS)
    assert again.quarantined == []
    inputs = [column.name for column in contract.input_columns]
    served = [row for row in again.accepted if row["origin"] == "service"]
    booked = {row["application_id"]: row for row in taken.accepted}
    assert len(served) == len(booked) == len(pairs)
    for row in served:
        before = booked[row["application_id"].removeprefix("again-")]
        assert {name: row[name] for name in inputs} == {name: before[name] for name in inputs}


def test_a_rule_over_the_day_of_the_application_is_asked_of_requests() -> None:
    contract = club_loans.contract()
    _, typed = club_loans.rows(2)[1]
    late = request_model(contract).model_validate_json(
        json.dumps(typed | {"earliest line": "2009-11-02", "applied_at": "2009-11-01T23:00:00Z"})
    )
    on_the_day = request_model(contract).model_validate_json(
        json.dumps(typed | {"earliest line": "2009-11-02", "applied_at": "2009-11-02T00:00:00Z"})
    )
    rows = [late.inputs, on_the_day.inputs]
    _, refusals = PreparedFeatures(contract).evaluate(rows)
    assert refusals == [
        "older_than_the_loan: the first line of credit comes after the application",
        "",
    ]
