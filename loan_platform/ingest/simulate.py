"""Draws a stand-in book from the summary figures in a contract, for where the real one is not.

Here: the rows, as text, as a lender's file would have them; the same seed gives the same bytes.
Not here: admitting them (`admission`). Wherever such a book is used, it is said to be simulated.

Each loan is bad with the contract's bad rate. Each column then comes from the figures of the good
or of the bad loans: inverse transform sampling, linear between the quantiles given, or category
shares. Columns tied by `rank_with` share a Gaussian copula (Nelsen 2006, An Introduction to
Copulas). What the figures leave out, the stand-in leaves out too: do not judge a model by it.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.expression import SQL_TYPES
from loan_platform.contract.portfolio import Column, Simulation
from loan_platform.contract.sql import MONTHS, quoted
from loan_platform.engine import duck
from loan_platform.engine.files import replacing

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class SimulationError(ValueError):
    """The contract's figures do not make a book; says which, and how to mend them."""


def simulate(contract: Contract, seed: int = 7, rows: int | None = None) -> pd.DataFrame:
    """A simulated book: every column of the contract, in its order, all text, None where missing.

    Text is written as the lender's file has it: by the contract's `values`, `format`, `decimal`.
    `rows` counts exact duplicates too and defaults to the contract's figure. Ignored columns
    without figures are empty, those listed in groups too; a key without figures numbers the rows.

    Raises:
        SimulationError: no `simulation:` in the contract, or figures that contradict each other.
    """
    import pandas as pd

    figures = contract.simulation
    if figures is None:
        raise SimulationError(
            f"{contract.name}: the contract has no simulation: section to draw a book from; "
            "add one, or give the book itself (LOAN_DATA_DIR, or source.path)"
        )
    time = contract.time_column
    if time and time.name not in figures.columns:
        raise SimulationError(
            f"{contract.name}: {time.name} says when an application was made but has no figures; "
            f"compute it from the row's number, as in simulation.columns.{time.name}.sql: "
            "DATE '2024-01-01' + CAST(_row % 700 AS INTEGER)"
        )
    wanted = figures.rows if rows is None else rows
    duplicates = round(wanted * figures.duplicate_rate)
    random = np.random.default_rng(seed)
    drawn = _draw(contract, figures, wanted - duplicates, random)
    written = {
        column.name: _written(column, drawn[column.name]) if column.name in drawn else None
        for column in contract.columns
    }
    unused = {name: None for group in contract.ignored for name in group.columns}
    frame = pd.DataFrame(written | unused, index=range(wanted - duplicates))
    copies = random.integers(0, wanted - duplicates, duplicates)
    order = random.permutation(np.append(np.arange(wanted - duplicates), copies))
    return frame.iloc[order].reset_index(drop=True)


def write_simulated(contract: Contract, path: Path, seed: int = 7, rows: int | None = None) -> None:
    """Write a simulated book as gzipped CSV; the same contract, seed and rows give the same bytes.

    Raises:
        SimulationError: as `simulate`.
    """
    text = simulate(contract, seed, rows).to_csv(index=False, lineterminator="\n")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as archive:
        archive.write(text.encode())
    with replacing(path) as temporary:
        temporary.write_bytes(packed.getvalue())


def _draw(
    contract: Contract, figures: Simulation, rows: int, random: np.random.Generator
) -> dict[str, NDArray[np.object_]]:
    """Text of every column that has one, `rows` long."""
    bad = random.random(rows) < figures.bad_rate
    outcome = np.where(bad, contract.outcome.bad[0], contract.outcome.good[0])
    text: dict[str, NDArray[np.object_]] = {contract.outcome_column.name: outcome.astype(object)}
    if contract.key_column and contract.key_column.name not in figures.columns:
        text[contract.key_column.name] = np.arange(1, rows + 1).astype(str).astype(object)
    for name, ranks in _ranks(contract, figures, rows, random).items():
        column = figures.columns[name]
        values = np.full(rows, None, dtype=object)
        for side, where in ((column.good, ~bad), (column.bad, bad)):
            values[where] = _values(name, side, ranks[where], figures.probabilities)
        values[random.random(rows) < column.missing] = None
        text[name] = values
    for name, column in figures.columns.items():
        if column.sql is not None:
            values = _computed(contract, name, column.sql, text)
            values[random.random(rows) < column.missing] = None
            text[name] = values
    return text


def _ranks(
    contract: Contract, figures: Simulation, rows: int, random: np.random.Generator
) -> dict[str, Floats]:
    """Uniform ranks of each drawn column, each tied to those before it as `rank_with` says."""
    from scipy.special import ndtr

    order = _order(contract, figures)
    scores: dict[str, Floats] = {}
    correlation = np.eye(len(order))
    for index, name in enumerate(order):
        own = random.standard_normal(rows)
        ties = figures.columns[name].rank_with
        if ties:
            parents = [order.index(other) for other in ties]
            wanted = np.array(list(ties.values()))
            weights = np.linalg.lstsq(correlation[np.ix_(parents, parents)], wanted, rcond=None)[0]
            left = 1 - float(wanted @ weights)
            if left < 0:
                raise SimulationError(
                    f"{contract.name}: simulation.columns.{name}.rank_with: no such correlations "
                    f"with {', '.join(ties)} together; bring them nearer to 0"
                )
            own = np.sqrt(left) * own
            for weight, other in zip(weights, ties, strict=True):
                own = own + weight * scores[other]
            correlation[index, :index] = weights @ correlation[parents, :index]
            correlation[:index, index] = correlation[index, :index]
        scores[name] = own
    return {name: ndtr(score) for name, score in scores.items()}


def _order(contract: Contract, figures: Simulation) -> list[str]:
    """Drawn columns, each after those it is tied to."""
    waiting = {name: c.rank_with for name, c in figures.columns.items() if c.sql is None}
    order: list[str] = []
    while waiting:
        ready = [name for name, ties in waiting.items() if all(other in order for other in ties)]
        if not ready:
            raise SimulationError(
                f"{contract.name}: simulation.columns: rank_with of {', '.join(waiting)} goes in a "
                "circle, or names a column without good: and bad: figures; tie each column only "
                "to columns that do not depend on it"
            )
        order += ready
        waiting = {name: ties for name, ties in waiting.items() if name not in order}
    return order


def _values(
    name: str,
    side: list[float] | dict[str, float] | None,
    ranks: Floats,
    probabilities: list[float],
) -> Iterable[str]:
    if isinstance(side, dict):
        ends = np.cumsum(list(side.values()))
        if ends[-1] <= 0:
            raise SimulationError(f"simulation.columns.{name}: the shares add up to nothing")
        position = np.searchsorted(ends / ends[-1], ranks, side="right")
        return np.array(list(side), dtype=object)[np.minimum(position, len(side) - 1)]
    assert side is not None  # the contract refuses a column without figures and without SQL
    # As many decimals as the figures have: whole years stay whole, money keeps its cents.
    decimals = max(len(f"{value:.12g}".partition(".")[2]) for value in side)
    return [f"{value:.{decimals}f}" for value in np.interp(ranks, probabilities, side)]


def _written(column: Column, values: NDArray[np.object_]) -> NDArray[np.object_]:
    """Plain values in the book's own notation."""
    words: dict[str, str] = {}
    for word, value in (column.values or {}).items():
        if value is not None:
            words.setdefault(value if isinstance(value, str) else f"{value:g}", word)

    def write(value: str | None) -> str | None:
        if value is None:
            return None
        if words:
            plain = f"{float(value):g}" if column.type in ("number", "integer") else value
            if plain in words:
                return words[plain]
        if column.format:
            return _date_text(dt.date.fromisoformat(value[:10]), column.format)
        return value.replace(".", column.decimal) if column.decimal != "." else value

    return np.array([write(value) for value in values], dtype=object)


def _date_text(day: dt.date, notation: str) -> str:
    """As strftime in the C locale, whatever the locale of this process."""
    parts = {
        "%Y": f"{day.year:04d}",
        "%y": f"{day.year % 100:02d}",
        "%m": f"{day.month:02d}",
        "%b": MONTHS[day.month - 1].title(),
        "%d": f"{day.day:02d}",
    }
    for token, text in parts.items():
        notation = notation.replace(token, text)
    return notation


def _computed(
    contract: Contract, name: str, sql: str, text: dict[str, NDArray[np.object_]]
) -> NDArray[np.object_]:
    """A column from SQL over the columns before it, typed, and `_row`, the row's number from 1."""
    import duckdb
    import pyarrow as pa

    columns = {column: pa.array(values, pa.string()) for column, values in text.items()}
    rows = len(next(iter(columns.values())))
    drawn = pa.table({"_row": np.arange(1, rows + 1), **columns})
    typed = ", ".join(
        f"TRY_CAST({quoted(c.name)} AS {SQL_TYPES[c.type]}) AS {quoted(c.name)}"
        for c in contract.columns
        if c.name in text
    )
    statement = f"SELECT CAST(({sql}) AS VARCHAR) AS value FROM (SELECT _row, {typed} FROM drawn)"
    try:
        found = duck.query(f"{statement} ORDER BY _row", drawn=drawn)
    except duckdb.Error as error:
        problem = str(error).partition("\n")[0]
        raise SimulationError(f"simulation.columns.{name}.sql: {problem}") from None
    return np.array(found["value"].to_pylist(), dtype=object)
