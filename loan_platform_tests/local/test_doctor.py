"""The doctor finds each thing that is planted, says what to do, and never prints a secret."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loan_platform.cli import app
from loan_platform.contract.portfolios import contract_files
from loan_platform.local import doctor
from loan_platform.local.processes import only_one
from loan_platform.local.up import LOCK, Ports
from loan_platform_tests.local.test_up import free_ports


def one(findings, subject):
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


def test_a_sound_machine_has_no_problem(home):
    findings = doctor.examine(home)
    assert doctor.worst(findings) != "problem", findings
    assert not home.root.exists(), "looking changes nothing"
    assert all(finding.mend for finding in findings if finding.level != "ok")


def test_packages_that_differ_from_the_lock_are_named(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# comment\ndagster==0.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\n"
        "    --hash=sha256:00\nnot-for-here==1.0 ; python_version < '3' \\\n    --hash=sha256:00\n"
    )
    (finding,) = doctor.packages(lock)
    assert finding.level == "problem"
    assert "dagster is" in finding.seen
    assert "no-such-package is missing" in finding.seen
    assert "not-for-here" not in finding.seen
    assert "requirements.lock" in finding.mend


def test_a_home_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = doctor.folder(tmp_path / "file" / "home")
    assert finding.level == "problem"
    assert "is a file" in finding.seen
    assert "LOAN_PLATFORM_HOME" in finding.mend


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("below", ["", "not/made/yet"])
def test_a_home_that_may_not_be_written(tmp_path, below):
    tmp_path.chmod(0o500)
    try:
        (finding,) = doctor.folder(tmp_path / below)
    finally:
        tmp_path.chmod(0o700)
    assert finding.level == "problem"
    assert "cannot be written" in finding.seen


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder even root cannot write")
def test_a_home_where_nothing_can_be_made(home):
    finding = one(doctor.folder(Path("/proc/self")), "Home folder")
    assert finding.level == "problem"


def test_a_home_that_others_may_look_into(tmp_path):
    tmp_path.chmod(0o755)
    finding = one(doctor.folder(tmp_path), "Home folder")
    assert finding.level == "warning"
    assert finding.mend == f"chmod 700 {tmp_path}"


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_NEEDED_GIB", 1e9)
    finding = one(doctor.folder(tmp_path), "Disk")
    assert finding.level == "problem"
    assert "GiB free" in finding.seen


def test_a_taken_port_is_named_unless_the_platform_itself_took_it(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        mlflow, service, code = free_ports(3)
        ports = Ports(port, mlflow, service, code)
        (finding,) = doctor.listening(ports, running=None)
        assert finding.level == "warning"
        assert str(port) in finding.seen
        assert "--dagster-port" in finding.mend
        with only_one(home.root / LOCK):
            found = doctor.examine(home, ports)
        assert f"process {os.getpid()}" in one(found, "Ports").seen


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:s3cret@localhost:1/db", "selects another driver"),
        ("postgres://me:s3cret@localhost:1/db", "selects another driver"),
        ("s3cret no url", "is not a database URL"),
        ("postgresql+psycopg2://me:s3cret@localhost:1/db", "localhost:1/db"),
        ("postgresql+psycopg2://me:s3cret@localhost:port/db", "is not a database URL"),
    ],
)
def test_a_database_url_that_will_not_work(home, url, seen):
    finding = one(doctor.databases(replace(home, dagster_url=url)), "Dagster storage")
    assert finding.level == "problem"
    assert seen in finding.seen
    assert "LOAN_PLATFORM_DAGSTER_URL" in finding.mend
    assert "s3cret" not in f"{finding.seen} {finding.mend}"


def test_an_mlflow_server_that_does_not_answer(home):
    finding = one(
        doctor.databases(replace(home, tracking_uri="http://me:s3cret@127.0.0.1:1")),
        "MLflow",
    )
    assert finding.level == "problem"
    assert "s3cret" not in str(finding)


@pytest.mark.slow
def test_a_database_that_answers(home, new_database):
    finding = one(doctor.databases(replace(home, decisions_url=new_database())), "Decision log")
    assert finding.level == "ok", finding


def test_an_alert_url_that_cannot_be_read_is_not_printed(monkeypatch):
    assert doctor.alerts().level == "warning"
    monkeypatch.setenv("LOAN_PLATFORM_ALERT_URLS", "json://localhost:1/ nonsense://s3cret/token")
    finding = doctor.alerts()
    assert finding.level == "problem"
    assert "s3cret" not in str(finding)
    monkeypatch.setenv("LOAN_PLATFORM_ALERT_URLS", "json://me:s3cret@localhost:1/")
    finding = doctor.alerts()
    assert finding.level == "ok"
    assert "s3cret" not in str(finding)


def test_a_data_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path / "nowhere"))
    assert one(doctor.contracts([]), "Loan books").level == "problem"
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    assert doctor.worst(doctor.contracts([])) == "ok"


def test_a_book_that_is_not_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    finding = one(doctor.contracts(contract_files()), "Portfolio credit_risk")
    assert finding.level == "warning"
    assert f"looked at {tmp_path / 'credit_risk.csv.gz'}" in finding.mend
    (tmp_path / "credit_risk.csv.gz").write_bytes(b"")
    finding = one(doctor.contracts(contract_files()), "Portfolio credit_risk")
    assert finding.level == "ok"


def test_a_broken_contract_is_named_by_file_and_line(tmp_path):
    broken = tmp_path / "defs.yaml"
    broken.write_text("attributes:\n  name: a\n  colour: red\n")
    finding = one(doctor.contracts([broken]), "Contract")
    assert finding.level == "problem"
    assert f"{broken}:3" in finding.seen


def test_a_clock_that_stands_before_what_has_happened(tmp_path):
    assert doctor.clock(tmp_path).level == "ok"
    later = tmp_path / "partition.parquet"
    later.write_text("")
    os.utime(later, (time.time() + 3600, time.time() + 3600))
    assert doctor.clock(tmp_path).level == "problem"


def test_the_command_ends_with_1_on_a_problem_and_prints_no_secret(home, monkeypatch):
    healthy = CliRunner().invoke(app, ["doctor"])
    assert healthy.exit_code == 0, healthy.output
    monkeypatch.setenv("LOAN_PLATFORM_DAGSTER_URL", "postgresql://me:s3cret@localhost:1/db")
    ill = CliRunner().invoke(app, ["doctor"])
    assert ill.exit_code == 1
    assert "problem" in ill.output
    assert "s3cret" not in ill.output


def test_help_is_quick():
    """What is imported with the command line is paid by every call of it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "import sys, loan_platform.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1
    assert not {"dagster", "mlflow", "bentoml", "sklearn", "duckdb", "httpx"} & set(loaded)
