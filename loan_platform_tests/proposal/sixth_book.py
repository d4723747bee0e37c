"""A made-up book of a lender nobody has seen before, written as such files are.

Here: semicolons, Latin-1, percent signs, decimal commas, months as 'Aug-2001', statuses in words.
Not here: any test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TOWNS = ("Köln", "München", "Düsseldorf", "Berlin")
HEADER = (
    "Loan Number;Application Date;Loan Amount;Annual Income;Use of Lines;Job;First Credit Line;"
    "Purpose;City;Gender;Age;Inquiries 6m;Grade;Total Paid;Collection Fee;Remarks;Product;"
    "Loan Status"
)
STATUSES = ("Fully Paid", "Charged Off", "Default", "Late (31-120 days)", "Current")


def write_sixth_book(path: Path, rows: int = 3000, months: int = 6, seed: int = 7) -> Path:
    """Applications from January 2022 on; those in trouble owe a collection fee."""
    random = np.random.default_rng(seed)
    lines = [HEADER]
    for number in range(rows):
        month, day = number * months // rows, random.integers(1, 29)
        amount, income = random.uniform(1000, 40000), random.lognormal(10.5, 0.5)
        used, asked = random.uniform(0, 1.1), random.poisson(1)
        bad = random.random() < 1 / (1 + np.exp(3.2 - 2.5 * amount / income - 0.8 * used * asked))
        status = str(random.choice(STATUSES[1:4] if bad else ("Fully Paid",) * 9 + ("Current",)))
        years = int(random.integers(0, 12))
        job = "< 1 year" if years == 0 else "10+ years" if years > 9 else f"{years} years"
        opened = f"{random.choice(MONTHS)}-{random.integers(1985, 2020)}"
        age = 144 if number == 77 else int(random.integers(19, 75))
        lines.append(
            f"L{number:05d};{2022 + month // 12}-{month % 12 + 1:02d}-{day:02d};"
            f"{amount:.2f};{income:.2f};{100 * used:.1f}%;"
            f"{'n/a' if number % 40 == 0 else job};{opened};"
            f"{random.choice(['Möbel', 'Auto', 'Umzug'])};{random.choice(TOWNS)};"
            f"{random.choice(['f', 'm'])};{age};{asked};{random.choice(list('ABC'))};"
            f"{0.3 * amount if bad else amount:.2f};{'35.50' if bad else ''};"
            f"für {random.integers(10**6)};X;{status}"
        )
    text = "\n".join(lines) + "\n"
    path.write_bytes(_with_decimal_commas(text).encode("latin-1"))
    return path


def _with_decimal_commas(text: str) -> str:
    return text.replace(".", ",")
