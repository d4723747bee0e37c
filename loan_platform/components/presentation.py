"""What the Dagster UI shows of a portfolio's assets: specs, schemas, lineage, pictures.

Here: names, descriptions and metadata. Not here: what the assets compute.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from loan_platform.contract import Contract
from loan_platform.contract.expression import SQL_TYPES
from loan_platform.contract.portfolio import Column

PROVENANCE_COLUMNS = {
    "application_id": ("VARCHAR", "The application; the lender's key, or a hash of the row"),
    "applied_at": ("TIMESTAMPTZ", "When it was made (UTC)"),
    "origin": (
        "VARCHAR",
        "book: the lender's file; simulated: a stand-in book; service: decided by the service",
    ),
    "outcome": ("BIGINT", "1 bad, 0 good, NULL not known yet"),
    "outcome_known_at": ("TIMESTAMPTZ", "When the outcome became known (UTC)"),
    "outcome_source": ("VARCHAR", "Who said so; a model's word is never trained on"),
}


def asset_spec(
    contract: Contract,
    name: str,
    description: str,
    *,
    kinds: set[str],
    deps: Sequence[str] = (),
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    automation: dg.AutomationCondition[Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> dg.AssetSpec:
    """The spec of one asset of the portfolio: key prefix, group, owners, freshness."""
    return dg.AssetSpec(
        key=[contract.name, name],
        deps=[dg.AssetKey([contract.name, dep]) for dep in deps],
        description=description,
        group_name=contract.name,
        kinds=kinds,
        owners=contract.owners,
        partitions_def=partitions_def,
        automation_condition=automation,
        freshness_policy=freshness_policy(contract, monthly=partitions_def is not None),
        metadata=metadata,
        tags={"portfolio": contract.name, "contract_hash": contract.contract_hash},
    )


def freshness_policy(contract: Contract, *, monthly: bool) -> dg.FreshnessPolicy:
    """Did it run lately? Whether a given month is there is another question."""
    settings = contract.freshness
    warn, fail = (
        (settings.warn_after_days, settings.fail_after_days)
        if monthly
        else (settings.model_warn_after_days, settings.model_fail_after_days)
    )
    return dg.FreshnessPolicy.time_window(
        fail_window=dt.timedelta(days=fail), warn_window=dt.timedelta(days=warn)
    )


def raw_schema(columns: Iterable[Column]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[*_provenance(), *(_column(column) for column in columns)],
    )


def features_schema(contract: Contract) -> dg.TableSchema:
    derived = [
        dg.TableColumn(
            name,
            "DOUBLE",
            description=_with_unit(feature.description or feature.sql, feature.unit),
        )
        for name, feature in contract.features.items()
    ]
    return dg.TableSchema(
        columns=[*_provenance(), *(_column(c) for c in contract.input_columns), *derived]
    )


def features_lineage(contract: Contract) -> dg.TableColumnLineage:
    """Which columns of raw_loans each column of cleaned_features is made from."""
    import sqlglot
    from sqlglot import exp

    raw = dg.AssetKey([contract.name, "raw_loans"])
    plain = [*PROVENANCE_COLUMNS, *(column.name for column in contract.input_columns)]
    sources = {name: [name] for name in plain}
    for name, feature in contract.features.items():
        tree = sqlglot.parse_one(feature.sql, dialect="duckdb")
        sources[name] = sorted({column.name for column in tree.find_all(exp.Column)})
    return dg.TableColumnLineage(
        deps_by_column={
            name: [dg.TableColumnDep(asset_key=raw, column_name=column) for column in columns]
            for name, columns in sources.items()
        }
    )


def file_metadata(path: Path, rows: int) -> dict[str, Any]:
    return {
        "dagster/row_count": rows,
        "dagster/uri": path.as_uri(),
        "size_bytes": path.stat().st_size,
    }


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A small PNG as Markdown; it lies in the event log, so keep it below some 60 kB."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _provenance() -> list[dg.TableColumn]:
    return [
        dg.TableColumn(name, kind, description=description)
        for name, (kind, description) in PROVENANCE_COLUMNS.items()
    ]


def _column(column: Column) -> dg.TableColumn:
    other = []
    if column.range:
        other.append(f"between {column.range[0]:g} and {column.range[1]:g}")
    if column.categories:
        other.append(f"one of {', '.join(column.categories)}")
    return dg.TableColumn(
        column.name,
        SQL_TYPES[column.type],
        description=_with_unit(column.description or "", column.unit),
        constraints=dg.TableColumnConstraints(nullable=column.nulls == "allowed", other=other),
    )


def _with_unit(description: str, unit: str | None) -> str:
    return f"{description} ({unit})" if unit else description
