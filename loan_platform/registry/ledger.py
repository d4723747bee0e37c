"""Who moved which alias, when, why and on what evidence: entries nobody can change unseen.

An entry's hash is SHA-256 over its own fields and the hash of the entry before, so an entry that is
changed, taken out or slipped in breaks the chain from there on. The database refuses UPDATE and
DELETE besides, by triggers. A chain alone cannot miss its own end: `Ledger.verify` takes the last
entry known elsewhere (`moves` keeps it as a tag of the registered model) and finds a cut end too.

SQLite: `<state>/decisions/<portfolio>/ledger.db`; with `LOAN_PLATFORM_DECISIONS_URL`: PostgreSQL.

Here: keeping entries, proving them, and what they add up to. Not here: moving an alias (`moves`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa

from loan_platform.decisions import database
from loan_platform.engine.home import Home
from loan_platform.registry.versions import Alias

FILE = "ledger.db"
LOCK_FILE = "ledger_moving.db"
START = "0" * 64  # what the first entry has before it

Event = Literal[
    "proposed",  # a verdict in favour, left to a person
    "refused",  # a verdict against
    "requested",  # by the first of two persons
    "naming",  # the challenger
    "named",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
    "moved_by_hand",  # found so; nobody told the ledger
    "adopted",
    "putting_back",
    "put_back",
    "abandoned",  # a move that was begun and cannot be finished
]

# A move is written down before it is made and again after it: the second word closes the first.
CLOSING: dict[str, Event] = {
    "naming": "named",
    "promoting": "promoted",
    "rolling_back": "rolled_back",
    "putting_back": "put_back",
}


class LedgerError(RuntimeError):
    """The ledger cannot do what was asked: says what and how to mend it."""


@dataclass(frozen=True)
class Entry:
    """One entry as it is stored: `at` in ISO 8601 (UTC), `evidence` as JSON.

    Text, so that what is hashed is what lies in the database, whatever the database.
    """

    seq: int
    portfolio: str
    at: str
    alias: Alias
    event: Event
    from_version: str | None
    to_version: str | None
    by: str
    reason: str
    evidence: str
    previous_hash: str
    hash: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """The evidence, read."""
        read: dict[str, Any] = json.loads(self.evidence)
        return read

    def sealed(self) -> str:
        """The hash this entry must have."""
        fields = {name: value for name, value in asdict(self).items() if name != "hash"}
        return hashlib.sha256(_canonical(fields).encode()).hexdigest()


@dataclass(frozen=True)
class Break:
    """The first entry that is not as it was written, and what is wrong with it."""

    seq: int
    why: str


@dataclass(frozen=True)
class Standing:
    """What entries add up to.

    champion: the version the alias should name. since: the entry that made it so.
    line: champions to go back through, oldest first. intent: a move begun and not closed.
    by_hand: a move by hand that is neither adopted nor put back. request: what waits for a second
    person. verdicts: the last one on each version. withdrawn: versions somebody rolled back from,
    and nobody promoted since. challenger: the entry that says which version that alias names; None
    in a ledger from before challengers were in it.
    """

    champion: str | None = None
    since: Entry | None = None
    line: tuple[str, ...] = ()
    intent: Entry | None = None
    by_hand: Entry | None = None
    request: Entry | None = None
    verdicts: Mapping[str, Entry] = field(default_factory=dict)
    withdrawn: Mapping[str, Entry] = field(default_factory=dict)
    challenger: Entry | None = None

    @property
    def served(self) -> str | None:
        """The version the alias named when it was last looked at."""
        return self.by_hand.to_version if self.by_hand else self.champion


metadata = sa.MetaData()

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("portfolio", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("from_version", sa.Text),
    sa.Column("to_version", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

REFUSAL = "the ledger is append-only"
GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER ledger_no_{what.lower()} BEFORE {what} ON ledger {when} "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        for what, when in (
            ("UPDATE", ""),
            ("DELETE", ""),
            # INSERT OR REPLACE takes a row out without asking a trigger of DELETE.
            (
                "INSERT",
                "WHEN EXISTS (SELECT 1 FROM ledger "
                "WHERE portfolio = NEW.portfolio AND seq = NEW.seq)",
            ),
        )
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION ledger_refuses() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        "CREATE TRIGGER ledger_keeps BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuses()",
    ],
}


@dataclass(frozen=True)
class Ledger:
    """The ledger of one portfolio's aliases."""

    home: Home
    portfolio: str

    def append(
        self,
        event: Event,
        *,
        by: str,
        to_version: str | None,
        from_version: str | None = None,
        reason: str = "",
        evidence: Mapping[str, Any] | None = None,
        alias: Alias = "champion",
    ) -> Entry:
        """Write one entry; it is durable when this returns. Writers at the same time queue up."""
        with self._writing() as connection:
            last = connection.execute(
                sa.select(ledger.c.seq, ledger.c.at, ledger.c.hash)
                .where(ledger.c.portfolio == self.portfolio)
                .order_by(ledger.c.seq.desc())
                .limit(1)
            ).first()
            now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
            entry = Entry(
                seq=last.seq + 1 if last else 1,
                portfolio=self.portfolio,
                at=max(now, last.at) if last else now,  # a clock set back does not undo the order
                alias=alias,
                event=event,
                from_version=from_version,
                to_version=to_version,
                by=_plain(by),
                reason=_plain(reason),
                evidence=_canonical(dict(evidence or {})),
                previous_hash=last.hash if last else START,
            )
            entry = replace(entry, hash=entry.sealed())
            connection.execute(sa.insert(ledger), asdict(entry))
        return entry

    def entries(self, until: dt.datetime | None = None) -> list[Entry]:
        """Entries written by `until` (aware; None: all), oldest first."""
        wanted = sa.select(*(ledger.c[name] for name in Entry.__dataclass_fields__)).where(
            ledger.c.portfolio == self.portfolio
        )
        if until is not None:
            moment = until.astimezone(dt.UTC).isoformat(timespec="microseconds")
            wanted = wanted.where(ledger.c.at <= moment)
        file = self.home.decisions / self.portfolio / FILE
        if not self.home.decisions_url and not file.is_file():
            return []
        with self._connected() as connection:
            if not sa.inspect(connection).has_table(ledger.name):
                return []
            rows = connection.execute(wanted.order_by(ledger.c.seq)).all()
        return [Entry(*row) for row in rows]

    def verify(self, head: tuple[int, str] | None = None) -> Break | None:
        """The first entry that is not as it was written; None: all are.

        `head`: number and hash of an entry as they are known from elsewhere.
        """
        return first_break(self.portfolio, self.entries(), head)

    def standing(self) -> Standing:
        return standing(self.entries())

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Hold this portfolio's aliases: one mover at a time, in whichever process.

        It ends with the process, however that ends.

        Raises:
            LedgerError: another move has been going on for `database.WAIT_SECONDS`.
        """
        with self._connected(LOCK_FILE) as connection:
            try:
                self._lock(connection, "moving")
            except sa.exc.OperationalError as error:
                raise LedgerError(
                    f"another move of {self.portfolio}'s aliases has been going on for "
                    f"{database.WAIT_SECONDS} s; look at loan-platform history {self.portfolio}, "
                    "and try again"
                ) from error
            yield

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that nobody else's entry comes into; the table is there."""
        with self._connected() as connection:
            self._lock(connection, "append")
            if not sa.inspect(connection).has_table(ledger.name):
                ledger.create(connection)
                for guard in GUARDS[connection.dialect.name]:
                    connection.exec_driver_sql(guard)
            yield connection
            connection.commit()

    @contextmanager
    def _connected(self, file: str = FILE) -> Iterator[sa.Connection]:
        if self.home.decisions_url:
            engine = database.server(self.home.decisions_url)
        else:
            engine = database.file(self.home.decisions / self.portfolio / file)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def _lock(self, connection: sa.Connection, what: str) -> None:
        """Lock until the transaction ends."""
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{database.WAIT_SECONDS}s'"))
        # The table is one for all portfolios: who makes it keeps the others out.
        name = f"loan_platform ledger {what} {self.portfolio}"
        if what == "append":
            creator = sa.func.pg_advisory_xact_lock(database.SCHEMA_LOCK)
            connection.execute(sa.select(creator))
        connection.execute(
            sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0)))
        )


def first_break(
    portfolio: str, entries: Iterable[Entry], head: tuple[int, str] | None = None
) -> Break | None:
    """The first entry of a chain that is not as it was written; `head` as in `Ledger.verify`."""
    before, number, known = START, 0, head is None
    for number, entry in enumerate(entries, start=1):
        if entry.seq != number:
            return Break(number, f"entry {number} is missing; entry {entry.seq} stands there")
        if entry.portfolio != portfolio:
            return Break(number, f"entry {number} is of another portfolio")
        if entry.previous_hash != before:
            return Break(number, f"entry {number} does not follow the entry before it")
        if entry.hash != entry.sealed():
            return Break(number, f"entry {number} was changed after it was written")
        if head and number == head[0]:
            if entry.hash != head[1]:
                return Break(number, f"entry {number} is not the one MLflow's tag knows")
            known = True
        before = entry.hash
    if head and not known:
        return Break(number + 1, f"entries {number + 1} to {head[0]} are missing")
    return None


def standing(entries: Sequence[Entry]) -> Standing:
    """What entries (oldest first) add up to."""
    now = Standing()
    for entry in entries:
        now = _after(now, entry)
    return now


def _after(now: Standing, entry: Entry) -> Standing:
    version = entry.to_version
    match entry.event:
        case "proposed" | "refused":
            return replace(now, verdicts={**now.verdicts, str(version): entry})
        case "requested":
            return replace(now, request=entry)
        case "naming" | "promoting" | "rolling_back" | "putting_back":
            return replace(now, intent=entry)
        case "named":
            return replace(now, intent=None, challenger=entry)
        case "moved_by_hand" if entry.alias == "challenger":
            return replace(now, challenger=entry)
        case "moved_by_hand":
            return replace(now, by_hand=entry)
        case "abandoned":
            return replace(now, intent=None)
        case "put_back":
            return replace(now, intent=None, by_hand=None)
        case "rolled_back":
            left = now.served
            withdrawn = {**now.withdrawn, **({left: entry} if left else {})}
            line = now.line
            if version in line:
                line = line[: len(line) - line[::-1].index(version)]
            else:
                line = (*line, str(version))
        case _:  # promoted, adopted
            withdrawn = dict(now.withdrawn)
            line = (*now.line, version) if version else now.line
    withdrawn.pop(str(version), None)
    return replace(
        now,
        champion=version,
        since=entry,
        line=line,
        intent=None,
        by_hand=None,
        request=None,
        withdrawn=withdrawn,
    )


def _canonical(value: object) -> str:
    """JSON with one form for one value; what JSON does not know is written as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _plain(text: str) -> str:
    """Text that every database keeps as it is: one line, nothing that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
