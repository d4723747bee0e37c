"""`dg scaffold defs`: from a file nobody has described to a champion, without Python."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from click import ClickException
from dagster.components.testing import create_defs_folder_sandbox

from loan_platform.components import LoanPortfolio
from loan_platform.components.scaffolding import Book
from loan_platform.contract import read_contract
from loan_platform.engine.home import Home
from loan_platform_tests.components.running import bound, latest, run
from loan_platform_tests.proposal.sixth_book import write_sixth_book

NAME = "sixth"
BOOK_ASSETS = ("raw_loans", "cleaned_features", "feature_counts")


@pytest.mark.slow
def test_a_scaffolded_book_has_a_champion(tmp_path: Path, home_with_store: Home):
    """A contract that Dagster loads and that no model can be made from."""
    home = home_with_store
    book = write_sixth_book(tmp_path / "sixth.csv")
    quiet = {"telemetry": {"enabled": False}}
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(
            component_cls=LoanPortfolio,
            defs_path=f"portfolios/{NAME}",
            scaffold_params={"book": str(book), "use": ["Age"]},
        )
        contract = read_contract(folder / "defs.yaml")
        assert (contract.name, contract.column("Age").role) == (NAME, "feature")
        with sandbox.build_all_defs() as portfolio, dg.DagsterInstance.ephemeral(
            settings=quiet
        ) as held:  # fmt: skip
            defs = bound(portfolio, home)
            months = ("2022-01", "2022-06")
            run(defs, held, NAME, "profile")
            run(defs, held, NAME, "decisions", "outcomes", months=months)
            run(defs, held, NAME, "feature_bins")
            run(defs, held, NAME, *BOOK_ASSETS, months=months)
            run(defs, held, NAME, "trained_model")
            run(defs, held, NAME, "champion")
            assert latest(held, NAME, "champion")["decision"] == "promoted"


def test_what_cannot_be_scaffolded_is_said_and_leaves_no_folder(tmp_path: Path):
    """An empty portfolio folder that no later scaffolding may use."""
    with (
        create_defs_folder_sandbox() as sandbox,
        pytest.raises(ClickException, match=r"nowhere\.csv"),
    ):
        sandbox.scaffold_component(
            component_cls=LoanPortfolio,
            defs_path=NAME,
            scaffold_params={"book": str(tmp_path / "nowhere.csv")},
        )
    assert not (sandbox.defs_folder_path / NAME).exists()


def test_the_command_line_can_ask_for_each_of_them():
    """An option that `dg scaffold defs` cannot make of the model, or that takes one value only."""
    from dagster_dg_core.utils import json_schema_property_to_click_option

    fields = Book.model_json_schema()["properties"].items()
    options = {name: json_schema_property_to_click_option(name, it, False) for name, it in fields}
    assert options["book"].opts == ["--book"]
    assert {name for name, option in options.items() if option.multiple} == {
        "bad", "good", "use", "ignore",
    }  # fmt: skip
