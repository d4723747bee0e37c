"""scikit-learn's classifiers over encoded inputs: what the four families that use one share.

Categories become a column each, a missing one too. Here: encoding, growing and wrapping up.
Not here: the settings of a classifier (`random_forest`, `gradient_boosting`, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from loan_platform.model.scorers.sklearn import Sklearn, margin_of
from loan_platform.model.threads import thread_pools
from loan_platform.training.families import Fitted, Task, Watched
from loan_platform.training.families.growth import grown
from loan_platform.training.families.loss import row_weights


def encoder(task: Task, matrix: np.ndarray, *numbers: Any) -> Any:
    """The encoder of `matrix`, not fitted; `numbers` are the steps for numeric inputs."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    codes = [
        np.array([*range(task.categories[name]), np.nan])
        for name in task.names
        if name in task.categories
    ]
    categorical = [at for at, name in enumerate(task.names) if name in task.categories]
    parts = [
        ("numbers", make_pipeline(*numbers), _numeric(task, matrix)),
        ("categories", OneHotEncoder(categories=codes, sparse_output=False), categorical),
    ]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)


def filled() -> Any:
    """Missing numbers become the median, and a column more says that they were missing."""
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy="median", add_indicator=True)


def directions(task: Task, matrix: np.ndarray, columns: int) -> list[int]:
    """The monotone direction of each encoded column: numeric inputs come first."""
    numeric = [task.monotone[at] for at in _numeric(task, matrix)]
    return numeric + [0] * (columns - len(numeric))


def _numeric(task: Task, matrix: np.ndarray) -> list[int]:
    """Columns of numeric inputs; without those that have no value in any row."""
    return [
        at
        for at, name in enumerate(task.names)
        if name not in task.categories and not np.isnan(matrix[:, at]).all()
    ]


def keeps_no_direction(task: Task, what: str) -> str | None:
    """Why a family without monotone constraints cannot serve this book."""
    directed = [
        name for name, direction in zip(task.names, task.monotone, strict=True) if direction
    ]
    if not directed:
        return None
    return (
        f"{what} keeps no monotone direction, and the contract gives one to {', '.join(directed)}"
    )


def grow(counted_by: str) -> Callable[[Any, int, np.ndarray, np.ndarray, np.ndarray | None], None]:
    """Growing a model with `warm_start` on, where the parameter `counted_by` is its size."""

    def extend(
        model: Any, size: int, encoded: np.ndarray, outcome: np.ndarray, weights: np.ndarray | None
    ) -> None:
        model.set_params(**{counted_by: size}).fit(encoded, outcome, sample_weight=weights)

    return extend


def fitted(
    task: Task,
    encoding: Any,
    model_of: Callable[[int], Any],
    extend: Callable[[Any, int, np.ndarray, np.ndarray, np.ndarray | None], None],
    matrix: np.ndarray,
    outcome: np.ndarray,
    *,
    sizes: Iterable[int],
    patience: int,
    size: int | None,
    watch: Watched | None,
    report: Callable[[int, float], None] | None,
) -> Fitted:
    """Fit `model_of(encoded columns)` to `size`, or as far as the watched rows gain from it.

    `extend(model, size, encoded, outcome, weights)` fits it to a size, or from a smaller one to it.
    """
    from sklearn.pipeline import make_pipeline

    with thread_pools().limit(limits=1):
        encoded = encoding.fit_transform(matrix)
        # None where all weigh the same: with weights, a histogram's bins take long to find.
        weights = row_weights(outcome, True) if task.balanced else None
        model = model_of(encoded.shape[1])
        if size is not None:
            extend(model, size, encoded, outcome, weights)
        elif watch is not None:
            seen = encoding.transform(watch[0])
            model, size = grown(
                model,
                sizes,
                lambda to: extend(model, to, encoded, outcome, weights),
                lambda: margin_of(model, seen),
                watch[1],
                row_weights(watch[1], task.balanced),
                patience=patience,
                report=report,
            )
        else:
            raise ValueError("give size, or rows to watch")
    return Fitted(Sklearn.of(make_pipeline(encoding, model)), size)
