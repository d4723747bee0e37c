"""The one command: the whole loop, on files as whoever tries it has it.

The daemon's part of it on PostgreSQL is in `daemon_tests`, the service's in `test_postgresql`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from loan_platform.contract.calendar import keys
from loan_platform.decisions.log import read_decisions
from loan_platform.engine.home import Home
from loan_platform.ingest.source import locate


@pytest.mark.slow
@pytest.mark.timeout(600)  # four minutes on a slow machine
def test_a_shift_leads_to_a_new_champion_that_the_running_service_follows(
    home, credit_risk, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = subprocess.run(
        [sys.executable, "-m", "loan_platform.cli", "demo"],
        env={**os.environ, "COLUMNS": "250"},
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    said = {
        label.strip(): text.strip()
        for label, text in re.findall(r"^│ (.+?) │ (.+?) │$", told.stdout, flags=re.MULTILINE)
    }
    assert "SIMULATED" in said["book"]
    rows, accepted, quarantined = numbers(said["history"])
    assert rows == accepted + quarantined
    assert quarantined > 0
    assert said["requests failed"] == "0"

    # A calm month alarms nobody; the shifted ones name what moved.
    assert said["2025-01 drift"] == "none"
    assert "person_income" in said["2025-02 drift"]
    # No outcome of the shift is known at first, so no challenger can prove itself; then one can.
    assert said["2025-02 retrained"].startswith("version 2 refused by the rule ")
    assert said["2025-03 retrained"] == "version 3 promoted: no rule objects"
    assert said["champion"] == "version 1 before, version 3 after"
    assert "by version 3" in said["answered"]

    # Nothing was answered that is not in the log.
    place = Home.at(home.root / "demo")
    months = keys(credit_risk.time.first_day, 16)
    logged = sum(len(read_decisions(place, credit_risk.name, month)) for month in months)
    assert logged == numbers(said["decisions logged"])[0]
    assert locate(credit_risk, place).simulated

    page = (place.root / "report.html").read_text(encoding="utf-8")
    assert "Simulated." in page
    assert page.count("data:image/png;base64,") >= 6
    assert not re.findall(r"""(?:src|href)=["']https?:""", page)
    assert list(elsewhere.iterdir()) == [], "the demo wrote outside its home"


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


def test_a_book_that_is_not_there_is_named(home, tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "loan_platform.cli", "demo", "--data", "no/such/book.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 1
    assert "no/such/book.csv" in told.stderr
    assert "Traceback" not in told.stderr
