"""The model card: all a reviewer asks of one version, on one page that holds its own pictures.

A card is figures, JSON-ready, by section; the page is made of them, so a machine can read the card
as well as a person.

To add a section NAME: a module `evaluation/sections/NAME.py` whose `figures(subject)` gives what
it says as a dict (None: nothing to say), a template `evaluation/templates/NAME.html` that shows
this dict under the word `section`, and a line each in `evaluation.sections.SECTIONS`, which sets
the order, and in docs/model_card.md. A template has `picture` and `slices` in parts.html,
`pictures` (file name -> base64), and the filters below; keys of figures may not be names of a
dict's own methods (`items`, `values`, ..).

Here: the page. Not here: any figure of it (`evaluation.sections`), the pictures (`pictures`), or
where cards are kept (`registry.models`). A card goes to people who may not see applicants: it holds
rates of groups, and the usual approved application, which is nobody's.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loan_platform.contract import Contract
from loan_platform.evaluation.section import Figures, Subject
from loan_platform.evaluation.sections import SECTIONS
from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation


@dataclass(frozen=True)
class Card:
    """What is said of one version: `head`, `runs` (name -> id), and figures by section."""

    head: dict[str, Any]
    runs: dict[str, str]
    sections: dict[str, Figures]

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        evaluation: Evaluation,
        *,
        version: str | None = None,
        runs: Mapping[str, str] | None = None,
    ) -> Card:
        """The card of a model that was just trained.

        `version` is its number in the registry; `runs`: name -> id of the runs that made it.
        """
        subject = Subject(bundle, evaluation)
        told = {one.name: one.figures(subject) for one in SECTIONS}
        return cls(
            head=_head(bundle, version),
            runs=dict(runs or {}),
            sections={name: figures for name, figures in told.items() if figures is not None},
        )

    @property
    def json(self) -> str:
        """All it says, for machines."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def page(self, pictures: Mapping[str, bytes]) -> str:
        """The page, as HTML that loads nothing from elsewhere; `pictures`: file name -> PNG."""
        from jinja2 import (
            ChoiceLoader,
            Environment,
            PackageLoader,
            StrictUndefined,
            select_autoescape,
        )

        rooms = ("loan_platform.training", "loan_platform.evaluation")
        environment = Environment(
            loader=ChoiceLoader([PackageLoader(room) for room in rooms]),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"share": _share, "number": _number, "rows": _rows, "plain": _plain}
        told = [one for one in SECTIONS if one.name in self.sections]
        return environment.get_template("card.html").render(
            card=self,
            sections=[one for one in told if one.name != "pictures" or pictures],
            pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
        )


def protected_accepted(contract: Contract) -> dict[str, str]:
    """Input columns used although they are protected attributes, with the reason."""
    return {
        c.name: c.protected_accepted
        for c in contract.input_columns
        if c.protected_accepted is not None
    }


def _head(bundle: Bundle, version: str | None) -> dict[str, Any]:
    contract, record = bundle.contract, bundle.record
    accepted = {
        "{} is used although it may leak the outcome": contract.leaks_accepted,
        "{} is used although it is a protected attribute": protected_accepted(contract),
        "Groups of {} may lie below the four-fifths line": contract.fairness.accepted,
    }
    return {
        "portfolio": contract.name,
        "title": contract.title,
        "description": contract.description,
        "owners": list(contract.owners),
        "version": version,
        "trained_at": record.trained_at.strftime("%Y-%m-%d %H:%M %Z"),
        "simulated": record.simulated,
        "accepted": [
            {"what": words.format(name), "reason": reason}
            for words, columns in accepted.items()
            for name, reason in columns.items()
        ],
    }


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rows(value: float) -> str:
    return f"{value:,.0f}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.6g}"
