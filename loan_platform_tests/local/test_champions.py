"""The commands on the champion: what a person is told, and what moved."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loan_platform.cli import app
from loan_platform.contract import portfolios
from loan_platform.engine.home import Home
from loan_platform.local.champions import person
from loan_platform.registry import moves
from loan_platform.registry.ledger import FILE, Ledger
from loan_platform.registry.models import Registry
from loan_platform.registry.versions import RegistryError
from loan_platform_tests import home_loans
from loan_platform_tests.conftest import FOREIGN
from loan_platform_tests.registry.made import add_version, move_by_hand
from loan_platform_tests.registry.made import saved as saved

NAME = "home_loans"


def told(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and what was said, on one line."""
    wide = {"COLUMNS": "300", "LOAN_PLATFORM_USER": "Ann"}
    result = CliRunner().invoke(app, list(arguments), env={**wide, **environment})
    return result.exit_code, " ".join(result.output.split())


class Desk:
    """A portfolio with three versions, as the commands find it."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.registry, self.ledger = Registry(home, NAME), Ledger(home, NAME)
        self._folder = folder

    def set_mode(self, mode: str) -> None:
        file = self._folder / NAME / "defs.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{home_loans.DEFS_YAML}  promotion: {{mode: {mode}}}\n")

    def judges(self, version: str, in_favour: bool = True) -> None:
        moves.judged(
            self.registry,
            self.ledger,
            version,
            in_favour=in_favour,
            champion_before=self.ledger.standing().champion,
            by="loan-platform/champion",
            reasons=["AUC gains +0.0100" if in_favour else "its AUC is 0.0200 below the floor"],
            evidence={"auc_gain": 0.01},
        )

    @property
    def champion(self) -> str | None:
        return self.registry.version_of("champion")


@pytest.fixture
def desk(
    home_with_store: Home, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    folder = tmp_path / "portfolios"
    folder.mkdir()
    monkeypatch.setattr(portfolios, "FOLDER", folder)
    desk = Desk(home_with_store, folder)
    desk.set_mode("manual")
    for _ in range(3):
        add_version(desk.registry, saved)
    return desk


def test_a_person_promotes_rolls_back_and_reads_it_in_the_history(desk: Desk):
    desk.judges("3")
    status, said = told("promote", NAME, "--reason", "it was time")
    assert (status, desk.champion) == (0, "3")
    assert "version 3 is the champion of home_loans now, before it none (entry 3" in said
    assert "by Ann" in said
    status, said = told("promote", NAME, "--version", "1", "--by", "Bob")
    assert status == 1
    assert "no verdict on version 1 is in the ledger" in said
    assert "say why with --despite 'the reason'" in said
    status, said = told("promote", NAME, "--version", "1", "--by", "Bob", "--despite", "a [test]")
    assert (status, desk.champion) == (0, "1")
    status, said = told("rollback", NAME, "--reason", "complaints")
    assert (status, desk.champion) == (0, "3")
    assert "version 3 is the champion of home_loans now, before it version 1" in said

    status, said = told("history", NAME)
    assert status == 0
    for line in (
        "proposed - 3 loan-platform/champion AUC gains +0.0100",
        "promoted - 3 Ann it was time",
        "promoted 3 1 Bob a [test]",
        "rolled back 1 3 Ann complaints",
        "champion now: version 3, rolled back by Ann on 20",
        "7 entries, each as it was written; the last is sealed",
    ):
        assert line in said
    assert "promoting" not in said, "a move that ended is one line"


def test_the_history_tells_from_the_training_to_the_champion(desk: Desk):
    challenge = partial(moves.challenge, desk.registry, desk.ledger, by="training")
    challenge("2")
    moment = desk.ledger.entries()[-1].at
    challenge("3", reason="trained through 2024-08")
    desk.judges("3")
    told("promote", NAME)
    said = told("history", NAME)[1]
    named, proposed, promoted = (
        said.index(line)
        for line in (
            "challenger named 2 3 training trained through 2024-08",
            "proposed - 3 loan-platform/champion",
            "promoted - 3 Ann",
        )
    )
    assert named < proposed < promoted
    assert "champion now: version 3, promoted by Ann" in said
    assert "challenger now: version 3, named by training on 20" in said
    said = told("history", NAME, "--as-of", moment)[1]
    assert f"champion as of {moment}: none" in said
    assert f"challenger as of {moment}: version 2" in said
    move_by_hand(desk.registry, "1", "challenger")
    told("rollback", NAME, "--to", "2")
    said = told("history", NAME)[1]
    assert "challenger moved by hand 3 1 unknown" in said
    assert "challenger now: version 1, moved by hand" in said


def test_what_is_not_possible_is_said_with_what_is(desk: Desk):
    desk.judges("3")
    told("promote", NAME)
    for command, expected in (
        (["promote", NAME], "version 3 is the champion of home_loans already"),
        (["promote", NAME, "--version", "9"], "has no version 9; the versions are 1, 2, 3"),
        (["approve", NAME], "promotion.mode of home_loans is manual, so nothing waits"),
        (["rollback", NAME], "home_loans has no champion to go back to"),
        (["rollback", NAME, "--to", "2"], "version 2 never was champion of home_loans"),
        (["history", NAME, "--as-of", "soon"], "neither a day nor a time with its zone"),
        (["history", NAME, "--as-of", "2026-01-31T12:00"], "nor a time with its zone"),
        (["rollback", "cars"], "there is no portfolio cars; the portfolios are home_loans"),
    ):
        status, said = told(*command)
        assert status == 1
        assert expected in said
    assert len(desk.ledger.entries()) == 3


def test_two_persons_promote(desk: Desk):
    desk.set_mode("two_person")
    assert "nothing is requested for home_loans" in told("approve", NAME)[1]
    desk.judges("3")
    status, said = told("promote", NAME)
    assert (status, desk.champion) == (0, None)
    assert "Ann asks for version 3 of home_loans" in said
    assert (
        "Ann asks for version 3; somebody else: loan-platform approve" in told("history", NAME)[1]
    )
    status, said = told("approve", NAME, "--by", "ANN ")
    assert (status, desk.champion) == (1, None)
    assert "somebody else has to approve it" in said
    status, said = told("approve", NAME, LOAN_PLATFORM_USER="Bob")
    assert (status, desk.champion) == (0, "3")
    assert "by Bob" in said


def test_the_history_as_of_a_day_or_a_moment(desk: Desk):
    assert "champion now: none the ledger is empty" in told("history", NAME)[1]
    desk.judges("3")
    told("promote", NAME)
    moment = desk.ledger.entries()[-1].at
    told("promote", NAME, "--version", "2", "--despite", "a test")
    assert "champion now: version 2" in told("history", NAME)[1]
    assert f"champion as of {moment}: version 3" in told("history", NAME, "--as-of", moment)[1]
    today = dt.datetime.now(dt.UTC).date()
    assert "version 2, promoted by Ann" in told("history", NAME, "--as-of", f"{today}")[1]
    yesterday = today - dt.timedelta(days=1)
    status, said = told("history", NAME, "--as-of", f"{yesterday}")
    assert (status, "none" in said) == (0, True)
    assert "5 entries, each as it was written" in said, "the whole chain is proved"


def test_the_evidence_is_there_for_a_program_to_read(desk: Desk):
    desk.judges("3")
    result = CliRunner().invoke(app, ["history", NAME, "--json"])
    (entry,) = [json.loads(line) for line in result.output.splitlines()]
    assert entry["evidence"] == {"auc_gain": 0.01}
    assert (entry["event"], entry["to_version"]) == ("proposed", "3")


def test_a_changed_ledger_is_said_and_the_exit_code_says_so_too(desk: Desk, home: Home):
    desk.judges("3")
    told("promote", NAME)
    with sqlite3.connect(home.decisions / NAME / FILE) as connection:
        connection.execute("DROP TRIGGER ledger_no_update")
        connection.execute("UPDATE ledger SET \"by\" = 'Bob' WHERE seq = 3")
    connection.close()
    status, said = told("history", NAME)
    assert status == 1
    assert "THE LEDGER IS NOT AS IT WAS WRITTEN: entry 3 was changed" in said
    status, said = told("history", NAME, "--as-of", "2020-01-01")
    assert status == 1


def test_a_cut_end_is_seen_by_what_mlflow_knows(desk: Desk, home: Home):
    desk.judges("3")
    told("promote", NAME)
    with sqlite3.connect(home.decisions / NAME / FILE) as connection:
        connection.execute("DROP TRIGGER ledger_no_delete")
        connection.execute("DELETE FROM ledger WHERE seq > 1")
    connection.close()
    status, said = told("history", NAME)
    assert status == 1
    assert "entries 2 to 3 are missing" in said


def test_a_move_by_hand_is_in_the_history_once_it_was_found(desk: Desk):
    desk.judges("3")
    told("promote", NAME)
    move_by_hand(desk.registry, "2")
    desk.judges("1")
    said = told("history", NAME)[1]
    assert "moved by hand 3 2 unknown" in said
    assert "champion now: version 2, moved by hand" in said
    assert "the ledger's is version 3" in said


def test_a_database_out_of_reach_is_named_without_its_password(desk: Desk):
    url = "postgresql+psycopg2://x:hush@127.0.0.1:9/n"
    status, said = told("rollback", NAME, LOAN_PLATFORM_DECISIONS_URL=url)
    assert status == 1
    assert "the ledger cannot be read or written (OperationalError)" in said
    assert "LOAN_PLATFORM_DECISIONS_URL" in said
    assert "hush" not in said


@pytest.mark.slow
def test_the_first_command_says_nothing_of_mlflows_tables_and_hides_no_warning(tmp_path: Path):
    script = (
        "import logging\n"
        "from loan_platform.cli import app\n"
        "try:\n"
        "    app(['promote', 'credit_risk'])\n"
        "finally:\n"
        "    logging.getLogger('mlflow.store.db.utils').warning('look here')\n"
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**ours, "LOAN_PLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "mlflow").is_dir(), "the store was made"
    problem, warning = ran.stderr.splitlines()
    assert problem.startswith("problem: credit_risk has no version yet; train one with")
    assert warning.endswith("WARNING mlflow.store.db.utils: look here")


def test_whose_word_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOAN_PLATFORM_USER", "Ann")
    assert person("Bob") == "Bob"
    assert person(None) == "Ann"
    monkeypatch.delenv("LOAN_PLATFORM_USER")
    monkeypatch.setenv("LOGNAME", "carol")
    assert person(None) == "carol"
    with pytest.raises(RegistryError, match="give one with --by, or set LOAN_PLATFORM_USER"):
        person("  ")
