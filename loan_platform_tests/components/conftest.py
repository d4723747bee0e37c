"""Dagster instances for this room's tests: in memory, in SQLite files, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

# dagster.yaml switches it off on a real instance; the environment has no say in this.
QUIET = {"telemetry": {"enabled": False}}


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], dg.DagsterInstance]:
    """Opens the test's SQLite instance, as a process does that starts anew."""
    return lambda: dg.DagsterInstance.local_temp(str(tmp_path), overrides=QUIET)


everywhere = pytest.mark.parametrize(
    "instance",
    ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)],
    indirect=True,
)
"""Runs a test on every storage the platform has; without it, in memory only."""


@pytest.fixture
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, reopen: Callable[[], dg.DagsterInstance]
) -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance."""
    match getattr(request, "param", "memory"):
        case "sqlite":
            opened = reopen()
        case "postgres":
            url: str = request.getfixturevalue("new_database")()
            overrides = {**QUIET, "storage": {"postgres": {"postgres_url": url}}}
            opened = dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides)
        case _:
            opened = dg.DagsterInstance.ephemeral(settings=QUIET)
    with opened:
        yield opened
