"""Tables of the docs that a benchmark writes: each figure has one place and one way to be made.

A page marks such a table by two comments, which no reader sees:

    <!-- measured: NAME, by python benchmarks/FILE.py -->
    | ... |
    <!-- end of NAME -->

Here: finding and replacing what stands between. Not here: the figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
BEGIN = re.compile(r"^<!-- measured: (?P<name>[\w ]+), by (?P<command>.+) -->$", re.MULTILINE)


def write_table(page: str, name: str, lines: Iterable[str], folder: Path = DOCS) -> None:
    """Put `lines` between the marks of table `name` on a page of the docs.

    Raises:
        ValueError: the page has no such table, or it does not end.
    """
    file = folder / page
    text = file.read_text(encoding="utf-8")
    begin = next((one for one in BEGIN.finditer(text) if one["name"] == name), None)
    if begin is None:
        raise ValueError(f"{file} has no line '<!-- measured: {name}, by COMMAND -->'; add it")
    end = text.find(f"\n<!-- end of {name} -->", begin.end())
    if end < 0:
        raise ValueError(f"{file}: the table {name} has no line '<!-- end of {name} -->'; add it")
    table = "\n".join(lines)
    file.write_text(f"{text[: begin.end()]}\n{table}{text[end:]}", encoding="utf-8")
