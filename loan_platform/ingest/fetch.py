"""Brings a source to this machine: files that lie here, object storage, a PostgreSQL database.

Here: what leads to files that lie still while they are read. Not here: which book is a
portfolio's (`source`), what stands in the files (`reading`).
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from loan_platform.contract.portfolio import Source
from loan_platform.contract.sql import quoted
from loan_platform.engine.home import data_directories
from loan_platform.ingest.source import (
    OBJECT_STORAGE,
    VARIABLE,
    MissingFile,
    SourceError,
    files_at,
    path_of,
    unset_variables,
)

if TYPE_CHECKING:
    import psycopg2.extensions
    import pyarrow.fs

CONNECT_TIMEOUT_SECONDS = 10
COPY_BYTES = 1 << 20
ROW = "_row"  # the column of a migrated table that keeps the order of its file; no part of the book


@contextmanager
def fetched(source: Source, month: str | None = None) -> Iterator[list[Path]]:
    """Give the files of a source, in order, for as long as they are read.

    A relative path is looked for in `LOAN_DATA_DIR`, then in the working directory. What comes
    from elsewhere lies in a temporary folder (`TMPDIR`) of this user alone until the context ends.

    Raises:
        MissingFile: there is no such file.
        SourceError: it cannot be brought here; or, at the end, a file was replaced meanwhile.
        ValueError: a source with a file a month, and no `month`.
    """
    if source.one_file_a_partition and month is None:
        raise ValueError("a source with a file a month is opened one month at a time")
    if source.path is None:
        with _temporary() as folder:
            yield [_copied_out(source, folder / "rows.csv")]
    elif source.path.startswith(OBJECT_STORAGE):
        with _temporary() as folder:
            yield _downloaded(_of_month(source.path, month), folder)
    else:
        path = _of_month(path_of(source, [*data_directories(), Path.cwd()]), month)
        with _unchanged(files_at(path), path, month) as files:
            yield files


@contextmanager
def connected(url: str, what: str) -> Iterator[psycopg2.extensions.connection]:
    """A connection to the PostgreSQL database of a URL; `what` is done with it, for the message.

    `${NAME}` in the URL stands for that environment variable.

    Raises:
        SourceError: a variable is not set, there is no connection, it is lost, or the database
            refuses. Its message holds neither the password nor a row.
    """
    import psycopg2
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if unset := [name for name in VARIABLE.findall(url) if name not in os.environ]:
        raise SourceError(
            f"{what}: the URL needs the environment variable {', '.join(unset)}, which is not set."
            " Set it where this runs."
        )
    try:
        address = make_url(VARIABLE.sub(lambda name: os.environ[name[1]], url))
    except (ArgumentError, ValueError):
        address = None
    if address is None or address.get_backend_name() != "postgresql":
        raise SourceError(
            f"{what}: the URL is not one of a PostgreSQL database. Write "
            "postgresql://user@host/database; in a ${VARIABLE}, write special characters of a "
            "password as %40 (for @) and so on."
        )
    place = f"{address.host or address.query.get('host') or 'localhost'}/{address.database or ''}"
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = None
    try:
        connection = psycopg2.connect(plain, connect_timeout=CONNECT_TIMEOUT_SECONDS)
        yield connection
    except psycopg2.Error as error:
        # The details of an error may hold a row; its first line does not.
        said = error.diag.message_primary or str(error).strip().split("\n")[0]
        if connection is None:
            mend = "Check that the server runs, and the user, password and database of the URL."
        elif connection.closed:
            mend = "The connection was lost; nothing of it is kept. Run it again."
        else:
            mend = "Check the table or query, and what the user may do there."
        raise SourceError(f"{what} at {place}: {said.rstrip('.')}. {mend}") from None
    finally:
        if connection is not None:
            connection.close()


def table_name(name: str) -> str:
    """`loans` or `schema.loans`, quoted for SQL.

    Raises:
        SourceError: it is neither.
    """
    parts = name.split(".")
    if len(parts) > 2 or not all(parts) or any("\0" in p or len(p.encode()) > 63 for p in parts):
        raise SourceError(
            f"{name!r} is no name of a table. Write table or schema.table, neither over 63 bytes."
        )
    return ".".join(quoted(part) for part in parts)


def _of_month(path: str, month: str | None) -> str:
    return path.replace("{partition}", month) if month else path


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="loan_platform_") as folder:  # made with 0700
        yield Path(folder)


@contextmanager
def _unchanged(files: list[Path], path: str, month: str | None) -> Iterator[list[Path]]:
    """Give files, and raise if one of them is another at the end."""
    if not files:
        raise MissingFile(
            f"the file of {month}", [path], "Put it there and materialize the month again."
        )
    before = [_mark(file) for file in files]
    try:
        yield files
    finally:  # also where reading failed: that it was replaced is the better reason
        for file, mark in zip(files, before, strict=True):
            if _mark(file) != mark:
                raise SourceError(f"{file} was replaced while it was read; materialize again.")


def _mark(file: Path) -> tuple[int, int, int] | None:
    """Size, time of change and inode: a file that was replaced or added to has others."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


# Object storage


def _downloaded(url: str, folder: Path) -> list[Path]:
    """Copies of the objects of `s3://bucket/key`, or of those a glob means, in order of keys.

    The endpoint is that of `?endpoint_override=`, else of `AWS_ENDPOINT_URL`, else Amazon's.
    """
    address, wanted = url.removeprefix(OBJECT_STORAGE), url
    query = ""
    if "?" in address and "=" in address.rpartition("?")[2]:
        address, _, query = address.rpartition("?")
        wanted = OBJECT_STORAGE + address
    try:
        storage = _object_storage(query)
        found = _objects(storage, address)
        if not found:
            raise MissingFile(
                f"object {wanted}", [wanted], "Check bucket and key, or put the object there."
            )
        files = []
        for index, info in enumerate(found):
            file = folder / str(index) / info.base_name
            file.parent.mkdir()
            _download(storage, info, file)
            files.append(file)
    except OSError as error:
        said = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"{wanted} cannot be read: {said}. Check the endpoint (AWS_ENDPOINT_URL or "
            "?endpoint_override=), AWS_REGION, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from None
    return files


def _object_storage(query: str) -> pyarrow.fs.S3FileSystem:
    from pyarrow import fs

    options: dict[str, Any] = {name: values[0] for name, values in parse_qs(query).items()}
    if unknown := set(options) - {"endpoint_override", "scheme", "region"}:
        raise SourceError(
            f"the s3:// address has the unknown option {', '.join(sorted(unknown))}; it may have "
            "endpoint_override, scheme and region. Credentials come from the environment."
        )
    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, found, host = endpoint.rpartition("://")
        options["endpoint_override"] = host.rstrip("/")
        options.setdefault("scheme", scheme if found else "https")
    return fs.S3FileSystem(
        **options,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _objects(storage: pyarrow.fs.S3FileSystem, address: str) -> list[pyarrow.fs.FileInfo]:
    from pyarrow import fs

    literal = storage.get_file_info(address)
    if literal.type == fs.FileType.File:
        return [literal]
    parts = PurePosixPath(address).parts
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    if fixed in (0, len(parts)):
        return []
    below = fs.FileSelector("/".join(parts[:fixed]), recursive=True, allow_not_found=True)
    found = [
        info
        for info in storage.get_file_info(below)
        if info.type == fs.FileType.File and _means(parts, PurePosixPath(info.path).parts)
    ]
    return sorted(found, key=lambda info: info.path)


def _means(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """Whether a glob means a key; a star does not reach over a slash."""
    return len(pattern) == len(key) and all(map(fnmatch.fnmatchcase, key, pattern))


def _download(storage: pyarrow.fs.S3FileSystem, info: pyarrow.fs.FileInfo, file: Path) -> None:
    # Without compression=None a .gz would arrive unpacked.
    file.touch(mode=0o600)
    with storage.open_input_stream(info.path, compression=None) as stream, file.open("wb") as out:
        shutil.copyfileobj(stream, out, COPY_BYTES)
    now = storage.get_file_info(info.path)
    if (now.size, now.mtime) != (info.size, info.mtime) or file.stat().st_size != info.size:
        raise SourceError(
            f"{OBJECT_STORAGE}{info.path} was replaced while it was read; materialize again."
        )


# PostgreSQL


def _copied_out(source: Source, file: Path) -> Path:
    """The rows of a table or query, as of one moment, as a CSV file."""
    assert source.url is not None
    if unset := unset_variables(source):
        raise SourceError(
            f"{source.name}: source.url needs the environment variable {', '.join(unset)}, which "
            "is not set. Set it where this runs."
        )
    if not (source.table or source.query):
        raise SourceError("a database needs the table or the query to read. Give one of the two.")
    with connected(source.url, source.name) as connection:
        connection.set_client_encoding("UTF8")
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        file.touch(mode=0o600)
        with connection.cursor() as cursor, file.open("wb") as out:
            # One process reads from the table's beginning: rows without a key keep their order.
            cursor.execute(
                "SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather "
                "= 0; SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'"
            )
            chosen = (source.query or "").strip().rstrip(";") or _whole_table(cursor, source.table)
            text = f"COPY (\n{chosen}\n) TO STDOUT WITH (FORMAT csv, HEADER, DELIMITER "
            cursor.copy_expert(f"{text}E'\\x{ord(source.delimiter):x}')", out, COPY_BYTES)
    return file


def _whole_table(cursor: psycopg2.extensions.cursor, table: str | None) -> str:
    """A SELECT of all rows of a table, ordered by its primary key where it has one."""
    assert table is not None
    name = table_name(table)
    cursor.execute("SELECT to_regclass(%s)::oid", (name,))
    (number,) = cursor.fetchone() or (None,)
    if number is None:
        cursor.execute(
            "SELECT CASE WHEN schemaname = ANY (current_schemas(false)) THEN tablename "
            "ELSE schemaname || '.' || tablename END FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        near = difflib.get_close_matches(table, [row[0] for row in cursor.fetchall()], n=1)
        raise SourceError(
            f"there is no table {table} in the database"
            + (f"; did you mean {near[0]}?" if near else ". Check its name and schema.")
        )
    cursor.execute(
        "SELECT attname, array_position(indkey::int[], attnum::int) FROM pg_attribute "
        "LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary "
        "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (number,),
    )
    columns = cursor.fetchall()
    key = sorted((place, column) for column, place in columns if place is not None)
    shown = ", ".join(quoted(column) for column, _ in columns if column != ROW)
    order = ", ".join(quoted(column) for _, column in key)
    return f"SELECT {shown} FROM {name}" + (f" ORDER BY {order}" if order else "")
