"""Runs the contract's SQL, and knows where files lie.

Here: DuckDB in memory over Parquet, Spark over the same files, atomic writes, the folder of a
portfolio's state.
Not here: what the SQL says (`contract.sql`), or what a layer means (`ingest`, `drift`, ...).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from loan_platform.contract import Contract


class Engine(Protocol):
    """Runs one statement in the portable subset over Parquet files.

    Each keyword names a relation of the statement and the files, of one schema, that hold its
    rows. Both engines give the same columns, types and values. Rows come in the order the
    statement says; without one, in the order of the relation where that is one file.
    """

    def query(self, sql: str, **files: list[Path]) -> pa.Table:
        """The statement's result, small enough for this process."""
        ...

    def write(self, sql: str, path: Path, **files: list[Path]) -> int:
        """Write the result as one Parquet file at `path`, whole or not at all; give its rows."""
        ...


def of(contract: Contract) -> Engine:
    """The engine the contract names.

    Raises:
        engine.spark.SparkError: it is Spark, and pyspark or Java is missing.
    """
    if contract.engine == "spark":
        from loan_platform.engine.spark import SparkEngine

        return SparkEngine()
    from loan_platform.engine.duck import DuckEngine

    return DuckEngine()
