"""The applications on which two models are held against each other: neither learnt from one.

Here: reading them, for both models in the same order. Not here: what is found on them
(`promotion`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import PLATFORM_COLUMNS
from loan_platform.contract.sql import features_sql, literal, matrix_sql, quoted
from loan_platform.decisions.outcomes import labelled_sql
from loan_platform.engine import duck
from loan_platform.training.rows import Rows, TrainingError, known_rows
from loan_platform.training.split import own_part, part


@dataclass(frozen=True)
class Population:
    """What challenger and champion are asked, (n, inputs) each: two contracts, two matrices.

    `rows`: the judge rows with an outcome, and the challenger's matrix of them. `unknown`: the
    matrices of the challenger and of the champion for applications of the same months that have
    matured and have no outcome; most of them were never granted.
    """

    rows: Rows
    champion: np.ndarray
    unknown: tuple[np.ndarray, np.ndarray]


def population(
    contract: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    champions: Contract | None = None,
    raw: dict[str, Path] | None = None,
    reported: Path | None = None,
) -> Population:
    """The judge part of `cleaned` as known by `as_of`; `champions` is the champion's contract.

    A row belongs to it that is in the judge part by both contracts: copies of one application are
    found by the matrix, and so a little differently by each.

    Raises:
        TrainingError: there are no rows of both outcomes, or as `training.rows.known_rows` has it.
    """
    other = champions
    if champions is not None and champions.contract_hash == contract.contract_hash:
        other = None
    known = known_rows(contract, cleaned, as_of, raw=raw, reported=reported)
    chosen, asked = part(known) == "judge", known
    if other is not None:
        asked = known_rows(contract, cleaned, as_of, inputs_of=other, reported=reported)
        if not np.array_equal(asked.application_id, known.application_id):
            raise TrainingError(
                f"cleaned_features of {contract.name} changed while they were read; "
                "materialize champion again once nothing else writes them"
            )
        chosen &= part(asked) == "judge"
    rows = known.where(chosen)
    if len(set(rows.outcome.tolist())) < 2:
        raise TrainingError(
            f"the {len(rows):,} judge rows of {contract.name} do not have both outcomes; "
            "ingest more months, or wait until more outcomes are known"
        )
    months = set(rows.month.tolist())
    unknown = _without_outcome(contract, contract, cleaned, as_of, months, reported)
    return Population(
        rows=rows,
        champion=asked.matrix[chosen],
        unknown=(
            unknown,
            unknown
            if other is None
            else _without_outcome(contract, other, cleaned, as_of, months, reported),
        ),
    )


def _without_outcome(
    contract: Contract,
    inputs_of: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    months: set[str],
    reported: Path | None,
) -> np.ndarray:
    """The matrix, made by `inputs_of`, of the judge part's applications of `months` whose outcome
    would be known by `as_of` if there were one.
    """
    moment = f"CAST({literal(as_of.astimezone(dt.UTC).isoformat())} AS TIMESTAMPTZ)"
    names = [*PLATFORM_COLUMNS, *(column.name for column in inputs_of.input_columns)]
    loans = duck.parquet(*cleaned.values())
    if reported is not None and reported.is_file():
        by = f"known_at <= {moment}"
        loans = f"({labelled_sql(loans, names, duck.parquet(reported), by)})"
    listed = ", ".join(literal(month) for month in sorted(months))
    carried = ("application_id", "applied_at")
    table = duck.query(
        f"WITH waiting AS (\n  SELECT {', '.join(quoted(name) for name in names)}\n"
        f"  FROM {loans} AS loans\n"
        f"  WHERE (outcome IS NULL OR outcome_known_at > {moment})\n"
        f"  AND applied_at + INTERVAL {contract.outcome.matures_after_days} DAY <= {moment}\n"
        f"  AND strftime(applied_at, '%Y-%m') IN ({listed})\n"
        f"), inputs AS (\n{features_sql(inputs_of, 'waiting', also=carried)}\n"
        f"), matrix AS (\n{matrix_sql(inputs_of, 'inputs', carried)}\n)\n"
        "SELECT * FROM matrix ORDER BY application_id, applied_at"
    )
    judged = own_part(table["application_id"].to_pylist()) == "judge"
    columns = [np.asarray(table[name], dtype=np.float64) for name in inputs_of.model_inputs]
    return np.asarray(np.column_stack(columns)[judged])
