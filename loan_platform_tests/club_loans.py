"""A third portfolio: a book that writes its values in its own way, with dates features read.

Here: its contract and rows as its file has them, each with the typed values they stand for. All
made up. Not here: any test.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import yaml

from loan_platform.contract import Contract

MONTHS = ["2009-11", "2009-12"]

ATTRIBUTES = """\
name: club_loans
title: Made-up loans of a marketplace
source: {path: club_loans.csv}
time: {start: 2009-11-01, end: 2009-12-01}
outcome: {bad: [charged off], good: [paid], matures_after_days: 30}
columns:
  - {name: id, type: text, role: key}
  - {name: issue_d, type: date, format: "%b-%Y", role: time}
  - {name: earliest line, type: date, format: "%m/%d/%y", role: input, nulls: allowed}
  - {name: rate, type: number, remove: ["%"], range: [0, 40]}
  - {name: amount, type: number, decimal: ",", remove: [EUR]}
  - {name: years, type: integer, nulls: allowed, range: [0, 10],
     values: {10+ years: 10, < 1 year: 0, n/a: null}, remove: [years, year]}
  - {name: home, type: category, categories: [own, rent], values: {O: own, R: rent}}
  - {name: purpose, type: text, role: input, nulls: allowed}
  - {name: status, type: category, categories: [paid, charged off], role: outcome,
     values: {Fully Paid: paid, Charged Off: charged off}}
ignored:
  - {reason: known only afterwards, columns: [last_payment, recoveries]}
rules:
  - {name: older_than_the_loan, refuse_when: '"earliest line" > issue_d',
     reason: the first line of credit comes after the application}
features:
  history_days: {sql: "date_diff('day', \\"earliest line\\", issue_d)"}
  wedding: {sql: "CASE WHEN lower(purpose) LIKE '%wedding%' THEN 1 ELSE 0 END"}
  amount_rate: {sql: amount * rate / 100}
"""


def contract(**changes: Any) -> Contract:
    """The contract, with some of its top-level keys replaced."""
    return Contract.model_validate(yaml.safe_load(ATTRIBUTES) | changes)


def rows(count: int = 200, seed: int = 3) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Rows as the file has them, each with what a request for the same loan says."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        month = MONTHS[number % 2]
        line = dt.date(1970, 1, 1) + dt.timedelta(days=int(random.integers(0, 14_000)))
        cents = int(random.integers(50_000, 9_000_000))
        rate = int(random.integers(500, 2500)) / 100
        years = int(random.integers(0, 11))
        words = {0: "< 1 year", 1: "1 year", 10: "10+ years"}
        home = ("own", "rent")[number % 2]
        purpose = ("Our WEDDING, at last", "a car", "")[number % 3]
        whole = f"{cents // 100:,}".replace(",", ".")
        written = {
            "id": f"L{number}",
            "issue_d": dt.date.fromisoformat(month + "-01").strftime("%b-%Y"),
            "earliest line": "" if number % 17 == 0 else line.strftime("%m/%d/%y"),
            "rate": f" {rate:.2f}%",
            "amount": f"{whole},{cents % 100:02d} EUR",
            "years": "n/a" if number % 13 == 0 else words.get(years, f"{years} years"),
            "home": home[0].upper(),
            "purpose": purpose,
            "status": "Charged Off" if random.random() < 0.3 else "Fully Paid",
            "last_payment": "123.4",
            "recoveries": "0",
        }
        typed = {
            "application_id": f"L{number}",
            "applied_at": f"{month}-01T00:00:00Z",
            "earliest line": None if number % 17 == 0 else line.isoformat(),
            "rate": float(f"{rate:.2f}"),
            "amount": cents / 100,
            "years": None if number % 13 == 0 else years,
            "home": home,
            "purpose": purpose or None,
        }
        found.append((written, typed))
    return found
