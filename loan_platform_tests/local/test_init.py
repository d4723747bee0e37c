"""`loan-platform init`: a contract is written, nothing is overwritten, and a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loan_platform.cli import app
from loan_platform.contract import read_contract
from loan_platform.contract.portfolio import Source
from loan_platform.ingest.migrate import migrate
from loan_platform_tests.proposal.sixth_book import write_sixth_book

WIDE = {"COLUMNS": "300"}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return write_sixth_book(tmp_path / "sixth.csv", rows=600)


def test_a_book_gets_a_contract_and_a_person_hears_what_to_check(book: Path, tmp_path: Path):
    """A contract nobody is told about, or one that replaces a mended one."""
    command = ["init", str(book), "--into", str(tmp_path / "portfolios")]
    first = CliRunner().invoke(app, command, env=WIDE)
    assert first.exit_code == 0, first.output
    file = tmp_path / "portfolios" / "sixth" / "defs.yaml"
    contract = read_contract(file)
    assert contract.name == "sixth"
    assert "600 rows, 18 columns" in first.output
    for name in (*contract.ignored_columns, *contract.model_inputs):
        assert name in first.output
    for words in ("Not used", "known only after origination", "Check", str(file), "platform up"):
        assert words in first.output
    assert [path.name for path in file.parent.iterdir()] == ["defs.yaml"]

    file.write_text(file.read_text() + "# mended by hand\n")
    again = CliRunner().invoke(app, command, env=WIDE)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert "mended by hand" in file.read_text()
    replaced = CliRunner().invoke(app, [*command, "--overwrite", "--use", "Grade"], env=WIDE)
    assert replaced.exit_code == 0, replaced.output
    assert read_contract(file).column("Grade").role == "feature"


def test_what_goes_wrong_is_said_and_leaves_nothing_behind(book: Path, tmp_path: Path):
    """A traceback, a half-written portfolio, or a password on the screen."""
    into = ["--into", str(tmp_path / "portfolios")]
    empty = tmp_path / "empty.csv"
    empty.write_text("loan_amnt,loan_status\n")
    for command, words in [
        ([str(tmp_path / "nowhere.csv")], "nowhere.csv"),
        ([str(empty)], "no rows"),
        ([str(book), "--outcome", "Loan Statu"], "did you mean Loan Status"),
        ([str(book), "--name", "Sixth Book"], "lower-case"),
        (["postgresql://me:hunter2@localhost/loans", "--table", "loans"], "${NAME}"),
    ]:
        result = CliRunner().invoke(app, ["init", *command, *into], env=WIDE)
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert "Traceback" not in result.output
        assert "hunter2" not in result.output
    assert not (tmp_path / "portfolios").exists()


def test_a_database_table_gets_the_contract_its_file_got(
    book: Path, tmp_path: Path, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    """A database that is read otherwise than a file, or whose address ends up in a contract."""
    url = new_database()
    written = Source(path=str(book), delimiter=";", encoding="latin-1")
    migrate(written, url, "loans", say=Console(quiet=True))
    monkeypatch.setenv("BOOKS_QUERY", url.split("?")[1])
    hidden = url.split("?")[0] + "?${BOOKS_QUERY}"
    into = ["--into", str(tmp_path)]
    for source, name in ([str(book)], "file"), ([hidden, "--table", "loans"], "loans"):
        result = CliRunner().invoke(app, ["init", *source, "--name", name, *into], env=WIDE)
        assert result.exit_code == 0, result.output
    of_file = read_contract(tmp_path / "file" / "defs.yaml")
    of_table = read_contract(tmp_path / "loans" / "defs.yaml")
    assert (of_table.source.url, of_table.source.table) == (hidden, "loans")
    assert of_table.columns == of_file.columns
    assert of_table.ignored == of_file.ignored
