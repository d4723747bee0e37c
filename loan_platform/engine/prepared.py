"""A contract's features over the requests that wait, through one statement planned once.

Planning the statement costs milliseconds, running it some hundred microseconds; so it is
prepared over a relation whose rows are swapped before each run. The SQL is the batch path's.
Not here: what the SQL says (`contract.sql`), or when to run it (`bento.batching`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loan_platform.contract.portfolio import Contract
from loan_platform.contract.sql import date, features_sql, matrix_sql, quoted, refusal_sql
from loan_platform.engine import duck

ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "category": pa.string(),
    "text": pa.string(),
    "date": pa.date32(),
}


class _Holder:
    """What the statement reads: DuckDB asks it for its present table once a run."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class PreparedFeatures:
    """The model's matrix of typed rows, and the row rules each breaks.

    Not for two threads at a time: the connection, its statement and the swapped table are one.
    """

    def __init__(self, contract: Contract) -> None:
        self._names = contract.model_inputs
        self._schema = pa.schema(
            # JSON has no dates: a request's is text until the statement reads it.
            (c.name, pa.string() if c.type == "date" else ARROW_TYPES[c.type])
            for c in contract.input_columns
        )
        self._holder = _Holder(self._schema.empty_table())
        self._connection = duck.connect()
        self._connection.register("waiting", self._holder)
        typed = ", ".join(
            f"{date(quoted(c.name)) if c.type == 'date' else quoted(c.name)} AS {quoted(c.name)}"
            for c in contract.input_columns
        )
        checked = (
            f'(SELECT *, {refusal_sql(contract)} AS "_refused" FROM (SELECT {typed} FROM waiting))'
        )
        features = features_sql(contract, checked, also=("_refused",))
        matrix = matrix_sql(contract, "features", also=("_refused",))
        self._connection.execute(f"PREPARE prepared AS WITH features AS ({features}) {matrix}")

    def evaluate(self, rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], list[str]]:
        """Matrix (float64, rows x `contract.model_inputs`, NaN = missing) and refusals ('' = none).

        `rows` map every input column to its value, None where it is missing; a date is ISO text.

        Raises:
            duckdb.Error: an expression of the contract fails on one of the rows.
        """
        self._holder.table = pa.Table.from_pylist(rows, schema=self._schema)
        found = self._connection.execute("EXECUTE prepared").fetchall()
        matrix = np.array([values for _, *values in found], dtype=np.float64)
        return matrix.reshape(len(rows), len(self._names)), [refusal for refusal, *_ in found]
