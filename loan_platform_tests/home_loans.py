"""A second portfolio of another shape: dated, keyed, names no bundled book has. All made up.

Here: its contract as a person would write it, and its rows. Not here: any test.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loan_platform.contract import Contract

MONTHS = [f"2024-0{month}" for month in range(1, 9)]

# A key, time and outcome column named as the platform's own, odd names, quotes, reserved words.
DEFS_YAML = """\
type: loan_platform.components.LoanPortfolio

attributes:
  name: home_loans
  title: Made-up home loans
  owners: ["team:mortgages"]
  source:
    path: home_loans.csv
  time:
    start: 2024-01-01
  outcome:
    bad: [defaulted, written off]
    good: [paid]
    matures_after_days: 45
  columns:
    - {name: application_id, type: text, role: key}
    - {name: applied_at, type: date, role: time}
    - {name: outcome, type: category, categories: [paid, defaulted, written off, open],
       role: outcome, nulls: allowed}
    - {name: loan amount, type: number, unit: EUR, range: [1000, 900000]}
    - {name: debt-ratio, type: number, range: [0, 5], monotone: increasing}
    - {name: order, type: integer, range: [1, 4], description: Rank of the lien}
    - {name: years_in_job, type: number, nulls: allowed, range: [0, 60]}
    - {name: reason, type: category, categories: [purchase, "parent's home", 'a "second" home']}
    - {name: sex, type: category, categories: [f, m], role: protected}
    - {name: note, type: text, role: ignored, reason: free text, nulls: allowed}
  rules:
    - {name: first_lien_large, refuse_when: '"order" = 1 AND "loan amount" < 2000',
       reason: a first lien is never that small}
    - {name: unlikely, refuse_when: "sex = 'f' AND years_in_job > 59", reason: made-up rule}
  features:
    burden:
      sql: '"debt-ratio" * "loan amount" / nullif(years_in_job, 0)'
    log_amount:
      sql: ln("loan amount")
      monotone: decreasing
"""


def contract(**changes: Any) -> Contract:
    """The contract, with some of its top-level keys replaced."""
    return Contract.model_validate(yaml.safe_load(DEFS_YAML)["attributes"] | changes)


def rows(count: int = 3000, seed: int = 11) -> list[dict[str, Any]]:
    """Valid applications in random order over `MONTHS`; a higher debt ratio is a higher risk."""
    random = np.random.default_rng(seed)
    day = random.integers(0, 244, count)
    ratio = random.gamma(2.0, 0.35, count).clip(0, 5)
    years = random.gamma(2.0, 4.0, count).clip(0, 55)
    bad = random.random(count) < 1 / (1 + np.exp(3.2 - 2.5 * ratio + 0.05 * years))
    amounts = random.lognormal(11.8, 0.5, count).clip(5000, 900_000)
    return [
        {
            "application_id": f"H-{number:05d}",
            "applied_at": (dt.date(2024, 1, 1) + dt.timedelta(days=int(day[number]))).isoformat(),
            "outcome": "defaulted" if bad[number] else "paid",
            "loan amount": f"{amounts[number]:.2f}",
            "debt-ratio": f"{ratio[number]:.4f}",
            "order": str(1 + number % 4),
            "years_in_job": "" if number % 25 == 0 else f"{years[number]:.1f}",
            "reason": ("purchase", "parent's home", 'a "second" home')[number % 3],
            "sex": "fm"[number % 2],
            "note": 'said, "hello"' if number % 50 == 0 else "",
        }
        for number in range(count)
    ]


def write_csv(path: Path, written: list[dict[str, Any]]) -> Path:
    """Write rows as CSV, gzipped where the name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(written[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)
    return path
