"""Counting a table for a test: through the real scan, or without SQL.

`Counter` uses binary search in the edges, or a dictionary: independent of what it checks, and
fast where thousands of windows are drawn from one table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loan_platform.contract import Contract
from loan_platform.drift.counts import SCHEMA, Bins, CategoryBins, NumericBins, count


def count_table(contract: Contract, bins: Bins, table: pa.Table) -> pa.Table:
    """Counts of a table's rows, as `drift.counts.count` gives them of a file with them."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / "table.parquet")
        return count(contract, bins, [Path(folder) / "table.parquet"])


class Counter:
    """Knows the cell of every value of a table, so that any of its rows are counted quickly."""

    def __init__(self, contract: Contract, bins: Bins, table: pa.Table) -> None:
        self.nothing = count(contract, bins, [])
        self.sizes = [len(feature.cells()) for feature in bins.features]
        self.cells = [_cells(feature, table[feature.feature]) for feature in bins.features]

    def count(self, rows: NDArray[np.int64] | slice = slice(None)) -> pa.Table:
        """Counts of these rows, as `count_table` gives them."""
        counted = [
            np.bincount(cells[rows], minlength=size)
            for cells, size in zip(self.cells, self.sizes, strict=True)
        ]
        return self.nothing.set_column(3, SCHEMA.field("n"), pa.array(np.concatenate(counted)))


def _cells(feature: NumericBins | CategoryBins, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if isinstance(feature, CategoryBins):
        known: dict[str | None, int] = {v: index for index, v in enumerate(feature.categories)}
        known[None] = len(known) + 1
        unseen = len(feature.categories)
        return np.array([known.get(value, unseen) for value in column.to_pylist()], int)
    values = np.array([np.nan if v is None else float(v) for v in column.to_pylist()], float)
    missing = ~np.isfinite(values)
    if feature.low is None:
        return np.where(missing, 1, 0)
    cells = 1 + np.searchsorted(np.array(feature.edges), values, side="left")
    cells[values < feature.low] = 0
    cells[missing] = len(feature.edges) + 2
    return cells
