"""One small scorer of each family, of a made-up book with gaps, categories and directions.

Here: what the tests of scorers, families and bundles share. Not here: any test.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import get_args

import numpy as np
import pytest

from loan_platform.contract.settings import Family
from loan_platform.model.scorers import Scorer
from loan_platform.training import families
from loan_platform.training.families import Fit, Task

FAMILIES: tuple[Family, ...] = get_args(Family)
EXTRA = ("xgboost", "catboost")
UNDIRECTED = ("gradient_boosting", "neural_net")
"""Families that keep no monotone direction."""

# `empty` has no value in any row, as a column may have that a lender has only begun to ask for.
TASK = Task(
    names=("income", "ratio", "years", "empty", "grade", "purpose"),
    categories={"grade": 4, "purpose": 3},
    monotone=(0, 1, -1, 0, 0, 0),
    balanced=False,
    seed=7,
)
FREE = Task(TASK.names, TASK.categories, (0,) * len(TASK.names), balanced=False, seed=7)


def task_for(family: Family) -> Task:
    """The book's task, without its directions where the family keeps none."""
    return FREE if family in UNDIRECTED else TASK


def needs(family: Family) -> None:
    """Skip where the family's library is not installed."""
    if family in EXTRA and not find_spec(family):
        pytest.skip(f"needs {family}, of the extra [families]")


@functools.cache
def book(rows: int = 1200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and outcome; some 30 % are bad."""
    random = np.random.default_rng(seed)
    income = random.lognormal(10, 0.6, rows)
    ratio = random.gamma(2, 0.3, rows)
    years = random.integers(0, 30, rows).astype(float)
    grade = random.integers(0, 4, rows).astype(float)
    purpose = random.integers(0, 3, rows).astype(float)
    margin = 2.2 * ratio - 0.06 * years + 0.5 * (grade == 3) - 0.5 * (purpose == 1) - 2
    outcome = (random.random(rows) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    matrix = np.column_stack([income, ratio, years, np.full(rows, np.nan), grade, purpose])
    gaps = random.random(matrix.shape) < (0.1, 0.05, 0, 0, 0.05, 0)
    matrix[gaps] = np.nan
    return matrix, outcome


@functools.cache
def scorer(family: Family, size: int = 8) -> Scorer:
    needs(family)
    return families.module(family).fit(Fit(task_for(family), *book(), until=size), {}).scorer


def fresh(rows: int = 400) -> np.ndarray:
    """Rows that no scorer has seen, some of them beyond every value it has."""
    matrix = book(rows, seed=1)[0].copy()
    matrix[0] = np.nan
    matrix[1, :3] = [1e9, 50, 90]
    matrix[2, :3] = [-5, -1, -1]
    return matrix
