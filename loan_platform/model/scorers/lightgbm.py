"""LightGBM's boosters, in LightGBM's own text. Here: asking one. Not here: growing one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from loan_platform.model.scorers import ScorerError, refuse_other_width, shares

if TYPE_CHECKING:
    from lightgbm import Booster


@dataclass(frozen=True)
class LightGBM:
    """A booster of objective `binary`. Contributions are its TreeSHAP values, which are exact."""

    text: str

    kind: ClassVar[str] = "lightgbm"
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)

    @cached_property
    def _booster(self) -> Booster:
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        return self._asked(matrix, threads, raw_score=True)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        return self._asked(matrix, 1, pred_contrib=True)

    def _asked(self, matrix: np.ndarray, threads: int, **what: bool) -> np.ndarray:
        return np.asarray(self._booster.predict(matrix, num_threads=threads, **what))

    def importance(self) -> np.ndarray:
        """Share of the loss that splits on each input took away."""
        return shares(np.asarray(self._booster.feature_importance("gain")))

    def dump(self) -> bytes:
        return self.text.encode()

    @classmethod
    def read(cls, content: bytes, inputs: int) -> LightGBM:
        from lightgbm.basic import LightGBMError

        try:
            scorer = cls(content.decode())
            _refuse_damaged(scorer.text)
            found = scorer._booster.num_feature()
        except (UnicodeDecodeError, LightGBMError) as error:
            raise ScorerError(f"LightGBM cannot read it ({type(error).__name__})") from None
        refuse_other_width(found, inputs)
        return scorer


def _refuse_damaged(text: str) -> None:
    """LightGBM ends the process where the trees of a text are not as long as its head says."""
    sizes = re.search(r"^tree_sizes=([\d ]*)$", text, re.MULTILINE)
    first, end = text.find("\nTree=0\n") + 1, text.find("\nend of trees\n") + 1
    if not (sizes and 0 < first < end and sum(map(int, sizes[1].split())) == end - first):
        raise ScorerError("it is no whole text of LightGBM")
