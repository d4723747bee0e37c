"""Takes a book in, from its file to its champion, in a process of its own: `take.py NAME`.

The location is the one the server loads. What comes after a champion costs as much again and says
nothing about the book: one book goes the whole way, by `loan-platform materialize`.
"""

from __future__ import annotations

import os
import sys

from loan_platform.components.months import monthly
from loan_platform.contract.calendar import keys
from loan_platform.contract.portfolios import contract_of
from loan_platform.engine.home import Home
from loan_platform.local.instance import environment, prepare
from loan_platform.local.platform_runs import PlatformRuns


def main(name: str) -> None:
    contract, home = contract_of(name), Home.from_environment()
    os.environ.update(environment(home))
    prepare(home)
    replay = contract.time.replay
    months = (
        keys(replay.start, replay.periods)
        if replay
        else list(monthly(contract).get_partition_keys())
    )
    with PlatformRuns(contract, home) as runs:
        runs.materialize("profile", "feature_bins")
        runs.materialize("raw_loans", "cleaned_features", "feature_counts", months=months)
        runs.materialize("trained_model", "champion")


if __name__ == "__main__":
    main(sys.argv[1])
