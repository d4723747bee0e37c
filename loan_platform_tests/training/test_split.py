from __future__ import annotations

import hashlib

import numpy as np

from loan_platform.contract import Contract
from loan_platform.training.rows import Rows
from loan_platform.training.split import PARTS, own_part, part, plan
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import made_rows


def ids(count: int) -> list[str]:
    return [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(count)]


def test_shares_are_60_10_10_20() -> None:
    names, counts = np.unique(part(made_rows(ids(50_000))), return_counts=True)
    shares = dict(zip(names.tolist(), counts / 50_000, strict=True))
    for name, share in {"fit": 0.6, "calibrate": 0.1, "threshold": 0.1, "judge": 0.2}.items():
        assert abs(shares[name] - share) < 0.01


def test_a_row_keeps_its_part_when_rows_are_added() -> None:
    many = made_rows(ids(1000), matrix=np.arange(1000.0)[:, None])
    few = many.where(np.isin(many.application_id, ids(200)))
    parts = [dict(zip(rows.application_id, part(rows), strict=True)) for rows in (few, many)]
    assert parts[0].items() <= parts[1].items()


def test_parts_are_the_same_on_every_machine_and_release() -> None:
    pinned = {"a": "fit", "c": "threshold", "H-00003": "calibrate", "H-00006": "judge"}
    assert own_part(pinned).tolist() == list(pinned.values())


def test_kept_duplicates_have_the_part_of_the_row_and_other_ids_their_own() -> None:
    ids = [f"ACME#{number:05d}" for number in range(1000)]
    assert (own_part(ids) == own_part([f"{one}#copy-2" for one in ids])).all()
    assert set(own_part(ids)) == set(PARTS)


def test_copies_under_other_ids_go_where_the_first_of_them_went() -> None:
    """Every loan is applied for three times, in turns of the ids, with a gap and a signed zero."""
    loans, turn = np.arange(300), np.repeat([0, 1, 2], 300)
    content = np.column_stack([loans, np.where(loans % 7 == 0, np.nan, 0.0)])
    matrix = np.concatenate([content, content * [1, -1], content])
    days = np.datetime64("2024-03-01") - turn * np.timedelta64(31, "D")
    rows = made_rows(ids(900), matrix=matrix, applied_at=days)
    found = dict(zip(rows.application_id, part(rows), strict=True))
    oldest = np.array(ids(900)).reshape(3, 300)[2]
    for number, one in enumerate(ids(900)):
        assert found[one] == own_part([oldest[number % 300]])[0]
    assert len(set(found.values())) == 4

    # Whatever comes later, a copy or not, moves nobody.
    earlier = rows.where(rows.applied_at < np.datetime64("2024-02-15"))
    before = dict(zip(earlier.application_id, part(earlier), strict=True))
    assert before.items() <= found.items()
    assert (part(rows) != own_part(rows.application_id)).mean() > 0.2


def dated(count: int) -> Rows:
    days = np.datetime64("2024-01-10") + np.arange(count) % 240 * np.timedelta64(1, "D")
    return made_rows(ids(count), applied_at=days, outcome=(np.arange(count) % 7 < 2).astype(int))


def test_with_a_time_column_the_past_is_asked_about_the_future() -> None:
    rows = dated(12_000)
    found = plan(home_loans.contract(), rows)
    np.testing.assert_array_equal(found.judge, part(rows) == "judge")
    parts = [found.fit, found.calibrate, found.threshold, found.judge]
    np.testing.assert_array_equal(np.sum(parts, axis=0), np.ones(12_000))  # each row in just one
    spans = [(min(rows.month[mask]), max(rows.month[mask])) for mask in parts[:3]]
    assert spans == [("2024-01", "2024-05"), ("2024-06", "2024-07"), ("2024-08", "2024-09")]
    assert found.since == "2024-08"
    assert found.unseen is not None
    np.testing.assert_array_equal(found.unseen, found.judge & (rows.month >= "2024-08"))
    assert "months before 2024-06, was calibrated on those before 2024-08" in found.notes[0]
    # Later months move the cuts, and no row into the judge part or out of it.
    earlier = rows.where(rows.month < "2024-07")
    np.testing.assert_array_equal(
        plan(home_loans.contract(), earlier).judge, found.judge[rows.month < "2024-07"]
    )


def test_a_short_book_and_one_without_dates_are_split_by_hash_alone(credit_risk: Contract) -> None:
    short, long = dated(3000), dated(12_000)
    for contract, rows, notes in (
        (home_loans.contract(), short, ["too few rows to split by time"]),
        (credit_risk, long, []),
    ):
        found = plan(contract, rows)
        for name in PARTS.tolist():
            np.testing.assert_array_equal(getattr(found, name), part(rows) == name)
        assert (found.unseen, found.since) == (None, None)
        assert len(found.notes) == len(notes)
        assert all(told.startswith(note) for told, note in zip(found.notes, notes, strict=True))


def test_the_plan_tells_of_copies() -> None:
    rows = made_rows(ids(900), matrix=np.repeat(np.arange(300.0), 3)[:, None])
    assert plan(home_loans.contract(), rows).notes[0].startswith("600 rows look like an earlier")
