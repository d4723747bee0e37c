from __future__ import annotations

import numpy as np
import pytest

from loan_platform.contract import Contract
from loan_platform.training.profit import profit_if_approved
from loan_platform.training.rows import Rows
from loan_platform_tests import club_loans, home_loans
from loan_platform_tests.training.books import made_rows


def with_terms(**terms: object) -> Contract:
    return club_loans.contract(policy={"profit": {"amount": "amount", **terms}})


def rows_of(amount: list[float], rate: list[float], outcome: list[int]) -> Rows:
    beside = {"amount": np.array(amount), "rate": np.array(rate)}
    ids = [f"L{number}" for number in range(len(amount))]
    return made_rows(ids, outcome=np.array(outcome), beside=beside)


def test_a_good_loan_earns_its_interest_and_a_bad_one_loses_a_share_of_its_amount() -> None:
    rows = rows_of([1000, 1000, 400], [11.5, 20, 10], [0, 1, 0])
    contract = with_terms(rate="rate", rate_unit="percent", years=2, loss_given_default=0.6)
    assert profit_if_approved(contract, rows) == pytest.approx([230, -600, 80])
    one_rate = with_terms(rate=0.1, loss_given_default=0.25)
    assert profit_if_approved(one_rate, rows) == pytest.approx([100, -250, 40])
    fraction = rows_of([1000, 1000], [0.115, 0.2], [0, 1])
    assert profit_if_approved(with_terms(rate="rate"), fraction) == pytest.approx([115, -600])


def test_a_loan_without_amount_or_rate_is_no_money_and_a_book_without_terms_has_none() -> None:
    contract = with_terms(rate="rate", rate_unit="percent")
    gaps = rows_of([np.nan, 1000, 1000], [10, np.nan, 10], [0, 1, 0])
    assert profit_if_approved(contract, gaps) == pytest.approx([0, 0, 100])
    assert profit_if_approved(contract, gaps.where(np.array([True, True, False]))) is None
    assert profit_if_approved(home_loans.contract(), gaps) is None
