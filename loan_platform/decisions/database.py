"""The tables of decisions and outcomes, and the databases they lie in.

SQLite: files below the state folder, in WAL mode with `synchronous=FULL`: a commit is on disk
when it returns, readers never stop the writer, and a commit costs one flush of the log (a
rollback journal flushes several times and was 37 times slower). PostgreSQL: one database for
all portfolios, with `synchronous_commit` on.
Here: how rows lie, and reading them as Arrow. Not here: what a row means (`log`, `outcomes`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from loan_platform.engine.files import make_folder
from loan_platform.engine.home import Home

WAIT_SECONDS = 20  # for another writer of the same database
ROWS_AT_ONCE = 50_000  # as Python objects, before they become Arrow
SCHEMA_LOCK = 0x6C6F616E  # PostgreSQL: one creator of tables at a time
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
UTC_TIME = pa.timestamp("us", tz="UTC")

Condition = sa.ColumnElement[bool]


class Moment(sa.types.TypeDecorator[dt.datetime]):
    """A UTC time, exact to the microsecond: `timestamptz`, or in SQLite an integer since 1970."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return EPOCH + value * MICROSECOND


metadata = sa.MetaData()

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("application_id", sa.Text, nullable=False),
    sa.Column("applied_at", Moment, nullable=False),
    sa.Column("decided_at", Moment, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("contract_hash", sa.Text, nullable=False),
    sa.Column("policy_hash", sa.Text, nullable=False),
    sa.Column("probability_default", sa.Double, nullable=False),
    sa.Column("label", sa.SmallInteger, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("reasons", sa.Text),  # null in rows that are older than the column
    sa.Index("decisions_by_application_time", "portfolio", "applied_at"),
)

# An outcome is never changed in place: a later word on the same loan is a row of its own.
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("portfolio", sa.Text, primary_key=True),
    sa.Column("application_id", sa.Text, primary_key=True),
    sa.Column("known_at", Moment, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("outcome", sa.SmallInteger, primary_key=True),
    sa.Column("recorded_at", Moment, nullable=False),
)


def server(url: str) -> sa.Engine:
    """An engine on PostgreSQL. A failing statement never shows its parameters."""
    return sa.create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=1,
        connect_args={"options": "-c synchronous_commit=on -c timezone=UTC", "connect_timeout": 10},
    )


def file(path: Path) -> sa.Engine:
    """An engine on one SQLite file, made with its folder, readable by its owner alone."""
    make_folder(path.parent)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        hide_parameters=True,
        connect_args={"timeout": WAIT_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def _make_durable(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    return engine


def create(engine: sa.Engine, table: sa.Table) -> None:
    """Make `table` where it is not there yet, and the columns it lacks of a later version.

    Safe while others do the same, and while an older version goes on writing.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        if _lacking(connection, table):
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # one at a time, as above
            for column in _lacking(connection, table):
                described = CreateColumn(column).compile(dialect=engine.dialect)
                name = engine.dialect.identifier_preparer.format_table(table)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {described}")


def _lacking(connection: sa.Connection, table: sa.Table) -> list[sa.Column[Any]]:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    return [column for column in table.columns if column.name not in there]


def read(
    home: Home, portfolio: str, files: str, table: sa.Table, schema: pa.Schema, *where: Condition
) -> pa.Table:
    """A portfolio's rows of `table`, from the server or from every file named so, in no order."""
    wanted = sa.select(*(table.c[name] for name in schema.names)).where(
        table.c.portfolio == portfolio, *where
    )
    if home.decisions_url:
        engines = [server(home.decisions_url)]
    else:
        engines = [file(path) for path in sorted((home.decisions / portfolio).glob(files))]
    parts = [pa.Table.from_pylist([], schema=schema)]
    for engine in engines:
        try:
            create(engine, table)
            with engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
                parts.extend(
                    _as_arrow(rows, schema) for rows in connection.execute(wanted).partitions()
                )
        finally:
            engine.dispose()
    return pa.concat_tables(parts)


def _as_arrow(rows: Sequence[sa.Row[Any]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
