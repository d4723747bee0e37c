"""How a model of a portfolio is made: which families, with which settings, in which proportion.

A search ends in a recipe (`search`); every later training follows it in seconds (`train`).
Here: its shape, and the recipe without a search. Not here: finding one, or fitting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

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


class Recipe(BaseModel):
    """The ingredients of a blend; their weights sum to 1. One ingredient: no blend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ingredients: list[Ingredient] = Field(min_length=1)
    contract_hash: str | None = Field(None, description="None: not found by a search")
    searched_at: AwareDatetime | None = None
    trials: int = 0
    figures: dict[str, float] = Field({}, description="Of the inner cross-validation")
    left_out: dict[str, str] = Field({}, description="Families not tried, each with the reason")

    def write(self, file: Path) -> None:
        write_text(self.model_dump_json(indent=1), file)

    @classmethod
    def read(cls, file: Path) -> Recipe:
        return cls.model_validate_json(file.read_text(encoding="utf-8"))


def usual() -> Recipe:
    """One LightGBM with the family's own settings: strong without a search, in seconds."""
    return Recipe(ingredients=[Ingredient(family="lightgbm")])
