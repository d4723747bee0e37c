"""CatBoost's models, in CatBoost's binary format. Here: asking one. Not here: growing one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from loan_platform.model.scorers import ScorerError, refuse_other_width, shares

MOST_CATEGORIES = 4096
# CatBoost takes categories as words. The last one stands for a missing value.
WORDS = np.array([*(b"%d" % code for code in range(MOST_CATEGORIES)), b"missing"], dtype=object)


@dataclass(frozen=True)
class CatBoost:
    """A model of loss `Logloss` whose inputs are named by their column of the matrix: x0, x1, ...

    Contributions are its SHAP values, which are exact.
    """

    content: bytes

    kind: ClassVar[str] = "catboost"
    libraries: ClassVar[tuple[str, ...]] = ("catboost",)

    @cached_property
    def _model(self) -> Any:
        import catboost

        model = catboost.CatBoost()
        model.load_model(blob=self.content, format="cbm")
        return model

    @cached_property
    def _columns(self) -> list[int]:
        """The matrix column of each of the model's inputs, in the model's order."""
        return [int(name[1:]) for name in self._model.feature_names_]

    @cached_property
    def _categorical(self) -> list[int]:
        return [self._columns[at] for at in self._model.get_cat_feature_indices()]

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        rows = features(matrix, self._categorical)
        return np.asarray(
            self._model.predict(rows, prediction_type="RawFormulaVal", thread_count=threads)
        )

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        from catboost import Pool

        rows = Pool(features(matrix, self._categorical))
        found = self._model.get_feature_importance(rows, type="ShapValues", thread_count=1)
        return self._in_order(np.asarray(found))

    def importance(self) -> np.ndarray:
        """Share of each input in how predictions change with it (CatBoost's own measure)."""
        found = self._model.get_feature_importance(type="PredictionValuesChange")
        return shares(self._in_order(np.asarray(found)))

    def _in_order(self, found: np.ndarray) -> np.ndarray:
        """Columns of the model's inputs, put into the matrix's order; what follows stays."""
        ordered = found.copy()
        ordered[..., self._columns] = found[..., : len(self._columns)]
        return ordered

    def dump(self) -> bytes:
        return self.content

    @classmethod
    def read(cls, content: bytes, inputs: int) -> CatBoost:
        from catboost import CatBoostError

        scorer = cls(content)
        try:
            found = len(scorer._columns)
        except (CatBoostError, ValueError):
            raise ScorerError("CatBoost cannot read it") from None
        refuse_other_width(found, inputs)
        return scorer


def features(matrix: np.ndarray, categorical: list[int]) -> Any:
    """CatBoost's own form of a matrix: numbers first, then categories, named x<column>."""
    from catboost import FeaturesData

    numeric = [column for column in range(matrix.shape[1]) if column not in categorical]
    codes = matrix[:, categorical]
    words = WORDS[np.where(np.isnan(codes), MOST_CATEGORIES, codes).astype(np.int64)]
    return FeaturesData(
        num_feature_data=matrix[:, numeric].astype(np.float32) if numeric else None,
        cat_feature_data=words if categorical else None,
        num_feature_names=[f"x{column}" for column in numeric] or None,
        cat_feature_names=[f"x{column}" for column in categorical] or None,
    )
