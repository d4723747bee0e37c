"""What a training as of some moment knows: the words of that moment, never a later one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from loan_platform.decisions.outcomes import SCHEMA
from loan_platform.engine.files import write_parquet
from loan_platform.training import TrainingError
from loan_platform.training.rows import known_rows
from loan_platform.training.train import train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import FEW_TREES

CONTRACT = home_loans.contract()
FIRST = dt.datetime(2024, 10, 15, tzinfo=dt.UTC)
AS_OF = dt.datetime(2024, 11, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2024, 11, 15, tzinfo=dt.UTC)
END = dt.datetime(2024, 12, 1, tzinfo=dt.UTC)

Word = tuple[str, int, dt.datetime, str]


def history(file: Path, words: list[Word]) -> Path:
    """Every word on every loan, as the asset outcomes keeps them; each recorded as it was known."""
    names = ("application_id", "outcome", "known_at", "source")
    rows = [{**dict(zip(names, word, strict=True)), "recorded_at": word[2]} for word in words]
    write_parquet(pa.Table.from_pylist(rows, SCHEMA), file)
    return file


def test_a_correction_learnt_later_changes_nothing_about_an_earlier_training(
    months: dict[str, Path], tmp_path: Path
) -> None:
    """The correction is planted so that it would help: it follows from one column."""
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    ids, then = table["application_id"].to_pylist(), table["outcome"].to_pylist()
    ratio = table["debt-ratio"].to_pylist()
    middle = pc.quantile(table["debt-ratio"])[0].as_py()
    first: list[Word] = [(i, word, FIRST, "lender") for i, word in zip(ids, then, strict=True)]
    # One in eight the other way round: a column that gave the outcome away would be refused.
    planted: list[Word] = [
        (i, int((value > middle) != (int(i[-5:]) % 8 == 0)), LATER, "bureau")
        for i, value in zip(ids, ratio, strict=True)
    ]
    known = history(tmp_path / "known.parquet", first)
    both = history(tmp_path / "both.parquet", [*first, *planted])

    honest = train(CONTRACT, months, AS_OF, reported=known, recipe=FEW_TREES).bundle
    asked = train(CONTRACT, months, AS_OF, reported=both, recipe=FEW_TREES).bundle
    assert asked.scorer.dump() == honest.scorer.dump()
    assert asked.record.data_hash == honest.record.data_hash
    assert asked.record.metrics == honest.record.metrics
    helped = train(CONTRACT, months, END, reported=both, recipe=FEW_TREES).bundle.record.metrics[
        "auc"
    ]
    assert helped > honest.record.metrics["auc"] + 0.08


def test_the_word_known_last_by_then_counts_whatever_the_cleaned_row_has(
    months: dict[str, Path], tmp_path: Path
) -> None:
    table = pq.read_table(months["2024-01"]).slice(0, 4)
    never, only_later, corrected, recalled = table["application_id"].to_pylist()
    own = table["outcome"].to_pylist()
    words = history(
        tmp_path / "words.parquet",
        [
            (only_later, 1 - own[1], LATER, "lender"),
            (corrected, own[2], FIRST, "lender"),
            (corrected, 1 - own[2], AS_OF, "bureau"),
            (corrected, own[2], LATER, "lender"),
            (recalled, 1 - own[3], FIRST, "lender"),
            ("nobody's", 1, FIRST, "lender"),
        ],
    )

    def found(as_of: dt.datetime) -> dict[str, int]:
        rows = known_rows(CONTRACT, {"2024-01": months["2024-01"]}, as_of, reported=words)
        assert "nobody's" not in rows.application_id
        return dict(zip(rows.application_id.tolist(), rows.outcome.tolist(), strict=True))

    at = found(AS_OF)
    assert at[never] == own[0], "nothing was reported: the book's own word"
    assert only_later not in at, "nobody knew it yet, whatever the book came to say"
    assert at[corrected] == 1 - own[2], "the correction known that very moment"
    assert at[recalled] == 1 - own[3]
    before, end = found(AS_OF - dt.timedelta(microseconds=1)), found(END)
    assert before[corrected] == own[2]
    assert (end[only_later], end[corrected]) == (1 - own[1], own[2])
    # As of a moment before any report no reported loan is known.
    early = found(dt.datetime(2024, 9, 1, tzinfo=dt.UTC))
    assert never in early
    assert not {only_later, corrected, recalled} & set(early)


def test_a_models_word_among_the_reports_is_refused(
    months: dict[str, Path], tmp_path: Path
) -> None:
    """However it came into the database: a service that reports itself would teach itself."""
    loan = pq.read_table(months["2024-01"])["application_id"][0].as_py()
    words = history(tmp_path / "words.parquet", [(loan, 1, FIRST, "champion_model")])
    with pytest.raises(TrainingError, match="1 rows of home_loans have an outcome made by a model"):
        known_rows(CONTRACT, months, AS_OF, reported=words)
    assert len(known_rows(CONTRACT, months, FIRST - dt.timedelta(days=1), reported=words)) > 0
