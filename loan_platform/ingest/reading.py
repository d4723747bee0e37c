"""Reads the records of files as text, and keeps the lines no record can be read from.

Here: CSV and Parquet as they arrive. Not here: where they lie (`source`), how they come here
(`fetch`), months and ids (`staging`).

DuckDB reads whole files at full speed, strictly: the first malformed line ends it. Were it to note
such lines instead, it would no longer check that its threads, which begin somewhere within a file,
agree on which line ends lie within values, and rows would be lost and made up; and one thread alone
passes over a last value whose quote is not closed. So where the strict way fails, the lines go
through `sieve`, which parts the records that can be read from the lines that cannot.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import csv
import difflib
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source
from loan_platform.contract.sql import literal, quoted
from loan_platform.ingest.sieve import LONGEST_LINE, REJECTED, SieveError, opened, sieve
from loan_platform.ingest.source import SourceError

Statement = Callable[["TextRelation"], str]
"""Makes the statement that takes the rows of a relation in; it may be run more than once."""


# What DuckDB raises on a file that it cannot read as it is, and a sieve may make readable.
UNREADABLE = (
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.NotImplementedException,
)


@dataclass(frozen=True)
class TextRelation:
    """Rows of files as they arrive: every column VARCHAR, under its own name.

    `sql`: all files' rows in order, without the malformed lines, for a FROM clause that names it
    (`FROM {sql} AS arrived`). An empty value is NULL.
    """

    header: list[str]
    sql: str


def stage(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    paths: list[Path],
    statement: Statement,
) -> tuple[list[str], pa.Table]:
    """Run `statement` over the rows of `paths`; return the header and the malformed lines.

    The files are one book: they have the same header. What a first way fails to read is read
    another way, so the statement may be run again, and must replace what it made.

    Raises:
        SourceError: a file is empty, cannot be read, or has another header than the first.
    """
    with _told(paths, source):
        if paths[0].suffix == ".parquet":
            relation = _parquet(connection, paths)
            connection.execute(statement(relation))
            return relation.header, REJECTED.empty_table()
        headers = [_header(path, source) for path in paths]
        _require_one_header([header for header, _ in headers], paths)
        header = headers[0][0]
        # DuckDB would take line ends within the names for those of the file.
        if all(lines == 1 for _, lines in headers):
            with contextlib.suppress(*UNREADABLE):
                read = _csv(header, paths, source.delimiter, source.encoding)
                connection.execute(statement(read))
                return header, REJECTED.empty_table()
        return header, _sieved(connection, source, paths, headers, statement)


def _sieved(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    paths: list[Path],
    headers: list[tuple[list[str], int]],
    statement: Statement,
) -> pa.Table:
    """Run `statement` over the records that can be read; return the other lines."""
    header, lines = headers[0][0], [lines for _, lines in headers]
    with tempfile.TemporaryDirectory(prefix="loan_platform_") as folder:
        parts, rejected = sieve(paths, source, len(header), lines, Path(folder))
        try:  # parts are UTF-8, whatever the source's encoding
            connection.execute(statement(_csv(header, parts, source.delimiter, "utf-8")))
        except UNREADABLE:
            raise SieveError("quotes in it contradict each other; double those in values") from None
        return rejected


def _csv(header: list[str], paths: list[Path], delimiter: str, encoding: str) -> TextRelation:
    files = ", ".join(literal(str(path)) for path in paths)
    # Nothing is detected: what a few first lines look like must not decide how the rest is read.
    columns = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(header)))
    named = ", ".join(f"c{i} AS {quoted(name)}" for i, name in enumerate(header))
    return TextRelation(
        header,
        f"(SELECT {named} FROM read_csv([{files}], auto_detect = false, header = true, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', encoding = '{encoding}', "
        f"max_line_size = {LONGEST_LINE}, columns = {{{columns}}}))",
    )


def _parquet(connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> TextRelation:
    """Each file is read by its own types: the first one's would round the others' values."""
    headers, scans = [], []
    for path in paths:
        scan = f"read_parquet({literal(str(path))})"
        headers.append([row[0] for row in connection.execute(f"DESCRIBE FROM {scan}").fetchall()])
        texts = ", ".join(f"CAST({quoted(n)} AS VARCHAR) AS {quoted(n)}" for n in headers[-1])
        scans.append(f"SELECT {texts} FROM {scan}")
    _require_one_header(headers, paths)
    return TextRelation(headers[0], f"({' UNION ALL '.join(scans)})")


def _header(path: Path, source: Source) -> tuple[list[str], int]:
    """Column names of a CSV file, and how many lines they take."""
    with opened(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise SourceError(f"{path} is in UTF-16. Save it as UTF-8.")
    with (
        opened(path) as file,
        io.TextIOWrapper(
            file,
            encoding="utf-8-sig" if source.encoding == "utf-8" else "cp1252",
            errors="replace",
            newline="",
        ) as text,
    ):
        reader = csv.reader(text, delimiter=source.delimiter)
        names = [name.strip() for name in next(reader, [])]
    if not any(names):
        what = "is empty" if reader.line_num == 0 else "begins with a blank line"
        raise SourceError(f"{path} {what}. Its first line must name the columns.")
    if any("\ufffd" in name for name in names):
        raise SourceError(
            f"{path} has a header that is not UTF-8. Set source.encoding: latin-1, or save the "
            "file as UTF-8."
        )
    if not names[-1]:  # one delimiter more at the end of each line
        names.pop()
    return [name or f"column_{place}" for place, name in enumerate(names, 1)], reader.line_num


def _require_one_header(headers: list[list[str]], paths: list[Path]) -> None:
    """Each name stands once in the header, and every file has the same one."""
    first = headers[0]
    seen = collections.Counter(name.lower() for name in first)
    if twice := sorted({name for name in first if seen[name.lower()] > 1}):
        raise SourceError(
            f"{paths[0]} has more than one column {', '.join(twice)} (capitals make no difference)."
            " Mend the file's header: each name stands there once."
        )
    for header, path in zip(headers, paths, strict=True):
        if header == first:
            continue
        lacks = [name for name in first if name not in header]
        more = [name for name in header if name not in first]
        how = "; ".join(
            part
            for part in (
                f"it lacks {', '.join(lacks)}" if lacks else "",
                f"it has {', '.join(more)}" if more else "",
            )
            if part
        )
        raise SourceError(
            f"{path} has another header than {paths[0]}: {how or 'another order of the columns'}. "
            "Files read as one book have the same columns in the same order."
        )


@contextlib.contextmanager
def _told(paths: list[Path], source: Source) -> Iterator[None]:
    """Turn what readers raise into an error for people; it never holds an applicant's data."""
    try:
        yield
    except (duckdb.Error, csv.Error, zlib.error, EOFError, OSError, SieveError) as error:
        # The full message of a CSV error holds the offending line: an applicant's data.
        what = str(error).split("\n")[0]
        if isinstance(error, duckdb.Error):
            what = what.split(": ", 1)[-1]
        separated = {",": "comma", ";": "semicolon", "\t": "tab"}.get(
            source.delimiter, source.delimiter
        )
        raise SourceError(
            f"{_named(paths)} cannot be read: {what.rstrip('.')}. Check that the file is complete "
            f"and is {separated}-separated with a header line, or Parquet."
        ) from None


def _named(paths: list[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} or one of {len(paths) - 1} more"


def require_columns(contract: Contract, header: list[str], paths: list[Path]) -> None:
    """Refuse a header that lacks a column of the contract, naming the one it may have become.

    Raises:
        SourceError: it lacks one.
    """
    missing = [c.name for c in contract.columns if c.name not in header]
    if not missing:
        return
    hints = []
    for name in missing:
        near = difflib.get_close_matches(name, header, n=1)
        hints.append(f"{name} (did it become {near[0]}?)" if near else name)
    parted = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
    delimiter = f" It seems to be parted by {parted!r}: set source.delimiter." if parted else ""
    raise SourceError(
        f"{paths[0]} lacks the column{'s' if len(missing) > 1 else ''} "
        f"{', '.join(hints)}. Mend the file's header, or the contract's columns.{delimiter}"
    )
