"""What loans earn: the money behind a decision, by the terms of the contract's `policy.profit`.

Here: the money of each loan. Not here: the threshold that earns most (`threshold`), or the
interval of what a policy earns (`evaluate`).
"""

from __future__ import annotations

import numpy as np

from loan_platform.contract import Contract
from loan_platform.training.rows import Rows


def profit_if_approved(contract: Contract, rows: Rows) -> np.ndarray | None:
    """What each loan earns if it is approved, given its outcome, shape (n,), in the book's money.

    A good loan earns amount x yearly rate x years, a bad one costs amount x loss given default.
    0 where the amount or the rate is missing. None where the contract has no terms, or no row
    has both.
    """
    terms = contract.policy.profit
    if terms is None:
        return None
    amount = rows.beside[terms.amount]
    if isinstance(terms.rate, str):
        rate = rows.beside[terms.rate] / (100 if terms.rate_unit == "percent" else 1)
    else:
        rate = np.full(len(rows), terms.rate)
    earned = amount * rate * terms.years
    money = np.where(rows.outcome == 1, -amount * terms.loss_given_default, earned)
    money[np.isnan(amount) | np.isnan(rate)] = np.nan
    return None if np.isnan(money).all() else np.nan_to_num(money)
