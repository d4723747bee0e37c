"""Reads a contract from YAML and places every error at its file and line.

Here: the file, its positions and the wording of errors. Not here: what makes a contract
invalid (`portfolio`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loan_platform.contract.portfolio import Contract

Location = tuple[str | int, ...]


class ContractError(ValueError):
    """Problems of a contract file, one a line: `file:line: place: what, and the mend`."""


def read_contract(path: Path) -> Contract:
    """Read the contract in a component's `defs.yaml`.

    Raises:
        ContractError: the file is missing, is not YAML, or is not a valid contract.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ContractError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ContractError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ContractError(f"{path}:{line}: not valid YAML: {error.reason}") from None
    if node is None or not isinstance(document, dict) or "attributes" not in document:
        raise ContractError(f"{path}:1: no attributes: block; a contract lies under attributes:")
    if twice := list(_repeated_keys(node, ())):
        raise ContractError("\n".join(f"{path}:{line}: {what}" for line, what in twice))
    lines = _lines(node)
    try:
        return Contract.model_validate(document["attributes"])
    except ValidationError as invalid:
        problems = [
            (
                _line_of(("attributes", *problem["loc"]), lines),
                _place(problem["loc"]),
                _say(dict(problem)),
            )
            for problem in invalid.errors(include_url=False)
        ]
        raise ContractError(
            "\n".join(f"{path}:{line}: {place}: {what}" for line, place, what in sorted(problems))
        ) from None


def _lines(node: yaml.Node) -> dict[Location, int]:
    """Line (1-based) at which each key and item of a YAML document begins."""
    found: dict[Location, int] = {}

    def walk(current: yaml.Node, at: Location) -> None:
        found.setdefault(at, current.start_mark.line + 1)
        if isinstance(current, yaml.MappingNode):
            for key, value in current.value:
                found[(*at, key.value)] = key.start_mark.line + 1
                walk(value, (*at, key.value))
        elif isinstance(current, yaml.SequenceNode):
            for index, value in enumerate(current.value):
                walk(value, (*at, index))

    walk(node, ())
    return found


def _repeated_keys(node: yaml.Node, at: Location) -> Iterator[tuple[int, str]]:
    """Lines with a key their mapping has already; YAML's loader would keep the last, silently."""
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            place = (*at, key.value)
            if key.value in first:
                where, before = _place(place[1:] or place), first[key.value]
                yield line, f"{where}: is there twice, first on line {before}; keep one"
            first.setdefault(key.value, line)
            yield from _repeated_keys(value, place)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, (*at, index))


def _line_of(location: Location, lines: dict[Location, int]) -> int:
    """Line of the deepest part of `location` that is in the file."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _place(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "contract"


def _say(problem: dict[str, Any]) -> str:
    match problem["type"]:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return "is not a key of a contract here; check the spelling or remove it"
        case "string_type":
            return "must be text; put it in quotes"
        case "literal_error":
            return f"{problem['input']!r} is not one of {problem['ctx']['expected']}"
        case _:
            return str(problem["msg"])
