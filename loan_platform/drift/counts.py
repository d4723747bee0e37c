"""Bins of the model inputs, and the counts in them, from which every drift figure is computed.

Here: fitting bins once, counting months by one portable SQL scan, adding counts up, merging fine
cells into decision bins, reading quantiles back. Counts of months add up because the bins are the
same, so any window is a sum and never a second scan.
Not here: tests (`statistics`) and verdicts (`report`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from loan_platform import engine
from loan_platform.contract.sql import LARGEST, literal, number, quoted
from loan_platform.engine import duck

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loan_platform.contract import Contract

Place = Literal["below", "inside", "above", "category", "unseen", "missing"]

SCHEMA = pa.schema(
    [("feature", pa.string()), ("cell", pa.int32()), ("label", pa.string()), ("n", pa.int64())]
)
_HASH = b"bins_hash"


class CountsError(ValueError):
    """Bins and counts that do not belong together, or bins that cannot be fitted."""


class Cell(NamedTuple):
    """One counter: what people read, and where it lies."""

    label: str
    place: Place


class NumericBins(BaseModel):
    """Cells of a numeric input: below `low`, one up to and including each edge, above, missing.

    `low` and the last edge are the least and the greatest fitted value; the first cell inside is
    [low, edges[0]], the others (edges[i-1], edges[i]]. Every edge is a value from the data.
    Without edges (nothing was there to fit) every value counts as above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["numeric"] = "numeric"
    feature: str
    low: float | None
    edges: tuple[float, ...]
    whole: bool = Field(False, description="All fitted values are whole; so are labels, quantiles")

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """(over, up to) of each cell inside; the first includes its lower bound too."""
        if self.low is None:
            return []
        return list(itertools.pairwise((self.low, *self.edges)))

    def cells(self) -> list[Cell]:
        missing = Cell("missing", "missing")
        if self.low is None:
            return [Cell("any value", "above"), missing]
        return [
            Cell(f"below {readable(self.low)}", "below"),
            *(Cell(self.label(i, i), "inside") for i in range(len(self.bounds))),
            Cell(f"above {readable(self.edges[-1])}", "above"),
            missing,
        ]

    def label(self, first: int, last: int) -> str:
        """How people read the range from the `first` to the `last` cell inside."""
        over, upto = self.bounds[first][0], self.bounds[last][1]
        start = over + 1 if self.whole and first > 0 else over
        return readable(upto) if start >= upto else f"{readable(start)} to {readable(upto)}"

    def quantile(self, counts: NDArray[np.int64], probability: float) -> float | None:
        """Quantile read off fine counts, linear within a cell; None when no value is present.

        Mass outside the fitted range lies at its ends, so the result never leaves the range.
        Where all fitted values are whole, it is the whole value reached.
        """
        values = counts[:-1]
        total = int(values.sum())
        if self.low is None or total == 0:
            return None
        reached = np.cumsum(values)[:-1] / total
        at = np.array([self.low, *self.edges])
        value = float(np.interp(probability, reached, at))
        return float(np.ceil(value)) if self.whole else value


class CategoryBins(BaseModel):
    """Cells of a categorical input: every listed category, then unseen, then missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["category"] = "category"
    feature: str
    categories: tuple[str, ...]

    def cells(self) -> list[Cell]:
        return [
            *(Cell(value, "category") for value in self.categories),
            Cell("unseen", "unseen"),
            Cell("missing", "missing"),
        ]


FeatureBins = Annotated[NumericBins | CategoryBins, Field(discriminator="kind")]


class Bins(BaseModel):
    """The bins of every model input of a portfolio. Fitted once; changed only on purpose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    portfolio: str
    features: tuple[FeatureBins, ...]

    @property
    def bins_hash(self) -> str:
        """12 hex digits; counts add up only under one hash."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


class Group(NamedTuple):
    """One decision bin: the fine cells it is made of."""

    label: str
    place: Place
    cells: tuple[int, ...]


def readable(value: float) -> str:
    """A number as people write it: 12,500 or 0.1538."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def fit_bins(contract: Contract, rows: pa.Table | Sequence[Path]) -> Bins:
    """Bins of every model input, from rows of `cleaned_features`: a table, or Parquet files.

    Numeric inputs get the values at `contract.drift.fine_bins` evenly spaced probabilities (the
    inverse of the empirical distribution, so each edge is a value that occurs), equal ones once:
    a discrete column gets fewer cells. One column is sorted at a time, in bounded memory.

    Raises:
        CountsError: a model input is not among the columns of `rows`.
    """
    with duck.bounded() as connection:
        if isinstance(rows, pa.Table):
            connection.register("fitted", rows)
        else:
            connection.execute(f"CREATE TEMP VIEW fitted AS FROM {duck.parquet(*rows)}")
        columns = connection.sql("FROM fitted").columns
        if absent := [name for name in contract.model_inputs if name not in columns]:
            raise CountsError(
                f"{contract.name}: no column {', '.join(absent)} to fit bins on; "
                "give rows of cleaned_features of this contract"
            )
        categories = contract.categorical_inputs
        features = tuple(
            CategoryBins(feature=name, categories=tuple(categories[name]))
            if name in categories
            else _fit_numeric(connection, name, contract.drift.fine_bins)
            for name in contract.model_inputs
        )
    return Bins(portfolio=contract.name, features=features)


def _fit_numeric(connection: duckdb.DuckDBPyConnection, name: str, wanted: int) -> NumericBins:
    values = (
        f"(SELECT CAST({quoted(name)} AS double) AS x FROM fitted "
        f"WHERE abs(CAST({quoted(name)} AS double)) <= {LARGEST})"
    )
    found = connection.execute(
        f"SELECT count(*), min(x), coalesce(bool_and(x = floor(x)), false) FROM {values}"
    ).fetchone()
    assert found is not None
    size, low, whole = found
    if size == 0:
        return NumericBins(feature=name, low=None, edges=())
    # The place in order, from 0, of each quantile: `inverted_cdf` of numpy.quantile.
    at = np.arange(1, wanted + 1) / wanted
    places = np.unique(np.maximum(np.ceil(size * at - 1), 0).astype(np.int64)).tolist()
    edges = connection.execute(
        f"SELECT DISTINCT x FROM (SELECT x, row_number() OVER (ORDER BY x) - 1 AS place "
        f"FROM {values}) WHERE place IN ({', '.join(map(str, places))}) ORDER BY x"
    ).fetchall()
    # + 0.0: whether 0 or -0 is found first is no difference between two books.
    return NumericBins(
        feature=name, low=low + 0.0, edges=tuple(edge + 0.0 for (edge,) in edges), whole=whole
    )


def count_sql(contract: Contract, bins: Bins, relation: str) -> str:
    """Counts of the rows of `relation` (a FROM clause): `feature` and `cell` by number, and `n`.

    Cells without a row are left out. NaN and infinity count as missing, as everywhere in the
    contract's SQL.

    Raises:
        CountsError: `bins` are not for this contract's model inputs.
    """
    _check_inputs(contract, bins)
    return "\nUNION ALL\n".join(
        f"SELECT {position} AS feature, cell, count(*) AS n FROM (\n"
        f"  SELECT {_cell(feature)} AS cell\n"
        f"  FROM (SELECT {_value(feature)} AS x FROM {relation}) AS inputs\n"
        ") AS cells GROUP BY cell"
        for position, feature in enumerate(bins.features)
    )


def _cell(feature: NumericBins | CategoryBins) -> str:
    """Expression over a value `x`: the number of the cell it lies in.

    A number is looked for as in a sorted list, so that 64 cells cost six comparisons.
    """
    if isinstance(feature, CategoryBins):
        named = "".join(
            f"WHEN x = {literal(value)} THEN {index} "
            for index, value in enumerate(feature.categories)
        )
        unseen = len(feature.categories)
        return f"CASE WHEN x IS NULL THEN {unseen + 1} {named}ELSE {unseen} END"
    if feature.low is None:
        return "CASE WHEN x IS NULL THEN 1 ELSE 0 END"
    up_to = [f"x < {number(feature.low)}", *(f"x <= {number(edge)}" for edge in feature.edges)]

    def search(first: int, last: int) -> str:
        if first == last:
            return str(first)
        middle = (first + last) // 2
        return (
            f"CASE WHEN {up_to[middle]} THEN {search(first, middle)} "
            f"ELSE {search(middle + 1, last)} END"
        )

    above = len(up_to)
    return f"CASE WHEN x IS NULL THEN {above + 1} ELSE {search(0, above)} END"


def count(contract: Contract, bins: Bins, files: Sequence[Path]) -> pa.Table:
    """Counts of all rows of Parquet `files` of `cleaned_features`: feature, cell, label, n.

    No files, or no rows, give the same cells with n = 0.
    """
    _check_inputs(contract, bins)
    counts = [[0] * len(feature.cells()) for feature in bins.features]
    if files:
        sql = count_sql(contract, bins, "cleaned")
        found = engine.of(contract).query(sql, cleaned=list(files))
        for feature, cell, n in zip(*(column.to_pylist() for column in found.columns), strict=True):
            counts[feature][cell] = n
    return _long(bins, itertools.chain.from_iterable(counts))


def total(tables: Sequence[pa.Table]) -> pa.Table:
    """Counts of several months added up.

    Raises:
        CountsError: no table, or tables counted with different bins.
    """
    if not tables:
        raise CountsError("no counts to add up; count at least one month first")
    first = tables[0]
    for other in tables[1:]:
        same = _hash_of(other) == _hash_of(first) and all(
            other[name].equals(first[name]) for name in ("feature", "cell", "label")
        )
        if not same:
            raise CountsError(
                "counts made with different bins do not add up; count these months again"
            )
    summed = np.sum([table["n"].to_numpy() for table in tables], axis=0, dtype=np.int64)
    return first.set_column(3, SCHEMA.field("n"), pa.array(summed))


def by_feature(bins: Bins, counts: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Count vector of each feature, in the order of its cells.

    Raises:
        CountsError: `counts` were not made with `bins`.
    """
    fits = _hash_of(counts) in (None, bins.bins_hash)
    expected = [(f.feature, cell) for f in bins.features for cell in range(len(f.cells()))]
    found = list(zip(counts["feature"].to_pylist(), counts["cell"].to_pylist(), strict=True))
    if not fits or found != expected:
        raise CountsError(
            f"these counts were not made with the bins {bins.bins_hash}; count the months again"
        )
    n = counts["n"].to_numpy().astype(np.int64)
    ends = np.cumsum([len(feature.cells()) for feature in bins.features])
    parts = np.split(n, ends[:-1])
    return {feature.feature: part for feature, part in zip(bins.features, parts, strict=True)}


def decision_bins(
    contract: Contract, bins: Bins, baseline: pa.Table
) -> dict[str, tuple[Group, ...]]:
    """The bins a verdict is made on: fine cells merged to near-equal mass in the baseline.

    Numeric: at most `contract.drift.decision_bins` inside; the two open ends and missing stay
    apart. A fine cell goes where the middle of its mass lies, so a heavy single value keeps a bin
    of its own. Categorical: as they are.
    """
    counts = by_feature(bins, baseline)
    return {
        feature.feature: (
            _merged(feature, counts[feature.feature], contract.drift.decision_bins)
            if isinstance(feature, NumericBins)
            else tuple(
                Group(cell.label, cell.place, (index,))
                for index, cell in enumerate(feature.cells())
            )
        )
        for feature in bins.features
    }


def merge(groups: Iterable[Group], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of the decision bins, from fine counts of one feature."""
    return np.array([counts[list(group.cells)].sum() for group in groups], dtype=np.int64)


def _merged(feature: NumericBins, counts: NDArray[np.int64], wanted: int) -> tuple[Group, ...]:
    cells = feature.cells()
    mass = np.where([cell.place == "inside" for cell in cells], counts, 0)
    middle = (np.cumsum(mass) - mass / 2) / max(int(mass.sum()), 1)
    slot = np.minimum((middle * wanted).astype(int), wanted - 1)
    groups = []
    for (place, _), members in itertools.groupby(
        range(len(cells)), key=lambda index: (cells[index].place, slot[index])
    ):
        indices = tuple(members)
        label = (
            feature.label(indices[0] - 1, indices[-1] - 1)  # cell 0 lies below the first inside
            if place == "inside"
            else cells[indices[0]].label
        )
        groups.append(Group(label, place, indices))
    return tuple(groups)


def _value(feature: NumericBins | CategoryBins) -> str:
    name = quoted(feature.feature)
    if isinstance(feature, CategoryBins):
        return name
    value = f"CAST({name} AS double)"
    return f"CASE WHEN abs({value}) <= {LARGEST} THEN {value} ELSE NULL END"


def _long(bins: Bins, counts: Iterable[int]) -> pa.Table:
    listed = [
        (feature.feature, index, cell.label)
        for feature in bins.features
        for index, cell in enumerate(feature.cells())
    ]
    features, cells, labels = zip(*listed, strict=True)
    n = list(itertools.islice(counts, len(listed)))
    schema = SCHEMA.with_metadata({_HASH: bins.bins_hash.encode()})
    return pa.table(
        [
            pa.array(values, field.type)
            for values, field in zip((features, cells, labels, n), schema, strict=True)
        ],
        schema=schema,
    )


def _check_inputs(contract: Contract, bins: Bins) -> None:
    fitted = [feature.feature for feature in bins.features]
    listed = {f.feature: list(f.categories) for f in bins.features if isinstance(f, CategoryBins)}
    if fitted != contract.model_inputs or listed != contract.categorical_inputs:
        raise CountsError(
            f"{contract.name}: the bins {bins.bins_hash} were fitted for other model inputs than "
            "the contract has now; fit the bins again and count all months again"
        )


def _hash_of(counts: pa.Table) -> str | None:
    found = (counts.schema.metadata or {}).get(_HASH)
    return found.decode() if found else None
