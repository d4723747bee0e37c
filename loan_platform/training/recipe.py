"""How a model of a portfolio is made: which families, with which settings, in which proportion.

A search ends in a recipe (`search`); every later training follows it in seconds (`train`).
Here: its shape, the recipe without a search, and which one a training follows. Not here: finding
one, or fitting (`blending`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from loan_platform.contract import Contract
from loan_platform.contract.settings import Family
from loan_platform.engine.files import write_text


class Ingredient(BaseModel):
    """One family with its settings. `size` is the number of trees (rounds, iterations).

    `size` None: found anew in every training, on the rows of the calibrate part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family
    parameters: dict[str, Any] = {}
    size: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0, le=1, description="Of its margin in the blend")


class Tried(BaseModel):
    """One finished trial of a search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: int = Field(ge=1, description="In the search, from 1")
    family: Family
    parameters: dict[str, Any] = {}
    state: Literal["complete", "pruned", "failed"]
    began: AwareDatetime
    seconds: float
    figures: dict[str, float] = Field({}, description="Of the folds that were measured")
    exact: bool = Field(False, description="Whether its reasons would be exact")
    error: str | None = None


class Recipe(BaseModel):
    """The ingredients of a blend; their weights sum to 1. One ingredient: no blend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ingredients: list[Ingredient] = Field(min_length=1)
    contract_hash: str | None = Field(None, description="None: not found by a search")
    searched_at: AwareDatetime | None = None
    figures: dict[str, float] = Field({}, description="Of the inner cross-validation")
    left_out: dict[str, str] = Field({}, description="Families not tried, each with the reason")
    tried: list[Tried] = []

    @property
    def trials(self) -> int:
        return len(self.tried)

    @property
    def words(self) -> str:
        """'lightgbm of 640 (70 %) and logistic (30 %)'."""
        told = [
            one.family
            + (f" of {one.size}" if (one.size or 1) > 1 else "")
            + (f" ({one.weight:.0%})" if len(self.ingredients) > 1 else "")
            for one in self.ingredients
        ]
        return " and ".join([", ".join(told[:-1]), told[-1]] if told[1:] else told)

    def write(self, file: Path) -> None:
        write_text(self.model_dump_json(indent=1), file)

    @classmethod
    def read(cls, file: Path) -> Recipe:
        return cls.model_validate_json(file.read_text(encoding="utf-8"))


def usual() -> Recipe:
    """One LightGBM with the family's own settings: strong without a search, in seconds."""
    return Recipe(ingredients=[Ingredient(family="lightgbm")])


def to_follow(contract: Contract, file: Path) -> tuple[Recipe, str]:
    """The recipe of the search kept in `file` where it fits the contract, else the usual one.

    Beside it a sentence on which it is and why.
    """
    again = f"loan-platform search {contract.name} finds one"
    if not file.is_file():
        return usual(), f"no search was made: the usual LightGBM ({again})"
    try:
        found = Recipe.read(file)
    except ValidationError:
        return usual(), f"{file} cannot be read, so the usual LightGBM ({again})"
    if found.contract_hash != contract.contract_hash:
        return usual(), (
            f"the recipe searched for was of contract {found.contract_hash}, which is now "
            f"{contract.contract_hash}: the usual LightGBM ({again})"
        )
    families = contract.training.search.families
    unwanted = sorted({one.family for one in found.ingredients} - set(families))
    if unwanted:
        return usual(), (
            f"the recipe searched for uses {', '.join(unwanted)}, which training.search.families "
            f"no longer lists: the usual LightGBM ({again})"
        )
    return found, f"the recipe of the search of {found.searched_at:%Y-%m-%d}: {found.words}"
