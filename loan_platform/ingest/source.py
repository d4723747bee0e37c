"""Where a portfolio's book lies: the lender's, or a stand-in drawn for want of it.

Here: finding it. Not here: bringing it to this machine (`fetch`), reading files (`reading`),
staging rows (`staging`).
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source
from loan_platform.engine.home import Home, data_directories

VARIABLE = re.compile(r"\$\{(\w+)\}")
OBJECT_STORAGE = "s3://"


class SourceError(Exception):
    """The book cannot be found or read: says which file, where it was looked for, what to do."""


class MissingFile(SourceError):
    """Nothing lies where the source points; of a month that is not over it may still come.

    `looked_at`: every place it was looked for, for people to read.
    """

    def __init__(self, what: str, looked_at: list[str], mend: str) -> None:
        self.looked_at = ", ".join(looked_at)
        super().__init__(f"{what} is missing; looked at {self.looked_at}. {mend}")


@dataclass(frozen=True)
class Location:
    """Where the book lies. `simulated`: it is a stand-in drawn from the contract's figures."""

    source: Source
    simulated: bool

    @classmethod
    def of_file(cls, path: Path, *, simulated: bool = False) -> Location:
        return cls(Source(path=str(path)), simulated)


def source_at(where: str, table: str | None = None, query: str | None = None) -> Source:
    """A source as a person names it: a path, object storage, or a database's URL."""
    database = where.startswith(("postgresql://", "postgresql+psycopg2://"))
    return Source(**{"url" if database else "path": where}, table=table, query=query)


def locate(contract: Contract, home: Home) -> Location:
    """Find the book, or draw the stand-in where none is configured.

    Raises:
        SourceError: the file is not where it was looked for.
    """
    source = book_of(contract)
    if source is not None:
        return Location(source, simulated=False)
    drawn = stand_in_path(contract, home)
    if not drawn.is_file():
        from loan_platform.ingest.simulate import write_simulated

        write_simulated(contract, drawn)
    return Location.of_file(drawn, simulated=True)


def book_of(contract: Contract) -> Source | None:
    """The lender's book, a relative path made absolute; None where a stand-in is drawn for it.

    A stand-in is drawn where the path is relative and no data folder is set, and where the URL
    names an environment variable that is not set. Whether object storage or a database answers is
    not asked here.

    Raises:
        SourceError: the file is not where it was looked for, or cannot be looked for.
    """
    source = contract.source
    if unset := unset_variables(source):
        if contract.simulation is not None:
            return None
        raise SourceError(
            f"{contract.name}: {', '.join(unset)} of source.url is not set, and the contract has "
            "no simulation: section to draw a stand-in from. Set the environment variable."
        )
    if source.path is None or source.path.startswith(OBJECT_STORAGE):
        return source
    wanted = Path(source.path).expanduser()
    directories = data_directories()
    if not wanted.is_absolute() and not directories:
        if contract.simulation is not None:
            return None
        raise SourceError(
            f"{contract.name}: the book {wanted} cannot be looked for: LOAN_DATA_DIR is not set, "
            "and the contract has no simulation: section to draw a stand-in from. Set "
            "LOAN_DATA_DIR to the folder that holds it, or give source.path as an absolute path."
        )
    try:
        return source.model_copy(update={"path": path_of(source, directories)})
    except MissingFile as missing:
        raise SourceError(f"{contract.name}: {missing}") from None


def unset_variables(source: Source) -> list[str]:
    """Environment variables that the URL names and that are not set."""
    return [name for name in VARIABLE.findall(source.url or "") if name not in os.environ]


def path_of(source: Source, directories: list[Path]) -> str:
    """The absolute path or glob of files, the first of `directories` / path at which there is one.

    Raises:
        MissingFile: there is none.
    """
    assert source.path is not None
    wanted = Path(source.path).expanduser()
    places = [wanted] if wanted.is_absolute() else [folder / wanted for folder in directories]
    candidates = [str(place) for place in places]
    for candidate in candidates:
        if source.one_file_a_partition:
            if Path(candidate.split("{partition}")[0] + "_").parent.is_dir():
                return candidate
        elif files_at(candidate):
            return candidate
    raise MissingFile(
        f"data file {source.path}",
        candidates,
        "Put the file there, or set LOAN_DATA_DIR to the folder that holds it.",
    )


def files_at(path: str) -> list[Path]:
    """The file of that very name, or the files a glob means, in the order of their names."""
    if Path(path).is_file():
        return [Path(path)]
    return sorted(file for file in map(Path, glob.glob(path)) if file.is_file())  # noqa: PTH207


def stand_in_path(contract: Contract, home: Home) -> Path:
    """Where the stand-in book lies; a contract that would draw another one has another file."""
    drawn_from = contract.model_dump_json(include={"simulation", "columns", "outcome", "time"})
    digest = hashlib.sha256(drawn_from.encode()).hexdigest()[:12]
    return home.portfolio(contract.name) / "simulated" / f"book-{digest}.csv.gz"
