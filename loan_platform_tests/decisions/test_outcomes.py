"""Outcomes: recorded once, never overwritten, never a model's."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from pydantic import ValidationError

from loan_platform.decisions import (
    Outcome,
    read_outcome_history,
    read_outcomes,
    record_outcomes,
)
from loan_platform.engine.home import Home

KNOWN = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)


def outcome(application: str, value: int, days: int = 0, source: str = "lender") -> Outcome:
    return Outcome.model_validate(
        {
            "application_id": application,
            "outcome": value,
            "known_at": KNOWN + dt.timedelta(days=days),
            "source": source,
        }
    )


def test_repeating_an_outcome_changes_nothing(store: Home) -> None:
    batch = [outcome("a", 1), outcome("b", 0)]
    assert record_outcomes(store, "book", batch) == 2
    before = read_outcome_history(store, "book")
    assert record_outcomes(store, "book", [*batch, *batch, outcome("c", 0)]) == 1
    after = read_outcome_history(store, "book")
    assert after.num_rows == 3
    kept = [row for row in after.to_pylist() if row["application_id"] != "c"]
    assert sorted(map(str, kept)) == sorted(map(str, before.to_pylist()))


def test_the_word_known_last_counts_and_the_other_is_kept(
    store: Home, caplog: pytest.LogCaptureFixture
) -> None:
    record_outcomes(store, "book", [outcome("a", 1, days=9), outcome("b", 0)])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        # It arrives later but was known earlier: the newer word stands.
        assert record_outcomes(store, "book", [outcome("a", 0, days=2)]) == 1
    assert "1 loans have outcomes that contradict" in caplog.text
    read = {row["application_id"]: row for row in read_outcomes(store, "book").to_pylist()}
    assert (read["a"]["outcome"], read["a"]["contradicted"]) == (1, True)
    assert read["a"]["known_at"] == KNOWN + dt.timedelta(days=9)
    assert (read["b"]["outcome"], read["b"]["contradicted"]) == (0, False)
    assert read_outcome_history(store, "book").num_rows == 3


def test_contradicting_at_the_same_moment_keeps_both_and_reads_the_later_recorded(
    store: Home,
) -> None:
    record_outcomes(store, "book", [outcome("a", 1)])
    record_outcomes(store, "book", [outcome("a", 0)])
    [read] = read_outcomes(store, "book").to_pylist()
    assert (read["outcome"], read["contradicted"]) == (0, True)
    assert read_outcome_history(store, "book").num_rows == 2


def test_two_sources_that_agree_are_one_outcome(store: Home) -> None:
    record_outcomes(store, "book", [outcome("a", 1), outcome("a", 1, days=3, source="bureau")])
    [read] = read_outcomes(store, "book").to_pylist()
    assert (read["outcome"], read["source"], read["contradicted"]) == (1, "bureau", False)


@pytest.mark.parametrize("source", ["model", "model_v3", "service", "prediction", "our_champion"])
def test_what_a_model_says_is_no_outcome(source: str) -> None:
    with pytest.raises(ValidationError, match="never what a model says"):
        outcome("a", 1, source=source)


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": 2},
        {"known_at": dt.datetime(2025, 6, 1)},  # noqa: DTZ001
        {"source": ""},
        {"application_id": ""},
        {"note": "unasked for"},
    ],
)
def test_a_malformed_outcome_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Outcome.model_validate(outcome("a", 1).model_dump() | wrong)


def test_nothing_recorded_reads_as_nothing(store: Home) -> None:
    assert record_outcomes(store, "book", []) == 0
    assert read_outcomes(store, "book").num_rows == 0


def test_thousands_in_one_go(store: Home) -> None:
    batch = [outcome(f"a-{number}", number % 2) for number in range(5_000)]
    assert record_outcomes(store, "book", batch) == 5_000
    assert record_outcomes(store, "book", batch) == 0
