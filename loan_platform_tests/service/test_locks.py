"""The lock files agree: what is tested is what is installed, and what a Bento is given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bento.build import LOCKS, PROJECT

DEVELOPMENT = "requirements-dev.lock"


def pins(lock: str) -> dict[str, str]:
    """Package -> version, with the platforms it is for."""
    text = (PROJECT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9._\[\],-]*)==(.+?) \\$", text, re.MULTILINE))


def test_a_package_has_one_version_whichever_lock_is_installed() -> None:
    """A Bento served with another release than the one the tests ran with."""
    runtime, families = (pins(lock) for lock in LOCKS)
    assert len(runtime) > 100
    assert {"xgboost-cpu", "catboost"} <= families.keys() - runtime.keys()
    assert runtime.items() <= families.items() <= pins(DEVELOPMENT).items()


def test_a_bento_is_given_nothing_of_the_tests() -> None:
    """A service that carries test tools, as it did while it took the lock for development."""
    for lock in LOCKS:
        assert not pins(lock).keys() & {"pytest", "mypy", "ruff", "hypothesis", "playwright"}


@pytest.mark.parametrize("lock", sorted(path.name for path in PROJECT.glob("requirements*.lock")))
def test_a_lock_names_no_package_index_and_no_folder_of_one_machine(lock: str) -> None:
    text = Path(PROJECT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--index-url|--find-links|^\s*#.*\s/", text, re.MULTILINE)
