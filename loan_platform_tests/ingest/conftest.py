"""Where this room's tests put the small book of `taking_in`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the small book lies."""
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    return tmp_path / "small.csv"
