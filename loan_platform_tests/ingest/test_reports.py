"""Reports of outcomes: each row recorded once, or kept aside with the reason; none is lost."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from loan_platform.contract.portfolio import Source
from loan_platform.decisions import Outcome, read_outcome_history, read_outcomes
from loan_platform.engine.home import Home
from loan_platform.ingest import reports
from loan_platform.ingest.reports import take_in
from loan_platform.ingest.source import SourceError
from loan_platform_tests import home_loans

CONTRACT = home_loans.contract()
NAME = CONTRACT.name
HEADER = "application_id,outcome,known_at,source"


def report(path: Path, *lines: str, header: str = HEADER) -> Source:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return Source(path=str(path))


def read(home: Home) -> dict[str, tuple[int, dt.datetime, str]]:
    return {
        row["application_id"]: (row["outcome"], row["known_at"], row["source"])
        for row in read_outcomes(home, NAME).to_pylist()
    }


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]


def test_what_a_report_says_is_recorded_with_its_source_and_time(
    home: Home, tmp_path: Path
) -> None:
    source = report(
        tmp_path / "june.csv",
        "A,defaulted,2024-06-03,",
        "B,paid,2024-06-03T10:00:00+02:00,Credit Bureau",
        " C ,1,2024-06-03 10:00:00Z,court",
        "D,0,2024-06-03 10:00Z,",
        "D,written off,2024-09-01,",
    )
    taken = take_in(CONTRACT, home, source, observed_by="Collections Dept.")
    assert (taken.rows, taken.recorded, taken.already_known, taken.refused) == (5, 5, 0, 0)
    assert taken.refused_file is None
    assert read(home) == {
        # A day says no hour: it counts from its end, so that no label is used before it was known.
        "A": (1, utc(2024, 6, 4), "collections_dept"),
        "B": (0, utc(2024, 6, 3, 8), "credit_bureau"),
        "C": (1, utc(2024, 6, 3, 10), "court"),
        "D": (1, utc(2024, 9, 2), "collections_dept"),
    }
    assert read_outcome_history(home, NAME).num_rows == 5, "the corrected word is kept"


def test_the_contracts_own_words_go_before_one_and_zero(home: Home, tmp_path: Path) -> None:
    """In a book where 1 means repaid, 1 in a report means that too."""
    outcome = CONTRACT.outcome.model_copy(update={"bad": ["0"], "good": ["1"]})
    turned = CONTRACT.model_copy(update={"outcome": outcome})
    take_in(turned, home, report(tmp_path / "r.csv", "A,1,2024-06-03,", "B,0,2024-06-03,"))
    assert {name: word for name, (word, _, _) in read(home).items()} == {"A": 0, "B": 1}


TODAY = dt.datetime.now(dt.UTC).date()
AHEAD = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=30)).isoformat()

REFUSED = {
    "X1,open,2024-06-03,": ("outcome", "outcome: neither a good nor a bad outcome"),
    "X2,,2024-06-03,": ("outcome", "outcome: missing"),
    "X3,1,,": ("known_at", "known_at: missing"),
    ",1,2024-06-03,": ("application_id", "application_id: missing"),
    f"{'x' * 201},1,2024-06-03,": ("application_id", "application_id: longer than 200 characters"),
    f"X4,1,{TODAY + dt.timedelta(days=1)},": ("known_at", "known_at: in the future"),
    f"X5,1,{AHEAD},": ("known_at", "known_at: in the future"),
    **{
        f"X6,1,{text},": (
            "known_at",
            "known_at: neither an ISO date nor a time with its zone",
        )
        for text in ("2024-06-03T10:00:00", "03.06.2024", "2024-02-30", "infinity", "1717401600")
    },
    "X7,1,2024-06-03,Model v3": ("source", "source: a model, but an outcome is what was observed"),
    "X8,1,2024-06-03,3rd party": ("source", "source: not a name of at most 40 letters and digits"),
    "X9,maybe,2024-06-03,champion": (
        "outcome source",
        "outcome: neither a good nor a bad outcome; "
        "source: a model, but an outcome is what was observed",
    ),
}


def test_what_cannot_be_recorded_is_kept_as_it_came_with_reason_rule_and_place(
    home: Home, tmp_path: Path
) -> None:
    opposite = "contradictory: another row of the report says the opposite of the same moment"
    good = ["A,paid,2024-06-03,", f"B,paid,{TODAY},", "A,paid,2024-06-03,"]
    both = ["C,paid,2024-06-03,", "C,1,2024-06-03T24:00:00Z,", "C,1,2024-06-03,", "C,1,2024-06-05,"]
    broken = "Z,1,2024-06-03,lender,and,more"
    source = report(tmp_path / "june.csv", *good, *REFUSED, *both, broken)
    taken = take_in(CONTRACT, home, source)
    refused = len(REFUSED) + 3 + 1
    assert taken.rows == len(good) + len(REFUSED) + len(both) + 1
    assert (taken.recorded, taken.already_known, taken.refused) == (3, 1, refused)
    assert taken.reasons[opposite] == 2
    assert set(read(home)) == {"A", "B", "C"}

    assert taken.refused_file is not None
    rows = pq.read_table(taken.refused_file).to_pylist()
    assert len(rows) == refused
    lines = source.path and Path(source.path).read_text().splitlines()
    assert lines
    for row, (line, (rule, reason)) in zip(rows, REFUSED.items(), strict=False):
        assert (row["_rule"], row["_reason"]) == (rule, reason)
        assert lines[row["_row"]] == line, "its number is the record's in the file"
        raw = [row[name] or "" for name in HEADER.split(",")]
        assert ",".join(raw) == line
    assert [row["_rule"] for row in rows[len(REFUSED) :]] == [
        "contradictory",
        "known_at",
        "contradictory",
        "malformed",
    ]
    assert rows[-1]["_line"] == broken
    assert lines[rows[-1]["_line_number"] - 1] == broken

    written = taken.refused_file.read_bytes()
    again = take_in(CONTRACT, home, source)
    assert (again.recorded, again.already_known, again.refused) == (0, 4, refused)
    assert again.refused_file == taken.refused_file
    assert again.refused_file.read_bytes() == written
    # Another delivery under the same name takes nothing of this one away.
    report(tmp_path / "june.csv", "Y,maybe,2024-06-03,")
    assert take_in(CONTRACT, home, source).refused_file != taken.refused_file
    assert taken.refused_file.read_bytes() == written


WORDS = [
    *[
        (text, "lender")
        for text in (
            "2024-06-03",
            "2024-02-29",
            "2023-02-29",
            "9999-12-31",
            "2024-06-03T10:00:00Z",
            "2024-06-03T10:00:00.123456+05:30",
            "2024-06-03T10:00Z",
            "2024-06-03T10:00:00",
            "2024-06-03T24:00:00Z",
            "2024-06-03T10:60:00Z",
            "0000-01-01",
            "0001-01-01T00:00:00+14:00",
            "0001-01-01",
            "2024-6-3",
            "20240603",
            "1717401600",
            str(TODAY),
            str(TODAY + dt.timedelta(days=1)),
            AHEAD,
        )
    ],
    *[
        ("2024-06-03", source)
        for source in ("service", "servicer", "debt_service", "model_2", "our_model", "models")
    ],
]


def test_a_file_and_the_service_read_the_same(home: Home, tmp_path: Path) -> None:
    """The file's rules are SQL, the service's are a model: what one refuses, the other refuses."""
    expected: dict[str, tuple[int, dt.datetime, str]] = {}
    for number, (known_at, source) in enumerate(WORDS):
        sent = {"application_id": f"A-{number}", "outcome": 1, "known_at": known_at}
        with contextlib.suppress(ValidationError):
            one = Outcome.model_validate({**sent, "source": source})
            expected[one.application_id] = (1, one.known_at, source)
    assert len(expected) == 8
    lines = [f"A-{n},1,{known_at},{source}" for n, (known_at, source) in enumerate(WORDS)]
    take_in(CONTRACT, home, report(tmp_path / "r.csv", *lines))
    assert read(home) == expected


def test_many_rows_are_recorded_in_batches(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "ROWS_AT_ONCE", 700)
    path = tmp_path / "many.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("known_at,application_id,outcome,note\n")
        file.writelines(f"2024-06-03,A-{n},{n % 2},'n' {n}\n" for n in range(2_500))
    taken = take_in(CONTRACT, home, Source(path=str(path)))
    assert (taken.rows, taken.recorded) == (2_500, 2_500)
    assert take_in(CONTRACT, home, Source(path=str(path))).recorded == 0


def test_a_report_that_cannot_be_read_says_what_to_mend(home: Home, tmp_path: Path) -> None:
    lacking = report(tmp_path / "r.csv", "A,1", header="application_id,outcomes")
    with pytest.raises(SourceError, match="no column outcome; outcomes looks like it"):
        take_in(CONTRACT, home, lacking)
    with pytest.raises(SourceError, match=r"gone\.csv"):
        take_in(CONTRACT, home, Source(path=str(tmp_path / "gone.csv")))
    with pytest.raises(SourceError, match="reports do not lie by month"):
        take_in(CONTRACT, home, Source(path=str(tmp_path / "{partition}.csv")))
    whole = gzip.compress(b"application_id,outcome,known_at\n" + b"A,1,2024-06-03\n" * 5000)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.csv\.gz"):
        take_in(CONTRACT, home, Source(path=str(cut)))
    assert read_outcome_history(home, NAME).num_rows == 0


@pytest.mark.slow
def test_a_table_is_a_report_too(home: Home, new_database: Callable[[], str]) -> None:
    """A table of typed columns, and the platform's own database on the same server."""
    url = new_database()
    server = sa.create_engine(url)
    with server.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE collected AS SELECT 'A-' || n AS application_id, "
                "(n % 2)::smallint AS outcome, "
                "timestamptz '2024-06-03 10:00+02' + n * interval '1 hour' AS known_at, "
                "'bureau'::varchar AS source FROM generate_series(0, 99) AS n"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO collected VALUES ('A-x', 7, now(), 'bureau'), ('A-y', 1, NULL, '')"
            )
        )
    server.dispose()
    source = Source(url=url.replace("+psycopg2", ""), table="collected")
    taken = take_in(CONTRACT, home, source)
    assert (taken.rows, taken.recorded, taken.refused) == (102, 100, 2)
    assert read(home)["A-1"] == (1, utc(2024, 6, 3, 9), "bureau")
    assert take_in(CONTRACT, home, source).already_known == 100
