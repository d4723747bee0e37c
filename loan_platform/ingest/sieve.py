"""Parts the records of CSV files from the lines no record can be read from.

Here: the slow, exact way over the lines of a file in which something is malformed. Not here: the
fast way over all others (`reading`).

A record is what RFC 4180 says it is, and blanks around quotes are allowed, as are empty values
after the last. A quote that is opened and never rightly closed costs the line it stands in
alone: the lines after it are read as records of their own.
"""

from __future__ import annotations

import collections
import gzip
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from loan_platform.contract.portfolio import Source

LONGEST_LINE = 2_000_000  # bytes; DuckDB refuses what is longer too
LONGEST_EVER = 64_000_000  # bytes held in memory to keep a malformed line as it is
PART = 4_000_000  # bytes; with one line more it stays below what DuckDB gives one thread (8 MB)
MOST_MALFORMED = 256_000_000  # bytes of all malformed lines

REJECTED = pa.schema(
    [
        ("_after", pa.int64()),
        ("_line_number", pa.int64()),
        ("reason", pa.string()),
        ("line", pa.string()),
    ]
)
"""Lines no row could be read from. `_after`: how many rows were read from the lines before.

`_line_number` counts from 1 within the file.
"""


class SieveError(Exception):
    """So much is malformed that this is no table: says what, and how to mend it."""


def sieve(
    paths: list[Path],
    source: Source,
    columns: int,
    headers: list[int],
    folder: Path,
) -> tuple[list[Path], pa.Table]:
    """Write what can be read of the files to `folder`, in parts; return those and the other lines.

    `columns`: values of a record; `headers`: lines the header of each file takes. Parts are UTF-8,
    with a line that stands for the header and one line end after each record, and short enough for
    one thread of DuckDB to read each alone.

    Raises:
        SieveError: see there. OSError, EOFError, zlib.error: a file cannot be read.
    """
    lines = _Malformed()
    rows = 0
    records = _Records(source, columns)
    with _Parts(folder, source.delimiter.encode().join([b"x"] * columns)) as parts:
        for path, header in zip(paths, headers, strict=True):
            where = f" in {path.name}" if len(paths) > 1 else ""
            with opened(path) as file:
                last = [file.readline() for _ in range(header)][-1]
                if b"\r" in last.rstrip(b"\r\n"):
                    raise SieveError(
                        "its lines end in carriage returns alone, and some are malformed"
                    )
                for first, record, reason in records.of(file, header + 1):
                    if reason:
                        lines.add(rows, first, f"malformed line: {reason}{where}", record)
                    else:
                        parts.write(record)
                        rows += 1
        return parts.files, lines.table()


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def as_utf8(text: bytes, encoding: str) -> bytes:
    """What is said to be Latin-1 as browsers read it (0x80 to 0x9f as Windows means them)."""
    if encoding == "utf-8" or text.isascii():
        return text
    try:
        return text.decode("cp1252").encode()
    except UnicodeDecodeError:  # one of the five bytes Windows gives no meaning
        return text.decode("latin-1").encode()


class _Parts:
    """Writes records to files of limited length."""

    def __init__(self, folder: Path, header: bytes) -> None:
        self.folder = folder
        self.header = header + b"\n"
        self.files: list[Path] = []
        self.out: io.BufferedWriter | None = None
        self.room = 0

    def __enter__(self) -> _Parts:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self.out is not None:
            self.out.close()

    def write(self, record: bytes) -> None:
        if self.room <= 0:
            self._begin()
        assert self.out is not None
        self.room -= self.out.write(record) + self.out.write(b"\n")

    def _begin(self) -> None:
        self.__exit__()
        path = self.folder / f"{len(self.files)}.csv"
        path.touch(mode=0o600)
        self.files.append(path)
        self.out = path.open("wb")  # closed when the next begins
        self.out.write(self.header)
        self.room = PART


class _Records:
    """Finds the records in the lines of a file of `columns` columns."""

    def __init__(self, source: Source, columns: int) -> None:
        self.encoding = source.encoding
        self.columns = columns
        self.delimiter = source.delimiter.encode()
        end = re.escape(self.delimiter)
        blank = b"" if self.delimiter == b" " else b" *+"
        closed = blank + rb'"(?:[^"]++|"")*+"' + blank
        bare = rb"(?!" + blank + rb'")(?:(?!' + end + rb")[^\r\n])*+"
        value = rb"(?:" + closed + rb"|" + bare + rb")"
        more = rb"(?:" + end + value + rb")"
        surplus = rb"(?:" + end + rb'(?:"")?)*+'
        self.exact = re.compile(value + more + b"{%d}" % (columns - 1) + surplus)
        self.nothing = (self.delimiter, self.delimiter + b'""')
        self.complete = re.compile(value + more + rb"*+")
        self.one = re.compile(end + value)
        left_open = blank + rb'"(?:[^"]++|"")*+'
        self.opens = re.compile(rb"(?:" + value + end + rb")*+" + left_open)
        # Within a value: to its end and maybe on to another that is left open.
        ends = rb'(?:[^"]++|"")*+"' + blank
        self.closes = re.compile(ends + more + rb"*+")
        self.reopens = re.compile(ends + rb"(?:" + end + value + rb")*?" + end + left_open)
        self.stays = re.compile(rb'(?:[^"]++|"")*+')

    def of(
        self, file: gzip.GzipFile | io.BufferedReader, number: int
    ) -> Iterator[tuple[int, bytes, str]]:
        """Line number, text without its line end, and what is malformed ('' : a record).

        `number`: of the first line. Blank lines are passed over.
        """
        ahead: collections.deque[bytes] = collections.deque()  # read, and still to be judged

        def following() -> bytes:
            line = ahead.popleft() if ahead else file.readline(LONGEST_EVER)
            if len(line) == LONGEST_EVER:
                raise SieveError("it has a line longer than 64 MB, so it is no table of text")
            return line

        delimiters = self.columns - 1
        while line := following():
            if (  # most lines
                b'"' not in line
                and line.count(self.delimiter) == delimiters > 0
                and line.isascii()
                and b"\r" not in line
                and line[-1:] == b"\n"
                and len(line) <= LONGEST_LINE
            ):
                yield number, line[:-1], ""
                number += 1
                continue
            text = as_utf8(_without_end(line), self.encoding)
            if b'"' not in text:
                if text or not delimiters:
                    values = 1 + text.count(self.delimiter)
                    if values > self.columns and text.endswith(self.delimiter):
                        filled = text.rstrip(self.delimiter)
                        values = max(self.columns, 1 + filled.count(self.delimiter))
                    stray = "a carriage return within the line" if b"\r" in text else ""
                    yield number, text, self._misfit(values) or stray or self._wrong(text)
                number += 1
            elif self.exact.fullmatch(text):
                yield number, text, self._wrong(text)
                number += 1
            else:
                lines = [line]
                whole = self.complete.fullmatch(text) is not None
                if not whole and self.opens.fullmatch(text):
                    whole = self._gather(lines, following)
                if whole:
                    text = as_utf8(_without_end(b"".join(lines)), self.encoding)
                    wrong = self._misfit(self._values(text)) or self._wrong(text)
                    if not wrong:
                        yield number, text, ""
                    else:
                        for place, line in enumerate(lines):
                            text = as_utf8(_without_end(line), self.encoding)
                            yield number + place, text, wrong
                    number += len(lines)
                else:
                    ahead.extendleft(reversed(lines[1:]))
                    yield number, text, "stray quote"
                    number += 1

    def _gather(self, lines: list[bytes], following: Callable[[], bytes]) -> bool:
        """Add the lines a quoted value runs on to; whether it is closed, and the record whole."""
        size = len(lines[0])
        while size <= LONGEST_LINE and (line := following()):
            lines.append(line)
            size += len(line)
            text = as_utf8(_without_end(line), self.encoding)
            if b'"' not in text:
                continue
            if self.closes.fullmatch(text):
                return True
            if not (self.stays.fullmatch(text) or self.reopens.fullmatch(text)):
                return False
        return False

    def _values(self, text: bytes) -> int:
        values = self.one.findall(self.delimiter + text)
        while len(values) > self.columns and values[-1] in self.nothing:
            values.pop()
        return len(values)

    def _misfit(self, values: int) -> str:
        if values == self.columns:
            return ""
        return "missing columns" if values < self.columns else "too many columns"

    def _wrong(self, text: bytes) -> str:
        if len(text) > LONGEST_LINE:
            return f"longer than {LONGEST_LINE:,} bytes"
        if text.isascii():
            return ""
        try:
            text.decode()
        except UnicodeDecodeError:
            return "invalid encoding"
        return ""


def _without_end(line: bytes) -> bytes:
    """A line without its LF or CR LF."""
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line.removesuffix(b"\r")


class _Malformed:
    """Gathers malformed lines, in little memory for each."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.waiting: list[tuple[int, int, str, str]] = []
        self.bytes = 0

    def add(self, after: int, number: int, reason: str, text: bytes) -> None:
        self.bytes += len(text)
        if self.bytes > MOST_MALFORMED:
            raise SieveError(
                f"more than {MOST_MALFORMED // 1_000_000} MB of its lines are malformed, the last "
                f"line {number} ({reason})"
            )
        # What is no UTF-8 is kept as \x.. of its bytes.
        self.waiting.append((after, number, reason, text.decode(errors="backslashreplace")))
        if len(self.waiting) == 10_000:
            self._pack()

    def table(self) -> pa.Table:
        self._pack()
        return pa.Table.from_batches(self.batches, schema=REJECTED)

    def _pack(self) -> None:
        if self.waiting:
            columns = [list(values) for values in zip(*self.waiting, strict=True)]
            self.batches.append(pa.record_batch(columns, schema=REJECTED))
            self.waiting = []
