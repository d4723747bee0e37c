"""Spark as the platform uses it: the same statements, the same values, on another's machines.

Here: the session, its settings, and the two ways a statement is run (`engine.Engine`).
Not here: what Spark says otherwise than DuckDB (`contract.spark`), or any cluster's own settings:
those lie in Spark's `spark-defaults.conf`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from loan_platform.contract.spark import to_spark
from loan_platform.contract.sql import quoted
from loan_platform.engine import duck
from loan_platform.engine.files import make_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HERE = "local[2]"

# What a session begins with. This process logs nothing, for Spark's errors quote the value they
# met; what executors log is the cluster's to say (docs/spark.md).
STARTED = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
}
LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}

# What makes the values DuckDB's, whatever a cluster's own defaults are.
MEANING = {
    "spark.sql.session.timeZone": "UTC",
    # What fails in DuckDB fails here: nothing wraps around or turns NULL unsaid.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.legacy.ctePrecedencePolicy": "CORRECTED",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.parser.escapedStringLiterals": "false",
    # A file's statistics leave NaN out, which is above every number.
    "spark.sql.parquet.filterPushdown": "false",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
}


class SparkError(RuntimeError):
    """Says why Spark did not do it; never holds a value of a row."""


class SparkEngine:
    """Statements on the cluster `LOAN_PLATFORM_SPARK` names (a master URL; else `local[2]`).

    Executors read the relations' files and write the results: the platform's folder lies at the
    same path for all of them. Not for two threads at a time.

    Raises:
        SparkError: pyspark or Java is missing, or the cluster does not answer.
    """

    def __init__(self) -> None:
        self._session = _started().newSession()
        for key, value in MEANING.items():
            self._session.conf.set(key, value)

    def query(self, sql: str, **files: list[Path]) -> pa.Table:
        with _unquoted():
            found = self._result(sql, files).toArrow()
        with duck.over(files) as connection:
            schema = connection.sql(sql).limit(0).to_arrow_table().schema
        return found.rename_columns(schema.names).cast(schema)

    def write(self, sql: str, path: Path, **files: list[Path]) -> int:
        """Executors write the parts; DuckDB, as with its own results, makes them one file."""
        with duck.over(files) as connection:
            described = connection.execute(f"DESCRIBE {sql}").fetchall()
        make_folder(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            written = Path(scratch, "parts")
            with _unquoted():
                self._result(sql, files).write.parquet(_address(written))
            columns = ", ".join(
                f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind, *_ in described
            )
            parts = duck.parquet(*sorted(written.glob("part-*.parquet")))
            # In the order they have already: so sorted, how Spark dealt the rows onto parts leaves
            # no trace in the file, and a second run writes the same bytes.
            ordered = f"SELECT {columns} FROM {parts} ORDER BY filename, file_row_number"
            return duck.DuckEngine().write(ordered, path)

    def _result(self, sql: str, files: dict[str, list[Path]]) -> DataFrame:
        for name, paths in files.items():
            relation = self._session.read.parquet(*(_glob(path) for path in paths))
            relation.createOrReplaceTempView(name)
        return self._session.sql(to_spark(sql))


def _started() -> SparkSession:
    """This process's session, started by the first who asks."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise SparkError(
            "engine: spark needs pyspark: pip install 'loan-platform[spark]'"
        ) from None
    master = os.environ.get("LOAN_PLATFORM_SPARK") or HERE
    java = Path(os.environ["JAVA_HOME"], "bin/java") if os.environ.get("JAVA_HOME") else "java"
    if not shutil.which(java):
        raise SparkError(
            "engine: spark needs Java 17 or later: install a JRE (Debian: apt-get install "
            "openjdk-17-jre-headless), or set JAVA_HOME"
        )
    builder = SparkSession.builder.appName("loan_platform").master(master)
    for key, value in {**STARTED, **(LOOPBACK if master.startswith("local") else {})}.items():
        builder = builder.config(key, value)
    with _unquoted(f"cannot start on {master}"):
        return builder.getOrCreate()


@contextmanager
def _unquoted(failed: str = "refused a statement") -> Iterator[None]:
    """Spark's errors without their words, which quote the row they failed on."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    # pyspark writes the error's words to stderr itself, before it raises.
    logging.getLogger("SQLQueryContextLogger").disabled = True
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise SparkError(f"Spark {failed}: {_condition(error)}") from None


def _condition(error: Any) -> str:
    if hasattr(error, "getCondition") and (condition := error.getCondition()):
        return str(condition)
    cause = getattr(error, "java_exception", None)
    while cause is not None and cause.getCause() is not None:
        cause = cause.getCause()
    return str(cause.getClass().getName()) if cause is not None else type(error).__name__


def _address(path: Path) -> str:
    return f"file://{path.absolute()}"


def _glob(path: Path) -> str:
    """The address of one file: what Spark would take for a pattern is escaped."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", _address(path))
