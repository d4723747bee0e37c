"""Takes a whole made-up book in, month by month, as the assets do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.ingest.admission import Admission, admit
from loan_platform.ingest.source import locate
from loan_platform.ingest.staging import open_book
from loan_platform_tests import home_loans

Row = dict[str, Any]

REPLAYED = Contract.model_validate(
    {
        "name": "small",
        "title": "A book without dates",
        "source": {"path": "small.csv"},
        "time": {"replay": {"start": "2024-11-01", "periods": 1}},
        "outcome": {"bad": ["1"], "good": ["0"], "matures_after_days": 30},
        "columns": [
            {"name": "amount", "type": "number", "range": [0, 1e6]},
            {"name": "years", "type": "integer", "nulls": "allowed"},
            {"name": "purpose", "type": "category", "categories": ["car", "home"]},
            {"name": "status", "type": "category", "categories": ["0", "1"], "role": "outcome"},
        ],
        "rules": [
            {"name": "dear_car", "refuse_when": "purpose = 'car' AND amount > 90000",
             "reason": "no car costs that much"}
        ],
    }
)  # fmt: skip
DEALT = Contract.model_validate(
    REPLAYED.model_dump() | {"time": {"replay": {"start": "2024-11-01", "periods": 3}}}
)
HEADER = "amount,years,purpose,status\n"


def good_lines(count: int) -> list[str]:
    return [f"{1000 + n},{n % 9},{'car' if n % 2 else 'home'},{n % 5 // 4}" for n in range(count)]


def small_book(*lines: str) -> str:
    return HEADER + "".join(line + "\n" for line in lines)


@dataclass(frozen=True)
class Taken:
    """What became of a book: by month, and over all of it."""

    admissions: dict[str, Admission]
    accepted: list[Row]
    quarantined: list[Row]

    @property
    def rows(self) -> int:
        return sum(admission.rows for admission in self.admissions.values())

    @property
    def reasons(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for admission in self.admissions.values():
            for reason, count in admission.reasons.items():
                found[reason] = found.get(reason, 0) + count
        return found


def take_in(contract: Contract, home: Home, months: list[str] | None = None) -> Taken:
    """Admit `months` (default: every month the book reaches)."""
    admissions = {}
    location = locate(contract, home)
    if contract.source.one_file_a_partition:
        for month in months or []:
            with open_book(contract, location, month) as book:
                admissions[month] = admit(contract, home, month, book)
    else:
        with open_book(contract, location) as book:
            for month in months or book.months():
                admissions[month] = admit(contract, home, month, book)
    return Taken(
        admissions,
        read(home, contract, "raw_loans", admissions),
        read(home, contract, "quarantine", admissions),
    )


def read(home: Home, contract: Contract, layer: str, months: Any) -> list[Row]:
    files = [home.partition(contract.name, layer, month) for month in months]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def home_loans_in(folder: Path, rows: list[Row], **changes: Any) -> Contract:
    """A contract of home loans over `rows`, written as CSV in `folder`."""
    path = home_loans.write_csv(folder / "home_loans.csv", rows)
    return home_loans.contract(source={"path": str(path)}, **changes)
