"""How a CSV file is written: what stands between its fields, and its encoding.

Here: a guess from the beginning of a file, for a book that has no contract yet. Not here: reading
a book (`ingest.reading`), which guesses nothing.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import zlib
from pathlib import Path

from loan_platform.contract.portfolio import Source
from loan_platform.ingest.source import SourceError

DELIMITERS = (",", ";", "\t", "|")
HEAD_BYTES = 16 * 2**20
HEAD_LINES = 50


def as_written(source: Source) -> Source:
    """The source with the delimiter and the encoding of its first file, where none were given.

    Raises:
        SourceError: the source cannot be brought here, or its first file cannot be read.
    """
    from loan_platform.ingest.fetch import fetched

    if source.path is None or source.path.endswith(".parquet"):
        return source
    if source.one_file_a_partition:
        source_of_all = {"path": source.path.replace("{partition}", "*")}
    else:
        source_of_all = {}
    with fetched(source.model_copy(update=source_of_all)) as paths:
        if not paths or paths[0].suffix == ".parquet":
            return source
        head = _head(paths[0])
    update: dict[str, str] = {}
    if "encoding" not in source.model_fields_set and not _is_utf8(head):
        update["encoding"] = "latin-1"
    if "delimiter" not in source.model_fields_set:
        delimiter = _delimiter(head.decode(update.get("encoding", "utf-8"), errors="replace"))
        if delimiter != source.delimiter:
            update["delimiter"] = delimiter
    return source.model_copy(update=update)


def _head(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{path} cannot be read: {str(error).rstrip('.')}. Check that the file is complete."
        ) from None


def _is_utf8(head: bytes) -> bool:
    try:
        # Not final: the head may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(text: str) -> str:
    """The character that parts the first lines into the most fields, as many in each."""
    best = (0.0, ",")
    for delimiter in DELIMITERS:
        try:
            lines = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=delimiter)
            widths = [len(fields) for fields in itertools.islice(lines, HEAD_LINES) if fields]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        alike = sum(width == widths[0] for width in widths) / len(widths)
        if alike >= 0.5 and (score := alike * widths[0]) > best[0]:
            best = (score, delimiter)
    return best[1]
