"""How often the drift verdict alarms when nothing moved, and how often when something did.

Draws windows from the credit_risk book against baselines of 13,000 other rows of it, a fresh
split for every ten windows, and counts how many are called drifted by rule E of docs/drift.md;
beside it, in the same run, two fixed rules many people use. Prints Markdown tables.

    LOAN_DATA_DIR=/path/to/books python benchmarks/drift_rates.py [--windows 1000] [--seed 7]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from loan_platform.contract import Contract, read_contract
from loan_platform.contract.sql import features_sql, quoted, typed_sql
from loan_platform.drift.counts import fit_bins
from loan_platform.drift.report import DriftReport, compare
from loan_platform.engine import duck
from loan_platform_tests.drift.counting import Counter

CONTRACT = Path(__file__).parents[1] / "loan_platform/defs/portfolios/credit_risk/defs.yaml"
BASELINE = 13_000
PER_SPLIT = 10
SIZES = (300, 500, 1000, 1300)

# Changes of the typed columns; `_chance` is a random number in [0, 1) of each row.
SHIFTS = {
    "income +1 % (immaterial)": {"person_income": "person_income * 1.01"},
    "income +10 %": {"person_income": "person_income * 1.1"},
    "income +20 %": {"person_income": "person_income * 1.2"},
    "5 % missing income": {
        "person_income": "CASE WHEN _chance < 0.05 THEN NULL ELSE person_income END"
    },
    "1 % unseen category": {
        "loan_intent": "CASE WHEN _chance < 0.01 THEN 'YACHT' ELSE loan_intent END"
    },
    "10 % move to one category": {
        "loan_intent": "CASE WHEN _chance < 0.1 THEN 'VENTURE' ELSE loan_intent END"
    },
}
RULES: dict[str, Callable[[DriftReport], bool]] = {
    "rule E": lambda report: report.drifted,
    "PSI >= 0.2 of any feature": lambda report: any(f.psi_raw >= 0.2 for f in report.features),
    "chi2 or rank p < 0.05 of any feature": lambda report: any(
        min(f.p_chi2, 1.0 if f.p_rank is None else f.p_rank) < 0.05 for f in report.features
    ),
}


def model_inputs(contract: Contract, book: Path, changes: dict[str, str], seed: int) -> pa.Table:
    """Accepted rows of the book as the model sees them, after `changes` to typed columns."""
    names = [column.name for column in contract.feature_columns]
    columns = ", ".join(f"{changes.get(name, quoted(name))} AS {quoted(name)}" for name in names)
    with duck.connect() as connection:
        connection.execute(
            "CREATE TABLE source AS SELECT row_number() OVER () AS _row, 'book' AS _origin, * "
            "FROM read_csv(?, all_varchar = true)",
            [str(book)],
        )
        accepted = connection.sql(
            f"SELECT * FROM ({typed_sql(contract, 'source')}) WHERE _rules = '' ORDER BY _row"
        ).to_arrow_table()
        chance = np.random.default_rng(seed).random(len(accepted))
        connection.register("accepted", accepted.append_column("_chance", pa.array(chance)))
        changed = f"(SELECT {columns} FROM accepted)"
        return connection.sql(features_sql(contract, changed)).to_arrow_table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=1000, help="without a shift, per size")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    book = Path(os.environ.get("LOAN_DATA_DIR", ".")) / "credit_risk.csv.gz"
    if not book.is_file():
        sys.exit(f"no {book}; set LOAN_DATA_DIR to the folder with credit_risk.csv.gz")

    contract = read_contract(CONTRACT)
    random = np.random.default_rng(options.seed)
    inputs = model_inputs(contract, book, {}, options.seed)
    bins = fit_bins(contract, inputs)
    unchanged = Counter(contract, bins, inputs)
    began, compared = time.perf_counter(), 0

    def reports(moved: Counter, rows: int, windows: int) -> list[DriftReport]:
        nonlocal compared
        found: list[DriftReport] = []
        while len(found) < windows:
            order = random.permutation(len(inputs))
            baseline = unchanged.count(order[:BASELINE])
            for start in range(BASELINE, BASELINE + rows * PER_SPLIT, rows):
                window = moved.count(order[start : start + rows])
                found.append(compare(contract, bins, baseline, window, "window"))
        compared += len(found)
        return found

    def table(title: str, windows: int, shifts: dict[str, Counter]) -> None:
        print(f"\n| {title}, % of {windows} windows | rule |", *(f"n = {n} |" for n in SIZES))
        print("|---|---|" + "---:|" * len(SIZES))
        for name, moved in shifts.items():
            columns = [reports(moved, rows, windows) for rows in SIZES]
            for rule, alarms in RULES.items():
                shares = (100 * float(np.mean([alarms(r) for r in column])) for column in columns)
                print(f"| {name} | {rule} |", *(f"{share:.1f} |" for share in shares), flush=True)

    print(f"{len(inputs):,} rows, baseline {BASELINE:,}, {len(bins.features)} features, ", end="")
    print(
        f"alpha {contract.drift.alpha}, PSI floor {contract.drift.psi_floor}, seed {options.seed}"
    )
    table("false alarms", options.windows, {"nothing moved": unchanged})
    moved = {
        name: Counter(contract, bins, model_inputs(contract, book, changes, options.seed + 1))
        for name, changes in SHIFTS.items()
    }
    table("alarms", options.windows // 5, moved)
    each = 1000 * (time.perf_counter() - began) / compared
    print(f"\n{compared:,} comparisons, {each:.1f} ms each, drawing and counting included")


if __name__ == "__main__":
    main()
