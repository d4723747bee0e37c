"""The five portfolios of this platform, each on its real file.

A book is taken in once, and everything is asserted of that run. What comes after a champion costs
as much again and says nothing about the book: one of them goes all the way, in a process of its own
by the command a person types. Not here: books drawn from the contracts (`test_simulated_books`).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_platform.components.months import monthly
from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys
from loan_platform.contract.portfolios import contract_files, contract_of
from loan_platform.engine.home import Home
from loan_platform.local.instance import environment
from loan_platform_tests.components.running import definitions, latest, run

# The lower end of the AUC's interval must stay above this: a column lost, a unit misread or a date
# mistaken costs more than what is left between this and what was measured (docs/portfolios.md).
FLOORS = {
    "credit_risk": 0.9,
    "lending_club": 0.68,
    "loan_approval": 0.95,
    "loan_default": 0.86,
    "playground_s4e10": 0.905,
}
MOST_REFUSED = 0.006
ALL_THE_WAY = "credit_risk"
TAKEN_TWICE = ("credit_risk", "lending_club")  # one dealt to months, one with dates
BOOK = ("raw_loans", "cleaned_features", "feature_counts")
LAYERS = (*BOOK, "quarantine")


@dataclass(frozen=True)
class Taken:
    """A real book with its champion."""

    contract: Contract
    home: Home
    defs: dg.Definitions
    instance: dg.DagsterInstance
    said: str

    def run(self, *assets: str, months: list[str] | None = None) -> None:
        span = (months[0], months[-1]) if months else None
        run(self.defs, self.instance, self.contract.name, *assets, months=span)

    def metadata(self, asset: str) -> dict[str, Any]:
        return latest(self.instance, self.contract.name, asset)

    def layer(self, name: str) -> pa.Table:
        files = self.home.partitions(self.contract.name, name).values()
        return pa.concat_tables([pq.read_table(file) for file in files])

    def digests(self) -> dict[str, str]:
        return {
            f"{layer} {month}": hashlib.sha256(file.read_bytes()).hexdigest()
            for layer in LAYERS
            for month, file in self.home.partitions(self.contract.name, layer).items()
        }


@pytest.fixture
def taken(
    name: str, real_data: Path, home_with_store: Home, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Taken]:
    """The real book, taken in from its file to its champion."""
    home, contract = home_with_store, contract_of(name)
    defs = definitions(contract, home)
    if name == ALL_THE_WAY:
        done = subprocess.run(
            [sys.executable, "-m", "loan_platform.cli", "materialize", name],
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for setting, value in environment(home).items():
            monkeypatch.setenv(setting, value)
        with dg.DagsterInstance.get() as held:
            yield Taken(contract, home, defs, held, done.stdout)
        return
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as held:
        book = Taken(contract, home, defs, held, "")
        replay = contract.time.replay
        months = (
            keys(replay.start, replay.periods)
            if replay
            else list(monthly(contract).get_partition_keys())
        )
        book.run("feature_bins")
        book.run(*BOOK[:2], months=months)
        book.run(BOOK[2], months=again(months))
        book.run("trained_model", "champion")
        yield book


def test_every_portfolio_here_is_tested_here() -> None:
    assert {file.parent.name for file in contract_files()} == set(FLOORS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_a_real_book_from_its_file_to_its_champion(
    name: str, taken: Taken, real_data: Path
) -> None:
    contract = taken.contract
    accepted, quarantine = taken.layer("raw_loans"), taken.layer("quarantine")

    # Every record of the file is in one place, and quarantine has it as the file does.
    wanted = {row["_row"]: row for row in quarantine.to_pylist()}
    assert len(wanted) == len(quarantine), "a row is in quarantine twice, or has no number"
    records = 0
    for records, record in enumerate(records_of(real_data / contract.source.name), 1):
        if refused := wanted.get(records):
            assert refused["_reason"], "a row is refused without a reason"
            assert refused["_rule"], "a row is refused without a rule"
            kept = {column: refused[column] or "" for column in record}
            assert kept == record, f"row {records} is not in quarantine as the file has it"
    assert records == len(accepted) + len(quarantine)
    assert 0 < len(quarantine) < MOST_REFUSED * records
    assert set(accepted["origin"].to_pylist()) == {"book"}

    if name in TAKEN_TWICE:
        before = taken.digests()
        months = sorted(taken.home.partitions(name, "raw_loans"))
        taken.run(*BOOK, months=again(months))
        assert taken.digests() == before
    model, champion = taken.metadata("trained_model"), taken.metadata("champion")

    assert model["auc_low"] > FLOORS[name], model["auc"]
    assert model["simulated"] is False
    assert model["calibration_error"] <= 0.015
    assert (champion["decision"], champion["champion_version"]) == ("promoted", "1")
    if name == ALL_THE_WAY:
        refused = "5: person_age: above 100"
        for said in (f"rows in {records:,}", f"AUC {model['auc']:.3f} [", refused):
            assert said in " ".join(taken.said.split()), taken.said
        assert len(list((taken.home.portfolio(name) / "drift_report").glob("*.json"))) == 24
    if contract_of(name).time.end:
        # The book has ended: as of the day its last month has matured, else few rows would be left.
        assert model["as_of"] == "2017-05-30T00:00:00+00:00"
        assert model["dagster/row_count"] == len(accepted)
        assert len(taken.home.partitions(name, "cleaned_features")) == 55


def again(months: list[str]) -> list[str]:
    """Taken in twice, in one run; a whole book is staged for it all the same."""
    return months[6:12]


def records_of(file: Path) -> Iterator[dict[str, str]]:
    """Records of a CSV by the standard library: what the platform's own reader is held against."""
    csv.field_size_limit(sys.maxsize)
    with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as text:
        yield from csv.DictReader(text)
