"""Stops a training from a column that gives the outcome away.

Here: the leak guard on the rows about to be learnt from, so that no road to a model goes round it.
Not here: what counts as a leak (`ingest.leaks`), the check on the book as it arrives
(`components.profile`).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.sql import quoted
from loan_platform.engine import duck
from loan_platform.ingest.leaks import blocked, evidence, mend
from loan_platform.ingest.profile import profile_relation
from loan_platform.training.rows import Rows, TrainingError


def refuse_leaks(contract: Contract, cleaned: dict[str, Path], rows: Rows) -> None:
    """Hold the input columns of `rows`, as they lie in the cleaned months, against the outcome.

    Raises:
        TrainingError: a column that no `leak_accepted` answers for is blocked.
    """
    outcome, time = contract.outcome_column.name, contract.time_column
    inputs = [column.name for column in contract.input_columns if column is not time]
    columns = [f"CAST(loans.{quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in inputs]
    columns.append(f"learnt.bad AS {quoted(outcome)}")
    if time:
        columns.append(f"CAST(CAST(loans.applied_at AS DATE) AS VARCHAR) AS {quoted(time.name)}")
    learnt = pa.table(
        {"application_id": pa.array(rows.application_id, pa.string()), "bad": rows.outcome}
    )
    relation = (
        f"(SELECT {', '.join(columns)} FROM {duck.parquet(*cleaned.values())} AS loans "
        "JOIN (SELECT application_id, CAST(bad AS VARCHAR) AS bad FROM learnt_rows) AS learnt "
        "USING (application_id))"
    )
    with duck.bounded() as connection:
        connection.register("learnt_rows", learnt)
        profile = profile_relation(
            connection,
            relation,
            [*inputs, outcome, *([time.name] if time else [])],
            outcome=outcome,
            bad=["1"],
            good=["0"],
            time=time.name if time else None,
        )
    stopped = blocked(evidence(profile), contract.leaks_accepted)
    if stopped:
        told = " ".join(f"{one.column}: {one.sentence}." for one in stopped)
        raise TrainingError(
            f"columns of {contract.name} give the outcome away. {told} "
            f"{mend(one.column for one in stopped)}"
        )
