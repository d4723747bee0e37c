"""The decision log keeps what it acknowledged, whatever happens to its writer."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from loan_platform.decisions import Decision, DecisionLog, read_decisions
from loan_platform.decisions.database import decisions
from loan_platform.engine.home import Home

APPLIED = dt.datetime(2025, 3, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)


def decision(number: int, applied_at: dt.datetime = APPLIED) -> Decision:
    return Decision(
        decision_id=uuid.uuid4().hex,
        application_id=f"a-{number}",
        applied_at=applied_at,
        decided_at=APPLIED + dt.timedelta(seconds=number),
        model_version="3",
        contract_hash="c" * 12,
        policy_hash="p" * 12,
        probability_default=number / 7,
        label=number % 2,
        decision="refer",
        inputs='{"person_age": 31, "person_emp_length": null}',
        reasons='[{"column": "person_age", "text": "Age: 31 years"}]',
    )


def test_what_is_read_is_what_was_written(store: Home) -> None:
    written = [decision(number) for number in range(5)]
    DecisionLog(store, "book", worker=1).append(written)
    read = read_decisions(store, "book").to_pylist()
    assert read == [asdict(one) for one in written]


def test_reading_unites_the_workers(store: Home) -> None:
    logs = [DecisionLog(store, "book", worker) for worker in (1, 2, 3)]
    for number, log in enumerate(logs):
        log.append([decision(number)])
    ids = read_decisions(store, "book")["application_id"].to_pylist()
    assert ids == ["a-0", "a-1", "a-2"]


def test_a_month_holds_what_was_applied_for_in_it(store: Home) -> None:
    april = APPLIED + dt.timedelta(microseconds=1)
    # 01:30 in Berlin on the first of April is still March in UTC.
    berlin = dt.datetime(2025, 4, 1, 1, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    DecisionLog(store, "book", worker=1).append(
        [decision(1), decision(2, april), decision(3, berlin)]
    )
    march = read_decisions(store, "book", "2025-03")["application_id"].to_pylist()
    assert march == ["a-1", "a-3"]
    assert read_decisions(store, "book", "2025-04")["application_id"].to_pylist() == ["a-2"]
    assert read_decisions(store, "book", "2025-05").num_rows == 0


def test_portfolios_are_kept_apart(store: Home) -> None:
    DecisionLog(store, "cars", worker=1).append([decision(1)])
    assert read_decisions(store, "homes").num_rows == 0
    assert read_decisions(store, "cars").num_rows == 1


def test_a_batch_is_written_whole_or_not_at_all(store: Home) -> None:
    log = DecisionLog(store, "book", worker=1)
    first = decision(1)
    log.append([first])
    with pytest.raises(sa.exc.IntegrityError):
        log.append([decision(2), first])
    assert read_decisions(store, "book")["application_id"].to_pylist() == ["a-1"]


def test_a_failing_write_does_not_show_what_it_held(store: Home) -> None:
    log = DecisionLog(store, "book", worker=1)
    planted = replace(decision(1), inputs='{"person_income": 987654321}')
    log.append([planted])
    with pytest.raises(sa.exc.IntegrityError) as failure:
        log.append([planted])
    assert "987654321" not in str(failure.value)


def test_workers_may_start_at_the_same_moment(store: Home) -> None:
    failures: list[Exception] = []

    def work(worker: int) -> None:
        try:
            DecisionLog(store, "book", worker).append([decision(worker)])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert read_decisions(store, "book").num_rows == 6


def older(store: Home) -> DecisionLog:
    """A log with one decision, as it lay before decisions kept their reasons."""
    log = DecisionLog(store, "book", worker=1)
    log.append([decision(1)])
    with log._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE decisions DROP COLUMN reasons")
    return log


def test_a_log_of_an_older_version_is_read_and_gains_its_column(store: Home) -> None:
    older(store).close()
    [before] = read_decisions(store, "book").to_pylist()
    assert before == asdict(decision(1)) | {
        "decision_id": before["decision_id"],
        "reasons": None,
    }
    DecisionLog(store, "book", worker=1).append([decision(2)])
    told = read_decisions(store, "book")["reasons"].to_pylist()
    assert told == [None, decision(2).reasons]


def test_a_log_of_an_older_version_is_written_at_once(store: Home) -> None:
    older(store).close()
    DecisionLog(store, "book", worker=1).append([decision(2)])
    assert read_decisions(store, "book")["reasons"].to_pylist() == [None, decision(2).reasons]


def test_an_older_version_goes_on_writing_beside_a_newer_one(store: Home) -> None:
    log = older(store)
    read_decisions(store, "book")  # the newer one has been here
    columns = [column for column in decisions.columns if column.name != "reasons"]
    row = {name: value for name, value in asdict(decision(2)).items() if name != "reasons"}
    with log._engine.begin() as connection:
        old = sa.table("decisions", *(sa.column(c.name, c.type) for c in columns))
        connection.execute(sa.insert(old), {**row, "portfolio": "book"})
    assert read_decisions(store, "book")["reasons"].to_pylist() == [None, None]


def test_several_may_meet_an_older_log_at_the_same_moment(store: Home) -> None:
    older(store).close()
    failures: list[Exception] = []
    together = threading.Barrier(6)

    def work(number: int) -> None:
        together.wait()
        try:
            if number % 2:
                DecisionLog(store, "book", worker=1).append([decision(number + 10)])
            else:
                read_decisions(store, "book")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert read_decisions(store, "book").num_rows == 4


def test_reading_nothing_gives_an_empty_table(home: Home) -> None:
    assert read_decisions(home, "book", "2025-03").num_rows == 0
    assert not home.decisions.exists(), "reading must not make files"


def test_sqlite_flushes_every_commit(home: Home) -> None:
    log = DecisionLog(home, "book", worker=1)
    log.append([decision(1)])
    with log._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


WRITER = """
import sys
from pathlib import Path
from loan_platform.decisions import DecisionLog
from loan_platform.engine.home import Home
from loan_platform_tests.decisions.test_log import decision

log = DecisionLog(Home.at(Path(sys.argv[1])), "book", worker=1)
for number in range(100_000):
    batch = [decision(number)]
    log.append(batch)
    print(batch[0].decision_id, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_acknowledged(home: Home) -> None:
    project = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home.root)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project)},
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read()  # communicate() would pass over what readline() read ahead
    assert writer.wait(timeout=20) == -signal.SIGKILL
    acknowledged += [line for line in rest.splitlines() if len(line) == 32]
    kept = set(read_decisions(home, "book")["decision_id"].to_pylist())
    assert set(acknowledged) <= kept
    # The one being written when the signal came may be there unacknowledged, no more.
    assert len(kept) - len(acknowledged) <= 1
