"""The five shipped books, from their files to a champion without a search: rows and figures.

Runs `loan-platform materialize` for each of them in a state folder of its own, and prints three
tables, or writes them into the docs: the rows and the AUC (portfolios.md), the figures on the test
rows (training.md), the least ratio of approval rates of a protected column's groups (fairness.md).

    LOAN_DATA_DIR=/path/to/books python benchmarks/shipped_books.py [--only loan_default] [--write]

Here: what is run, and the tables. Not here: a search beside rivals (`quality`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.documented import write_table
from loan_platform.contract.sql import reasons
from loan_platform.engine import duck
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import OWN_REASONS
from loan_platform.local.materialize import Made, materialize

BOOKS = ("credit_risk", "loan_approval", "loan_default", "playground_s4e10", "lending_club")
REASONS_SHOWN = 3


@dataclass(frozen=True)
class Measured:
    """A book with its champion: what came of it, and the version's figures by name."""

    made: Made
    bad_share: float
    metrics: dict[str, float]
    test_rows: int
    groups: list[dict[str, Any]]


def measure(name: str, home: Home) -> Measured:
    from loan_platform.registry.models import Registry

    made = materialize(name, Console(file=sys.stderr))
    registry = Registry(home, name)
    version = str(made.model["model_version"])
    record = registry.load(version).record
    groups: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = registry.run_id(version)
        if any(one.path == "fairness.json" for one in registry.client.list_artifacts(run)):
            file = Path(registry.client.download_artifacts(run, "fairness.json", folder))
            table = json.loads(file.read_text(encoding="utf-8"))
            groups = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    cleaned = duck.parquet(*home.partitions(name, "cleaned_features").values())
    share = duck.query(f"SELECT avg(outcome) AS bad FROM {cleaned}")["bad"].to_pylist()[0]
    return Measured(made, share, record.metrics, record.rows["judge"], groups)


def rows_table(books: dict[str, Measured]) -> list[str]:
    lines = [
        "| portfolio | rows | accepted | quarantined, and why | bad | months | AUC, interval |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for name, book in books.items():
        made, contract = book.made, book.made.contract
        words = reasons(contract) | OWN_REASONS
        why = [f"{count:,} {words[rule]}" for rule, count in made.reasons.items()]
        rest = [f"and {len(why) - REASONS_SHOWN} more"] if len(why) > REASONS_SHOWN else []
        time = contract.time_column
        lines.append(
            f"| `{name}` | {made.rows:,} | {made.accepted:,} | {made.quarantined:,}: "
            f"{'; '.join([*why[:REASONS_SHOWN], *rest])} | {100 * book.bad_share:.1f} % | "
            f"{'replayed' if time is None else f'by `{time.name}`'} | "
            f"{_with_interval(book.metrics, 'auc')} |"
        )
    return lines


def figures_table(books: dict[str, Measured]) -> list[str]:
    lines = [
        "| book | test rows | AUC | log loss | calibration error |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, book in books.items():
        figures = (f"{book.metrics[one]:.4f}" for one in ("auc", "log_loss", "calibration_error"))
        lines.append(f"| {name} | {book.test_rows:,} | {' | '.join(figures)} |")
    return lines


def groups_table(books: dict[str, Measured]) -> list[str]:
    """The judged group with the least ratio, of each protected column."""
    lines = ["| book | column | least ratio of a judged group |", "|---|---|---|"]
    for name, book in books.items():
        judged = [one for one in book.groups if one["ratio"] is not None and one["judged"]]
        for column in dict.fromkeys(one["column"] for one in judged):
            least = min(
                (one for one in judged if one["column"] == column), key=lambda g: g["ratio"]
            )
            ends = f"{least['ratio_low']:.3f} to {least['ratio_high']:.3f}"
            lines.append(
                f"| {name} | {column} | {least['name']} against {least['best']}: "
                f"{least['ratio']:.3f} ({ends}) |"
            )
        if not judged:
            lines.append(f"| {name} | | no protected column whose groups are compared |")
    return lines


def _with_interval(metrics: dict[str, float], name: str) -> str:
    low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
    return f"{metrics[name]:.3f} [{low:.3f}, {high:.3f}]"


TABLES = {
    ("portfolios.md", "rows of the books"): rows_table,
    ("training.md", "figures of the books"): figures_table,
    ("fairness.md", "groups of the books"): groups_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=BOOKS, default=BOOKS)
    parser.add_argument("--write", action="store_true", help="into the docs; needs all five books")
    options = parser.parse_args()
    if not (Path(os.environ.get("LOAN_DATA_DIR", ".")) / "credit_risk.csv.gz").is_file():
        sys.exit("no books; set LOAN_DATA_DIR to the folder with credit_risk.csv.gz")
    if options.write and set(options.only) != set(BOOKS):
        sys.exit("--write needs all five books; leave --only out")
    with tempfile.TemporaryDirectory(prefix="shipped-books-") as folder:
        os.environ["LOAN_PLATFORM_HOME"] = folder
        home = Home.from_environment()
        books = {name: measure(name, home) for name in options.only}
    for (page, name), table in TABLES.items():
        print(f"\n{page}, {name}\n", *table(books), sep="\n")
        if options.write:
            write_table(page, name, table(books))


if __name__ == "__main__":
    main()
