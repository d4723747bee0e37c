"""Which portfolios are loaded and served, and what a misspelt name says."""

from __future__ import annotations

import pytest

from loan_platform.contract import ContractError
from loan_platform.contract.portfolios import CHOICE, contract_files, contract_of, is_chosen

ALL = ["credit_risk", "lending_club", "loan_approval", "loan_default", "playground_s4e10"]


def names() -> list[str]:
    return [file.parent.name for file in contract_files()]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, ALL),
        ("", ALL),
        (" loan_default , credit_risk,", ["credit_risk", "loan_default"]),
    ],
)
def test_the_setting_chooses(asked, found, monkeypatch):
    if asked is not None:
        monkeypatch.setenv(CHOICE, asked)
    assert names() == found
    assert [name for name in ALL if is_chosen(name)] == found


def test_a_misspelt_name_is_an_error_with_the_known_ones(monkeypatch):
    """Else a typing error would be a location without the portfolio, and nobody told."""
    monkeypatch.setenv(CHOICE, "credit_risk,lending_clubs")
    with pytest.raises(ContractError, match=r"PORTFOLIOS: there is no portfolio lending_clubs; the "
                       r"portfolios are credit_risk, lending_club, "):  # fmt: skip
        contract_files()


def test_a_portfolio_that_was_not_chosen_cannot_be_had(monkeypatch):
    monkeypatch.setenv(CHOICE, "credit_risk")
    assert contract_of("credit_risk").name == "credit_risk"
    with pytest.raises(ContractError, match="no portfolio loan_default; the portfolios are credit"):
        contract_of("loan_default")


@pytest.mark.parametrize("name", ALL)
def test_a_portfolio_lies_in_the_folder_of_its_name(name):
    """Its folder is what the setting and the commands know it by."""
    assert contract_of(name).name == name
