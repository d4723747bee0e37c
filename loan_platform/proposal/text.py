"""Writes a proposed contract as the YAML a careful colleague would: ordered, short, commented.

Here: layout and quoting. Not here: anything that is decided about a column (`propose`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from loan_platform.contract.portfolio import Source
from loan_platform.ingest.profile import Profile
from loan_platform.proposal.guesses import OutcomeGuess, TimeGuess, listed

WIDTH = 100
COMPONENT = "loan_platform.components.LoanPortfolio"


@dataclass(frozen=True)
class Document:
    """Everything a proposed contract says, in the order in which it says it.

    `notes`: column -> what to check of it. `ignored`: reason -> columns.
    """

    name: str
    source: Source
    profile: Profile
    outcome: OutcomeGuess
    time: TimeGuess
    key: str | None
    matures_after_days: int
    ended: bool
    entries: list[dict[str, Any]]
    notes: Mapping[str, str]
    ignored: Mapping[str, list[str]]
    features: Mapping[str, dict[str, Any]]
    simulation: dict[str, Any] | None


def document_text(document: Document) -> str:
    """The YAML of the document; `contract.read_contract` reads it."""
    blocks: Iterable[list[str]] = (
        [
            f"# Proposed from what is in {_in_comment(document.source.name)}. "
            "What is marked `check:` was guessed.",
            f"type: {COMPONENT}",
        ],
        ["attributes:", *_indented(2, _head(document))],
        _indented(2, ["source:", *_indented(2, _source(document.source))]),
        _indented(2, _time(document)),
        _indented(2, _outcome(document)),
        _indented(2, _columns(document)),
        _indented(2, _ignored(document)),
        _indented(2, _features(document)),
        _indented(2, _simulation(document)),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def scalar(value: Any, *, within: bool = True) -> str:
    """A plain YAML scalar where it reads back as the same value, else in double quotes.

    `within`: it stands within brackets, where a comma means something.
    """
    if isinstance(value, bool) or not isinstance(value, str):
        return _number(value)
    item: Any = [value] if within else {"k": value}
    plain = yaml.safe_dump(item, default_flow_style=within, width=10**9, allow_unicode=True)
    ambiguous = value.lower() in ("y", "n") or re.fullmatch(r"[\d_.:+\-eE]*", value)
    if plain in (f"[{value}]\n", f"k: {value}\n") and not ambiguous and "#" not in value:
        return value
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    quoted = yaml.safe_dump(value, default_style='"', width=10**9, allow_unicode=True)
    return quoted.strip()


def flow(mapping: Mapping[str, Any], indent: int) -> list[str]:
    """`{key: value, ...}` over as many lines as it takes; `indent`: of the first line's `{`."""
    return _packed("{", _pieces(mapping), "}", indent)


def _number(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _pieces(mapping: Mapping[str, Any]) -> list[str]:
    """`key: value` texts; a list or a mapping is cut into pieces where a line may break."""
    pieces = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            inner, ends = [f"{scalar(k)}: {scalar(v)}" for k, v in value.items()], "{}"
        elif isinstance(value, list):
            inner, ends = [scalar(item) for item in value], "[]"
        else:
            pieces.append(f"{scalar(key)}: {scalar(value)}")
            continue
        inner[0] = f"{scalar(key)}: {ends[0]}{inner[0]}"
        inner[-1] += ends[1]
        pieces += inner
    return pieces


def _packed(begin: str, pieces: Sequence[str], end: str, indent: int) -> list[str]:
    """Pieces joined by commas in lines of at most `WIDTH`, as far as a single piece allows."""
    lines = [begin]
    for position, piece in enumerate(pieces):
        text = piece + (end if position == len(pieces) - 1 else ",")
        gap = "" if lines[-1] in (begin, " ") else " "
        if len(lines[-1]) + len(gap) + len(text) + indent > WIDTH and lines[-1] != begin:
            lines.append(" ")
            gap = ""
        lines[-1] += gap + text
    return lines


def _indented(by: int, lines: Iterable[str]) -> list[str]:
    return [" " * by + line for line in lines]


def _item(lines: Sequence[str]) -> list[str]:
    """Lines as an item of a block sequence."""
    return [f"- {lines[0]}", *_indented(2, lines[1:])]


def _check(text: str) -> list[str]:
    """Comment lines that ask a person to look."""
    lines = textwrap.wrap(f"check: {_in_comment(text)}", WIDTH - 8, break_long_words=False)
    return [f"# {line}" for line in lines]


def _quoted_lines(key: str, value: str, indent: int) -> list[str]:
    """`key: value`; a long text in quotes goes on in the next lines, where YAML folds it."""
    text = f"{key}: {scalar(value, within=False)}"
    if len(text) + indent <= WIDTH or "  " in text:
        return [text]
    if not text.endswith('"'):
        text = f"{key}: '{value}'" if '"' in value else f'{key}: "{value}"'
    first, *rest = textwrap.wrap(
        text, WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False
    )
    return [first, *_indented(2, rest)]


def _in_comment(text: str) -> str:
    """On one line, and nothing in it that YAML has no place for."""
    return "".join(character if character.isprintable() else " " for character in text)


def _head(document: Document) -> list[str]:
    profile = document.profile
    rate = f", {profile.bad_rate:.1%} of them bad" if profile.bad_rate is not None else ""
    title = document.name.replace("_", " ").capitalize()
    return [
        f"name: {scalar(document.name)}",
        f"title: {scalar(title, within=False)}",
        f"description: {profile.rows:,} loans{rate}",
    ]


def _source(source: Source) -> list[str]:
    given = source.model_dump(exclude_defaults=True)
    return [f"{key}: {scalar(value, within=False)}" for key, value in given.items()]


def _time(document: Document) -> list[str]:
    time = document.time
    if time.column is None:
        return [
            "time: # check: no column says when an application was made, so the book is replayed",
            f"  replay: {{start: {time.first}, periods: {time.months}}}",
        ]
    doubt = _check(f"{time.column}: {time.doubt}") if time.doubt else []
    lines = [*doubt, "time:", f"  start: {time.first}"]
    return [*lines, f"  end: {time.last} # the book ends there"] if document.ended else lines


def _outcome(document: Document) -> list[str]:
    outcome = document.outcome
    lines = [line for doubt in outcome.doubts for line in _check(doubt)]
    lines += ["outcome:"]
    for side, values in (("bad", outcome.bad), ("good", outcome.good)):
        packed = _packed("[", [scalar(value) for value in values], "]", 8)
        lines += [f"  {side}: {packed[0]}", *_indented(4 + len(side), packed[1:])]
    if outcome.undecided:
        lines.append(f"  # not known yet: {_in_comment(listed(outcome.undecided))}")
    return [*lines, f"  matures_after_days: {document.matures_after_days} # check"]


def _columns(document: Document) -> list[str]:
    lines = ["columns:"]
    for entry in document.entries:
        if note := document.notes.get(entry["name"]):
            lines += _indented(2, _check(note))
        lines += _indented(2, _item(flow(entry, 6)))
    return lines


def _ignored(document: Document) -> list[str]:
    if not document.ignored:
        return []
    lines = ["ignored:"]
    for reason, names in document.ignored.items():
        packed = _packed("[", [scalar(name) for name in names], "]", 15)
        columns = [f"columns: {packed[0]}", *_indented(9, packed[1:])]
        lines += _indented(2, _item([*_quoted_lines("reason", reason, 6), *columns]))
    return lines


def _features(document: Document) -> list[str]:
    if not document.features:
        return []
    lines = ["features:"]
    for name, feature in document.features.items():
        lines.append(f"  {scalar(name)}:")
        lines += [f"    {k}: {scalar(v, within=False)}" for k, v in feature.items()]
    return lines


def _simulation(document: Document) -> list[str]:
    section = document.simulation
    if section is None:
        return []
    lines = [
        "# What a stand-in is drawn from where the book is not at hand: figures, never rows.",
        "simulation:",
        f"  rows: {section['rows']}",
        f"  bad_rate: {section['bad_rate']}",
        "  columns:",
    ]
    for name, figures in section["columns"].items():
        lines.append(f"    {scalar(name)}:")
        for key, value in figures.items():
            lines += _indented(6, _field(key, value, 6))
    return lines


def _field(key: str, value: Any, indent: int) -> list[str]:
    """`key: value` in block style, the value in flow style."""
    if not isinstance(value, Mapping | list):
        return [f"{key}: {scalar(value, within=False)}"]
    if isinstance(value, Mapping):
        pieces, ends = [f"{scalar(k)}: {scalar(v)}" for k, v in value.items()], "{}"
    else:
        pieces, ends = [scalar(item) for item in value], "[]"
    packed = _packed(ends[0], pieces, ends[1], indent + len(key) + 2)
    return [f"{key}: {packed[0]}", *_indented(len(key) + 2, packed[1:])]
