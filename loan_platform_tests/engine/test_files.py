"""Files are whole or not there."""

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_platform.engine.files import replacing, write_parquet, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "deep" / "table.txt"
    write_text("before", path)

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="the disk"):
        fail()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "table.txt"
    write_text("before", path)
    writer = (
        "import os, signal, sys; from pathlib import Path\n"
        "from loan_platform.engine.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", writer, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "before"


def test_nobody_else_may_look_into_what_was_made(tmp_path: Path):
    tmp_path.chmod(0o755)
    path = tmp_path / "home" / "data" / "table.txt"
    write_text("x", path)
    made = (tmp_path / "home", tmp_path / "home" / "data", path)
    assert [one.stat().st_mode & 0o777 for one in made] == [0o700, 0o700, 0o600]
    assert tmp_path.stat().st_mode & 0o777 == 0o755, "what was there stays as it was"


def test_equal_tables_give_equal_bytes(tmp_path: Path):
    table = pa.table({"n": list(range(1000)), "text": ["é"] * 1000})
    write_parquet(table, tmp_path / "a.parquet")
    write_parquet(pa.table(table.to_pydict()), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet") == table
