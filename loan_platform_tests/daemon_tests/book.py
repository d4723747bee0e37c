"""Two small portfolios with a file a month, and files that can be sound, shifted or broken.

Here: their contract and their books. Not here: running anything.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys

MONTHS = {"gappy": 24, "steady": 8}
"""The portfolios, and how many months each has; the current month is the last."""


def first_day(name: str) -> dt.date:
    now = dt.datetime.now(dt.UTC)
    months = now.year * 12 + now.month - MONTHS[name]
    return dt.date(months // 12, months % 12 + 1, 1)


def months(name: str) -> list[str]:
    return keys(first_day(name), MONTHS[name])


def contract(name: str) -> Contract:
    return Contract.model_validate(
        {
            "name": name,
            "title": "A small book",
            "source": {"path": f"{name}/{{partition}}.csv"},
            "columns": [
                {"name": "application", "type": "text", "role": "key"},
                {"name": "applied_on", "type": "date", "role": "time"},
                {"name": "income", "type": "number", "range": [0, 10_000_000]},
                {"name": "amount", "type": "number", "range": [0, 1_000_000]},
                {"name": "purpose", "type": "category", "categories": ["CAR", "HOME"]},
                {"name": "paid_back", "type": "category", "categories": ["yes", "no"],
                 "role": "outcome"},
            ],
            "outcome": {"bad": ["no"], "good": ["yes"], "matures_after_days": 0},
            "time": {"start": first_day(name)},
            "features": {"burden": {"sql": "amount / nullif(income, 0)"}},
            "retrain": {"cooldown_minutes": 0},
        }
    )  # fmt: skip


def write_month(folder: Path, name: str, month: str, *, rows: int = 200, shift: float = 0) -> Path:
    """A sound month. `shift`: how far incomes move, in standard deviations of their logarithm."""
    draw = np.random.default_rng(int(month.replace("-", "")))
    income = np.exp(draw.normal(10.8 + 0.5 * shift, 0.5, rows)).round(2)
    amount = np.exp(draw.normal(9.0, 0.6, rows)).round(2)
    purpose = draw.choice(["CAR", "HOME"], rows)
    risk = 1 / (1 + np.exp(2.0 - 6.0 * (amount / income - 0.15)))
    paid_back = np.where(draw.random(rows) < risk, "no", "yes")
    lines = ["application,applied_on,income,amount,purpose,paid_back"]
    lines += [
        f"{name}-{month}-{row},{month}-{row % 19 + 1:02d},{income[row]},{amount[row]},"
        f"{purpose[row]},{paid_back[row]}"
        for row in range(rows)
    ]
    path = folder / name / f"{month}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def poison_month(folder: Path, name: str, month: str) -> None:
    """A month whose file came without the columns it should have."""
    (folder / name / f"{month}.csv").write_text("who,what\n1,2\n")
