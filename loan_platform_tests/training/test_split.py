from __future__ import annotations

import hashlib

import numpy as np

from loan_platform.training.split import PARTS, part


def ids(count: int) -> list[str]:
    return [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(count)]


def test_shares_are_60_10_10_20() -> None:
    names, counts = np.unique(part(ids(50_000)), return_counts=True)
    shares = dict(zip(names.tolist(), counts / 50_000, strict=True))
    for name, share in {"fit": 0.6, "calibrate": 0.1, "threshold": 0.1, "judge": 0.2}.items():
        assert abs(shares[name] - share) < 0.01


def test_a_row_keeps_its_part_when_rows_are_added_or_reordered() -> None:
    few, many = ids(200), ids(1000)[::-1]
    assert (
        dict(zip(few, part(few), strict=True)).items()
        <= dict(zip(many, part(many), strict=True)).items()
    )


def test_parts_are_the_same_on_every_machine_and_release() -> None:
    pinned = {"a": "fit", "c": "threshold", "H-00003": "calibrate", "H-00006": "judge"}
    assert part(pinned).tolist() == list(pinned.values())


def test_copies_of_a_row_have_its_part_and_other_ids_their_own() -> None:
    ids = [f"ACME#{number:05d}" for number in range(1000)]
    assert (part(ids) == part([f"{one}#copy-2" for one in ids])).all()
    assert set(part(ids)) == set(PARTS)
