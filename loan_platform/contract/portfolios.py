"""Which portfolios there are: the contracts of this platform, and the ones chosen of them.

Here: the folder `defs/portfolios` and the setting `LOAN_PLATFORM_PORTFOLIOS`. Not here: what a
contract says (`portfolio`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from loan_platform.contract.portfolio import Contract
from loan_platform.contract.reading import ContractError, read_contract

FOLDER = Path(__file__).resolve().parents[1] / "defs" / "portfolios"
CHOICE = "LOAN_PLATFORM_PORTFOLIOS"
"""Names separated by commas; unset or empty: every portfolio."""


def contract_files() -> list[Path]:
    """The contract of each chosen portfolio, in alphabetical order.

    Raises:
        ContractError: a name in `LOAN_PLATFORM_PORTFOLIOS` is no portfolio's.
    """
    files = {file.parent.name: file for file in sorted(FOLDER.glob("*/defs.yaml"))}
    if strange := [name for name in _asked() if name not in files]:
        raise ContractError(f"{CHOICE}: {_unknown(strange[0], files)}")
    return [file for name, file in files.items() if is_chosen(name)]


def is_chosen(name: str) -> bool:
    """Whether the portfolio in the folder `name` is one to load and serve."""
    return not _asked() or name in _asked()


def contract_of(name: str) -> Contract:
    """The contract of a chosen portfolio.

    Raises:
        ContractError: there is none of that name, or it is not valid.
    """
    files = {file.parent.name: file for file in contract_files()}
    if name not in files:
        raise ContractError(_unknown(name, files))
    return read_contract(files[name])


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"there is no portfolio {name}; the portfolios are {', '.join(known)}"


def _asked() -> list[str]:
    return [name.strip() for name in os.environ.get(CHOICE, "").split(",") if name.strip()]
