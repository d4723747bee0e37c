"""XGBoost's boosters, in XGBoost's binary JSON. Here: asking one. Not here: growing one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from loan_platform.model.scorers import ScorerError, refuse_other_width, shares


@dataclass(frozen=True)
class XGBoost:
    """A booster of objective `binary:logistic` with native categories.

    Contributions are its TreeSHAP values: exact, in single precision.
    """

    content: bytes

    kind: ClassVar[str] = "xgboost"
    libraries: ClassVar[tuple[str, ...]] = ("xgboost-cpu",)

    @cached_property
    def _booster(self) -> Any:
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(self.content))
        return booster

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        del threads  # more of them only help where many rows are asked for
        margin = self._booster.inplace_predict(matrix, predict_type="margin")
        return np.asarray(margin, dtype=np.float64)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        import xgboost

        rows = xgboost.DMatrix(
            matrix,
            feature_types=self._booster.feature_types,
            enable_categorical=True,
            nthread=1,
        )
        return np.asarray(self._booster.predict(rows, pred_contribs=True), dtype=np.float64)

    def importance(self) -> np.ndarray:
        """Share of the loss that splits on each input took away."""
        gain = self._booster.get_score(importance_type="total_gain")
        inputs = self._booster.num_features()
        return shares(np.array([gain.get(f"f{number}", 0.0) for number in range(inputs)]))

    def dump(self) -> bytes:
        return self.content

    @classmethod
    def read(cls, content: bytes, inputs: int) -> XGBoost:
        from xgboost.core import XGBoostError

        scorer = cls(content)
        # Where the text ends too early, XGBoost may end the process rather than raise.
        if not (content.startswith(b"{") and content.endswith(b"}")):
            raise ScorerError("it is no whole file of XGBoost")
        try:
            found = scorer._booster.num_features()
        except XGBoostError:
            raise ScorerError("XGBoost cannot read it") from None
        refuse_other_width(found, inputs)
        return scorer
