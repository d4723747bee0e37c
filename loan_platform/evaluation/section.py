"""What a section of the model card is.

Here: the three words every section uses. Not here: any section (`sections`), or the page
(`training.card`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation

Figures = dict[str, Any]
"""What a section says, JSON-ready: texts, numbers, booleans, None, lists and dicts of them."""


@dataclass(frozen=True)
class Subject:
    """The version a card is about, and how it did on its judge rows."""

    bundle: Bundle
    evaluation: Evaluation


@dataclass(frozen=True)
class Section:
    """One section: `name` is its anchor and its template, `title` stands in the contents.

    `figures`: what it says of a version; None where it has nothing to say.
    """

    name: str
    title: str
    figures: Callable[[Subject], Figures | None]
