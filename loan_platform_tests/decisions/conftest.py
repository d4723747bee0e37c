"""The state of the decision log's tests: on SQLite files and on a real PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loan_platform.engine.home import Home


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, home: Home) -> Home:
    """A state folder whose decisions and outcomes lie in either database."""
    if request.param == "sqlite":
        return home
    create: Callable[[], str] = request.getfixturevalue("new_database")
    return replace(home, decisions_url=create())
