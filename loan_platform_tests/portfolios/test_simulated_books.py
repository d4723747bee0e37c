"""The five portfolios of this platform, each on a book drawn from the figures in its contract."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from loan_platform.contract import Contract
from loan_platform.contract.calendar import keys
from loan_platform.contract.portfolios import contract_files, contract_of
from loan_platform.engine.home import Home
from loan_platform_tests.components.running import definitions, latest, run
from loan_platform_tests.conftest import REAL_DATA

BOOK = ("raw_loans", "cleaned_features", "feature_counts")
PORTFOLIOS = [file.parent.name for file in contract_files()]
# Where the real books are at hand models learn from those, and here from the faintest one.
LEARNT = ["lending_club"] if REAL_DATA else PORTFOLIOS


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTFOLIOS)
def test_a_simulated_book_where_the_file_is_not_there(name: str, home_with_store: Home) -> None:
    """The figures in the contract make a book that the contract itself takes in."""
    home, contract = home_with_store, small(contract_of(name))
    assert contract.simulation
    rows = contract.simulation.rows
    replay = contract.time.replay
    months = keys(contract.time.first_day, replay.periods if replay else 6)
    settings: dict[str, Any] = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.ephemeral(settings=settings) as held:
        defs = definitions(contract, home)
        span = (months[0], months[-1])
        run(defs, held, name, "feature_bins")
        run(defs, held, name, "decisions", "outcomes", *BOOK, months=span)
        if name in LEARNT:
            run(defs, held, name, "trained_model", "champion", "baseline_stats")
            assert latest(held, name, "trained_model")["simulated"] is True
            assert latest(held, name, "champion")["champion_version"] == "1"
    files = home.partitions(name, "raw_loans").values()
    accepted = sum(pq.read_metadata(file).num_rows for file in files)
    refused = sum(
        pq.read_metadata(file).num_rows for file in home.partitions(name, "quarantine").values()
    )
    assert accepted + refused == rows
    assert refused < contract.maximum_quarantine_share * rows


def small(contract: Contract) -> Contract:
    """The contract with a simulated book of fewer rows over fewer months."""
    assert contract.simulation
    written = contract.model_dump(mode="json", exclude_unset=True)
    # What moves a marketplace's loans is fainter: fewer rows would not show it.
    written["simulation"]["rows"] = 9000 if contract.name == "lending_club" else 4000
    if contract.time.replay:
        written["time"]["replay"]["periods"] = 3
    else:
        day = contract.time_column
        assert day
        written["time"]["end"] = "2007-11-01"
        written["simulation"]["columns"][day.name] = {
            "sql": "CAST(DATE '2007-06-01' + to_months(CAST(_row % 6 AS INTEGER)) AS DATE)"
        }
    return Contract.model_validate(written)
