"""The real credit_risk file: every row accounted for, with the reasons people know it for."""

from pathlib import Path

import pytest

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform_tests.ingest.taking_in import take_in


@pytest.mark.slow
def test_every_row_is_accepted_or_quarantined_with_its_reason(
    credit_risk: Contract, real_data: Path, home: Home
):
    taken = take_in(credit_risk, home)
    assert list(taken.admissions) == [f"{y}-{m:02d}" for y in (2024, 2025) for m in range(1, 13)]
    assert (taken.rows, len(taken.accepted), len(taken.quarantined)) == (32_581, 32_409, 172)
    assert taken.reasons == {
        "duplicate": 165,
        "person_age: above 100": 5,
        "employed_longer_than_alive: employment is longer than life": 2,
    }
    named = [row["_reason"] for row in taken.quarantined if "duplicate" in row["_reason"]]
    assert len(named) == 165
    assert all(reason.startswith("duplicate of row ") for reason in named)
    assert len({row["application_id"] for row in taken.accepted}) == 32_409
    assert all(row["outcome"] in (0, 1) for row in taken.accepted)
