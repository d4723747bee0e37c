"""Raw file to accepted rows, quarantine, cleaned features and counts of all months, three ways.

Replicates a real book to as many rows as asked for, as a CSV with a key of its own, and takes it
in: as the platform does; the usual way in pandas; and with bare DuckDB, one script over the same
SQL. Each way runs in a process of its own, whose time and peak memory are measured, on the same
file, one after the other; all must agree on the rows and on every count. Prints one table.

    LOAN_DATA_DIR=/path/to/books python benchmarks/ingestion.py [--rows 10_000_000]

The pandas way knows the derived features of credit_risk; other portfolios run without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from loan_platform.contract import Contract
from loan_platform.contract.portfolios import contract_of
from loan_platform.contract.sql import literal, quoted

KEY = "benchmark_key"
WAYS = ("ours", "pandas", "duckdb")
Counts = list[list[int]]


class Measured(NamedTuple):
    """Seconds by the clock and of all cores, peak resident bytes, and what was found."""

    seconds: float
    cpu: float
    memory: int
    found: dict[str, Any]


def take_in_ours(contract: Contract, bins: Any, folder: Path) -> dict[str, Any]:
    """What the assets raw_loans, cleaned_features and feature_counts do."""
    from loan_platform.drift.counts import by_feature, count, total
    from loan_platform.engine.home import Home
    from loan_platform.ingest.admission import admit
    from loan_platform.ingest.cleaning import clean
    from loan_platform.ingest.source import Location
    from loan_platform.ingest.staging import open_book

    home = Home.at(folder)
    accepted, quarantined, counted = 0, 0, []
    with open_book(contract, Location(contract.source, simulated=False)) as book:
        for month in book.months():
            admission = admit(contract, home, month, book)
            clean(contract, home, month)
            cleaned = home.partition(contract.name, "cleaned_features", month)
            counted.append(count(contract, bins, [cleaned]))
            accepted += admission.accepted
            quarantined += admission.quarantined
    sums = by_feature(bins, total(counted)).values()
    return _found(accepted, quarantined, [vector.tolist() for vector in sums])


def take_in_duckdb(contract: Contract, bins: Any, folder: Path) -> dict[str, Any]:
    """One script in one DuckDB of default settings: everything in memory, partitioned writes."""
    import duckdb

    from loan_platform.contract.portfolio import PLATFORM_COLUMNS
    from loan_platform.contract.sql import features_sql, typed_sql
    from loan_platform.drift.counts import count_sql
    from loan_platform.ingest.admission import accepted_sql, refused_sql
    from loan_platform.ingest.staging import STAGED

    replay = contract.time.replay
    assert replay is not None
    assert contract.source.path is not None
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    header = contract.source.path
    connection.execute(
        "CREATE TABLE staged AS SELECT row_number() OVER () AS _row, "
        f"hash({KEY}) % {replay.periods} AS _place, {KEY} AS _application_id, "
        f"TIMESTAMPTZ '{replay.start} 00:00:00+00' + to_months((_place)::INTEGER) AS _applied_at, "
        "'book' AS _origin, CAST(NULL AS VARCHAR) AS _duplicate, CAST(NULL AS VARCHAR) AS _outside,"
        f" * FROM read_csv({literal(header)}, all_varchar = true, header = true)"
    )
    connection.execute(
        f"UPDATE staged SET _duplicate = 'duplicate' WHERE {KEY} IN (SELECT {KEY} FROM staged "
        f"GROUP BY {KEY} HAVING count(*) > 1)"
    )
    connection.execute(f"CREATE TABLE judged AS {typed_sql(contract, 'staged', STAGED[1:])}")
    raw, cleaned = folder / "raw_loans", folder / "cleaned_features"
    options = "FORMAT parquet, COMPRESSION zstd, PARTITION_BY (_place)"
    accepted = accepted_sql(contract, "judged").replace("SELECT ", "SELECT _place, ", 1)
    connection.execute(f"COPY ({accepted}) TO '{raw}' ({options})")
    connection.execute(
        f"COPY ({refused_sql(contract, 'staged')}) TO '{folder}/refused' ({options})"
    )
    features = features_sql(
        contract, f"read_parquet('{raw}/*/*.parquet')", ("_place", *PLATFORM_COLUMNS)
    )
    connection.execute(f"COPY ({features}) TO '{cleaned}' ({options})")
    cells: Counts = [[0] * len(feature.cells()) for feature in bins.features]
    for month in sorted(cleaned.iterdir()):
        sql = count_sql(contract, bins, f"read_parquet('{month}/*.parquet')")
        for feature, cell, n in connection.execute(sql).fetchall():
            cells[feature][cell] += n
    rows = {
        layer: connection.execute(
            f"SELECT count(*) FROM read_parquet('{folder}/{layer}/*/*.parquet')"
        ).fetchall()[0][0]
        for layer in ("raw_loans", "refused")
    }
    return _found(rows["raw_loans"], rows["refused"], cells)


PANDAS_FEATURES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "credit_risk": {
        "loan_to_income": lambda d: d.loan_amnt / d.person_income.where(d.person_income != 0),
    }
}


def take_in_pandas(contract: Contract, bins: Any, folder: Path) -> dict[str, Any]:
    """The usual way: read as text, coerce, filter, drop duplicates, derive, dummies, count."""
    import numpy as np
    import pandas as pd

    assert contract.time.replay is not None
    assert contract.source.path is not None
    frame = pd.read_csv(contract.source.path, dtype=str)
    numeric = {c.name for c in contract.feature_columns if c.type in ("number", "integer")}
    typed: dict[str, Any] = {}
    bad = pd.Series(data=False, index=frame.index)
    for column in contract.feature_columns:
        text = frame[column.name]
        if column.name in numeric:
            value = pd.to_numeric(text, errors="coerce")
            bad |= value.isna() & text.notna()
            if column.range:
                bad |= (value < column.range[0]) | (value > column.range[1])
        else:
            value = text.astype(pd.CategoricalDtype(column.categories))
            bad |= value.isna() & text.notna()
        if column.nulls == "refused":
            bad |= text.isna()
        typed[column.name] = value
    bad |= typed["person_emp_length"] > typed["person_age"]
    bad |= frame.duplicated(KEY)
    frame[bad].to_parquet(folder / "quarantine.parquet")
    month = pd.util.hash_pandas_object(frame[KEY], index=False) % contract.time.replay.periods
    bad_values = contract.outcome.bad
    loans = pd.DataFrame(
        {
            "application_id": frame[KEY],
            "outcome": frame[contract.outcome_column.name].isin(bad_values).astype("int8"),
            "month": month,
            **typed,
        }
    )[~bad]
    quarantined = int(bad.sum())
    del frame, typed
    for part, rows in loans.groupby("month"):
        rows.to_parquet(folder / f"raw_loans-{part}.parquet")
    for name, derive in PANDAS_FEATURES[contract.name].items():
        loans[name] = derive(loans)
    cells: Counts = [[0] * len(feature.cells()) for feature in bins.features]
    for part, rows in loans.groupby("month"):
        dummies = pd.get_dummies(rows, columns=list(contract.categorical_inputs))
        dummies.to_parquet(folder / f"cleaned_features-{part}.parquet")
        for found, feature in zip(cells, bins.features, strict=True):
            values = rows[feature.feature]
            if feature.kind == "category":
                counted = values.value_counts()
                counts = [*(int(counted[name]) for name in feature.categories), 0]
            else:
                present = values.dropna().to_numpy(dtype=float)
                at = 1 + np.searchsorted(feature.edges, present)
                at[present < feature.low] = 0
                counts = np.bincount(at, minlength=len(found) - 1).tolist()
            for cell, n in enumerate([*counts, int(values.isna().sum())]):
                found[cell] += n
    return _found(len(loans), quarantined, cells)


def _found(accepted: int, quarantined: int, counts: Counts) -> dict[str, Any]:
    return {"accepted": accepted, "quarantined": quarantined, "counts": counts}


def keyed(contract: Contract, path: Path) -> Contract:
    """The contract of the replicated book: the same, and a key."""
    changed = contract.model_dump()
    for column in changed["columns"]:
        if column["role"] == "key":
            column |= {"role": "ignored", "reason": "the benchmark has a key of its own"}
    changed["columns"].append({"name": KEY, "type": "text", "role": "key"})
    changed |= {"source": {"path": str(path)}, "simulation": None}
    if contract.time.replay is None:
        raise SystemExit(f"{contract.name} is no replayed book; choose another portfolio")
    return Contract.model_validate(changed)


def replicate(contract: Contract, path: Path, rows: int) -> None:
    """Write the real book over and over, every row under its own key."""
    import duckdb

    from loan_platform.ingest.source import book_of

    book = book_of(contract)
    if book is None or book.path is None:
        raise SystemExit("set LOAN_DATA_DIR to the folder that holds the real books")
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE TABLE book AS FROM read_csv({literal(book.path)}, all_varchar = true)"
        )
        ((size,),) = connection.execute("SELECT count(*) FROM book").fetchall()
        connection.execute(
            f"COPY (SELECT 'L' || lpad((time * {size} + book.rowid)::VARCHAR, 10, '0') AS "
            f"{quoted(KEY)}, book.* FROM range({-(-rows // size)}) AS times(time), book "
            f"LIMIT {rows}) TO {literal(str(path))} (FORMAT csv, HEADER)"
        )


def fit(contract: Contract, folder: Path) -> None:
    """Fit the bins all ways count in, on the book as it is."""
    from loan_platform.drift.counts import fit_bins
    from loan_platform.ingest.cleaning import write_book_features
    from loan_platform.ingest.source import Location, book_of
    from loan_platform.ingest.staging import open_book

    book_source = book_of(contract)
    assert book_source is not None
    with open_book(contract, Location(book_source, simulated=False)) as book:
        write_book_features(contract, book, folder / "features.parquet")
    bins = fit_bins(contract, [folder / "features.parquet"])
    (folder / "bins.json").write_text(bins.model_dump_json())


def measured(way: str, portfolio: str, folder: Path) -> Measured:
    """Run one way in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--portfolio", portfolio, "--way", way, "--folder", str(folder)]
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"the way of {way} failed")
    found = json.loads((folder / f"{way}.json").read_text())
    return Measured(seconds, usage.ru_utime + usage.ru_stime, found.pop("memory"), found)


def run_one(way: str, portfolio: str, folder: Path) -> None:
    from loan_platform.drift.counts import Bins

    contract = keyed(contract_of(portfolio), folder / "book.csv")
    bins = Bins.model_validate_json((folder / "bins.json").read_text())
    bins = bins.model_copy(update={"portfolio": contract.name})
    take_in = {"ours": take_in_ours, "pandas": take_in_pandas, "duckdb": take_in_duckdb}[way]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        found = take_in(contract, bins, Path(out)) | {"memory": _peak_memory()}
    (folder / f"{way}.json").write_text(json.dumps(found))


def _peak_memory() -> int:
    """Peak resident bytes of this process; what `wait4` says counts its parent's in (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(peak) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portfolio", default="credit_risk")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_one(options.way, options.portfolio, options.folder)
        return
    contract = contract_of(options.portfolio)
    ways = [way for way in WAYS if way != "pandas" or contract.name in PANDAS_FEATURES]
    with tempfile.TemporaryDirectory(prefix="ingestion-") as name:
        folder = Path(name)
        replicate(contract, folder / "book.csv", options.rows)
        fit(contract, folder)
        size = (folder / "book.csv").stat().st_size
        found = {way: measured(way, options.portfolio, folder) for way in ways}
    ours = found["ours"]
    for way, one in found.items():
        if one.found != ours.found:
            raise SystemExit(f"ours and {way} do not agree on the rows and counts")
    print(
        f"{contract.name}: {options.rows:,} rows, {size / 1e6:,.0f} MB of CSV, {os.cpu_count()} "
        f"cores; {ours.found['accepted']:,} accepted, {ours.found['quarantined']:,} quarantined, "
        f"{sum(map(len, ours.found['counts'])):,} counts, all the same in every way\n"
    )
    print("| way | seconds | of ours | CPU seconds | peak memory, MB | of ours |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, one in found.items():
        print(
            f"| {way} | {one.seconds:.1f} | {one.seconds / ours.seconds:.2f} | {one.cpu:.1f} | "
            f"{one.memory / 1e6:,.0f} | {one.memory / ours.memory:.2f} |"
        )


if __name__ == "__main__":
    main()
