"""Tables of the docs and the benchmarks that write them (`benchmarks.documented`)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmarks.documented import BEGIN, DOCS, write_table

PAGE = """# A page

<!-- measured: rows, by python benchmarks/rows.py -->
| old |
<!-- end of rows -->

What follows stays.
"""


def test_a_table_is_replaced_and_the_text_around_it_stays(tmp_path: Path) -> None:
    """A benchmark that wrote over prose would cost people their words."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    for _ in range(2):
        write_table("page.md", "rows", ["| new |", "| 1 |"], folder=tmp_path)
    assert page.read_text(encoding="utf-8") == PAGE.replace("| old |", "| new |\n| 1 |")


@pytest.mark.parametrize("wrong", ["", PAGE.replace("<!-- end of rows -->", "")])
def test_a_page_without_both_marks_is_refused_and_stays(tmp_path: Path, wrong: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(wrong, encoding="utf-8")
    with pytest.raises(ValueError, match="add it"):
        write_table("page.md", "rows", ["| new |"], folder=tmp_path)
    assert page.read_text(encoding="utf-8") == wrong


def test_every_measured_table_of_the_docs_ends_and_names_a_benchmark_that_exists() -> None:
    """A table whose command is gone can no longer be checked by a reader."""
    tables = [
        (page, mark)
        for page in DOCS.glob("*.md")
        for mark in BEGIN.finditer(page.read_text("utf-8"))
    ]
    assert tables
    for page, mark in tables:
        assert f"<!-- end of {mark['name']} -->" in page.read_text("utf-8"), (page, mark["name"])
        words = [word for word in shlex.split(mark["command"]) if word.startswith("benchmarks")]
        module = words[0].removesuffix(".py").replace(".", "/")
        root = DOCS.parent / module
        assert root.with_suffix(".py").is_file() or (root / "__main__.py").is_file(), mark[
            "command"
        ]
