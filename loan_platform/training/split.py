"""Which row is for what, decided by its application id; a copy goes where the first of them went.

With time there is a second question: which of the rows that do not judge come first (`plan`).
docs/training.md says why the judge part is by hash all the same.

Here: the four parts, the plan of a training, and folds. Not here: which rows there are (`rows`),
or what is done with the parts (`train`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.portfolio import COPY_MARK
from loan_platform.training.rows import Rows

# Upper ends, in hundredths of the hash's range.
_ENDS = np.array([60, 70, 80, 100])
PARTS = np.array(["fit", "calibrate", "threshold", "judge"])

# A trial by time learns from the months that hold about the first of these shares of the rows, and
# is calibrated on those up to about the second.
CUTS = (0.6, 0.8)
# With fewer rows in a part, what it says is noise, and the hash alone decides.
LEAST_ROWS, LEAST_OF_A_CLASS = 300, 50


@dataclass(frozen=True)
class Plan:
    """Which rows a training uses for what: masks of shape (n,), no row in two of the first four.

    A trial model learns from `fit`; `calibrate` and `threshold` turn its margins into a policy.
    The model learns from `learn`, which is all three, and `judge` measures it. `unseen`: judge rows
    of the months from `since` on, newer than all the trial model learnt from and was calibrated on;
    None where the trial is not by time.
    """

    fit: np.ndarray
    calibrate: np.ndarray
    threshold: np.ndarray
    judge: np.ndarray
    unseen: np.ndarray | None = None
    since: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def learn(self) -> np.ndarray:
        return ~self.judge


def plan(contract: Contract, rows: Rows) -> Plan:
    """Judge by hash; of the others, with a time column, the older fit and the newer set the policy.

    Without one, or with too few rows for it, all four parts are by hash.
    """
    first = first_copies(rows)
    of_part = own_part(rows.application_id)[first]
    by_hash = {str(name): of_part == name for name in PARTS}
    copies = int((first != np.arange(len(rows))).sum())
    alike = f"{copies:,} rows look like an earlier one to a model and went where it went"
    notes = (alike,) if copies else ()
    if contract.time_column is None:
        return Plan(**by_hash, notes=notes)

    middle, since = (_month_after(rows.month, share) for share in CUTS)
    judge, older, newer = by_hash["judge"], rows.month < middle, rows.month >= since
    by_time = {
        "fit": ~judge & older,
        "calibrate": ~judge & ~older & ~newer,
        "threshold": ~judge & newer,
        "unseen": judge & newer,
    }
    short = [name for name, mask in by_time.items() if not _enough(rows.outcome[mask])]
    if short:
        why = (
            f"too few rows to split by time (fewer than {LEAST_ROWS}, or than {LEAST_OF_A_CLASS} "
            f"of an outcome, for {', '.join(short)}): all parts are by hash, and nothing is "
            "measured out of time"
        )
        return Plan(**by_hash, notes=(*notes, why))
    how = (
        f"split by time: a trial model learnt from the months before {middle}, was calibrated on "
        f"those before {since}, and the threshold was chosen on those from then on"
    )
    return Plan(**by_time, judge=judge, since=since, notes=(*notes, how))


def _month_after(month: np.ndarray, share: float) -> str:
    """The month before which the share of the rows nearest to `share` lies."""
    months, rows = np.unique(month.astype(str), return_counts=True)
    before = (np.cumsum(rows) - rows) / len(month)
    return str(months[np.argmin(np.abs(before - share))])


def _enough(outcome: np.ndarray) -> bool:
    bad = int(outcome.sum())
    return len(outcome) >= LEAST_ROWS and min(bad, len(outcome) - bad) >= LEAST_OF_A_CLASS


def part(rows: Rows) -> np.ndarray:
    """'fit' (60 %), 'calibrate' (10 %), 'threshold' (10 %) or 'judge' (20 %) for each row.

    Rows that look the same to a model are copies, and all have the part of the one applied for
    first: nothing a model learnt from judges it under another id. That one keeps its part when
    rows are added after it.
    """
    return np.asarray(own_part(rows.application_id)[first_copies(rows)])


def own_part(application_ids: Iterable[str]) -> np.ndarray:
    """The part of each id by itself, whatever else there is.

    A hash of the id decides, so an application keeps its part when rows are added, in every
    training and on every machine: no version ever learnt from a row that judges another. The
    copies of a row (`duplicates: keep`) have the part of the first.
    """
    hundredths = [_hundredth(application_id) for application_id in application_ids]
    return np.asarray(PARTS[np.searchsorted(_ENDS, hundredths, side="right")])


def first_copies(rows: Rows) -> np.ndarray:
    """For each row the position of the first with the same matrix row, by time and then by id."""
    # Adding 0 turns -0.0 into 0.0, and every NaN is made the same one: equal values, equal bytes.
    plain = np.where(np.isnan(rows.matrix), np.nan, rows.matrix + 0.0)
    contents = np.ascontiguousarray(plain).view(f"S{plain.shape[1] * plain.itemsize}").ravel()
    first: dict[bytes, int] = {}
    found = np.empty(len(rows), dtype=np.int64)
    keys = contents.tolist()
    for position in np.argsort(rows.applied_at, kind="stable").tolist():  # rows lie by id
        found[position] = first.setdefault(keys[position], position)
    return found


def folds(outcome: np.ndarray, copies_of: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each row, 0 to `count` - 1, shape (n,): equal shares of bad and of good loans.

    Rows of one value of `copies_of` are in one fold.
    """
    _, first, which = np.unique(copies_of, return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    fold = np.empty(len(first), dtype=np.int64)
    for label in (0, 1):
        members = random.permutation(np.flatnonzero(outcome[first] == label))
        fold[members] = np.arange(len(members)) % count
    return fold[which]


def _hundredth(application_id: str) -> int:
    # Named, so that the part is independent of the month a replay deals the same id to.
    first = application_id.rpartition(COPY_MARK)[0] or application_id
    digest = hashlib.blake2b(first.encode(), digest_size=8, person=b"training part")
    return int.from_bytes(digest.digest(), "big") % 100
