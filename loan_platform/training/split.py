"""Which row is for what, decided by its application id alone.

Here: the four parts. Not here: which rows there are (`rows`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from loan_platform.contract.portfolio import COPY_MARK

# Upper ends, in hundredths of the hash's range.
_ENDS = np.array([60, 70, 80, 100])
PARTS = np.array(["fit", "calibrate", "threshold", "judge"])


def part(application_ids: Iterable[str]) -> np.ndarray:
    """'fit' (60 %), 'calibrate' (10 %), 'threshold' (10 %) or 'judge' (20 %) for each id.

    A hash of the id decides, so an application keeps its part when rows are added, in every
    training and on every machine: no version ever learnt from a row that judges another. The
    copies of a row (`duplicates: keep`) have the part of the first.
    """
    hundredths = [_hundredth(application_id) for application_id in application_ids]
    return PARTS[np.searchsorted(_ENDS, hundredths, side="right")]


def _hundredth(application_id: str) -> int:
    # Named, so that the part is independent of the month a replay deals the same id to.
    first = application_id.rpartition(COPY_MARK)[0] or application_id
    digest = hashlib.blake2b(first.encode(), digest_size=8, person=b"training part")
    return int.from_bytes(digest.digest(), "big") % 100
