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
from loan_platform.training.families import Fit, Fitted, Task
from loan_platform.training.families.growth import grown
from loan_platform.training.families.loss import log_loss, row_weights

Extend = Callable[[Any, int, np.ndarray, np.ndarray, np.ndarray | None], None]
"""`extend(model, size, encoded, outcome, weights)` fits to a size, or from a smaller one to it."""


def encoder(asked: Fit, *numbers: Any) -> Any:
    """The encoder of the rows to fit, not fitted; `numbers` are the steps for numeric inputs."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    task = asked.task
    codes = [
        np.array([*range(task.categories[name]), np.nan])
        for name in task.names
        if name in task.categories
    ]
    categorical = [at for at, name in enumerate(task.names) if name in task.categories]
    parts = [
        ("numbers", make_pipeline(*numbers), _numeric(asked)),
        ("categories", OneHotEncoder(categories=codes, sparse_output=False), categorical),
    ]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)


def filled() -> Any:
    """Missing numbers become the median, and a column more says that they were missing."""
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy="median", add_indicator=True)


def directions(asked: Fit, columns: int) -> list[int]:
    """The monotone direction of each encoded column: numeric inputs come first."""
    numeric = [asked.task.monotone[at] for at in _numeric(asked)]
    return numeric + [0] * (columns - len(numeric))


def _numeric(asked: Fit) -> list[int]:
    """Columns of numeric inputs; without those that have no value in any row."""
    return [
        at
        for at, name in enumerate(asked.task.names)
        if name not in asked.task.categories and not np.isnan(asked.matrix[:, at]).all()
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


def grow(counted_by: str) -> Extend:
    """Growing a model with `warm_start` on, where the parameter `counted_by` is its size."""

    def extend(
        model: Any, size: int, encoded: np.ndarray, outcome: np.ndarray, weights: np.ndarray | None
    ) -> None:
        model.set_params(**{counted_by: size}).fit(encoded, outcome, sample_weight=weights)

    return extend


def fitted(
    asked: Fit,
    encoding: Any,
    model_of: Callable[[int], Any],
    extend: Extend,
    *,
    sizes: Iterable[int],
    patience: int,
) -> Fitted:
    """Fit `model_of(encoded columns)` to a size, or as far as the watched rows gain from it."""
    from sklearn.pipeline import make_pipeline

    until, balanced = asked.until, asked.task.balanced
    with thread_pools().limit(limits=1):
        encoded = encoding.fit_transform(asked.matrix)
        # None where all weigh the same: with weights, a histogram's bins take long to find.
        weights = row_weights(asked.outcome, balanced) if balanced else None
        model = model_of(encoded.shape[1])

        def extend_to(size: int) -> None:
            extend(model, size, encoded, asked.outcome, weights)

        if isinstance(until, int):
            extend_to(until)
            return Fitted(Sklearn.of(make_pipeline(encoding, model)), until)
        seen, seen_weights = encoding.transform(until.matrix), row_weights(until.outcome, balanced)
        best, size = grown(
            model,
            sizes,
            extend_to,
            lambda: log_loss(until.outcome, margin_of(model, seen), seen_weights),
            patience=patience,
            report=until.report,
        )
    return Fitted(Sklearn.of(make_pipeline(encoding, best)), size)
