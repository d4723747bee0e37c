"""What a careful engineer, or AutoGluon, gets from the same rows.

    python rivals.py NAME FOLDER SEED

Reads rows.npz and task.json of the folder (`splits.Split.write`); writes NAME.npy, the
probabilities of the judged rows, and NAME.json: seconds of CPU and clock, and bytes of the model.
Runs in a process of its own, which may be of another Python with AutoGluon in it, so it imports
nothing of the platform.

Here: the rivals. Not here: ours (`ours`), or comparing (`compare`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TREES = 600
LEARNING_RATE = 0.03


@dataclass(frozen=True)
class Given:
    """Rows to learn from, shape (n, inputs), with their outcome (n,), and rows to judge."""

    names: list[str]
    categories: list[str]
    learn: np.ndarray
    outcome: np.ndarray
    judge: np.ndarray
    seed: int
    minutes: float
    preset: str


Answer = tuple[np.ndarray, int]
"""Probabilities of the judged rows, and bytes of the model."""


def lightgbm(given: Given) -> Answer:
    """600 trees at 0.03, all else as the library has it; one thread."""
    import lightgbm as library

    codes = [given.names.index(name) for name in given.categories]
    settings = {
        "objective": "binary",
        "learning_rate": LEARNING_RATE,
        "seed": given.seed,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = library.Dataset(given.learn, given.outcome, categorical_feature=codes)
    booster = library.train(settings, data, TREES)
    return np.asarray(booster.predict(given.judge)), len(booster.model_to_string())


def catboost(given: Given) -> Answer:
    """600 trees, all else as the library has it; one thread."""
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=TREES,
        random_seed=given.seed,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
    )
    model.fit(_frame(given, given.learn), given.outcome, cat_features=given.categories)
    probability = np.asarray(model.predict_proba(_frame(given, given.judge)))[:, 1]
    return probability, len(model._serialize_model())


def autogluon(given: Given) -> Answer:
    """AutoGluon with a preset and a time limit, on both cores."""
    import tempfile

    from autogluon.tabular import TabularPredictor

    train = _frame(given, given.learn).assign(_outcome=given.outcome)
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(
            "_outcome", problem_type="binary", eval_metric="log_loss", path=folder, verbosity=1
        )
        predictor.fit(
            train,
            presets=given.preset,
            time_limit=60 * given.minutes,
            num_cpus=os.cpu_count(),
            num_gpus=0,
            dynamic_stacking=False,
        )
        told = predictor.predict_proba(_frame(given, given.judge), as_multiclass=False)
        predictor.delete_models(models_to_keep="best", dry_run=False)
        return np.asarray(told, dtype=np.float64), int(predictor.disk_usage())


RIVALS: dict[str, Callable[[Given], Answer]] = {
    "lightgbm": lightgbm,
    "catboost": catboost,
    "autogluon": autogluon,
}


def _frame(given: Given, matrix: np.ndarray) -> Any:
    """A pandas frame whose categories are words, 'missing' among them."""
    import pandas as pd

    frame = pd.DataFrame(matrix, columns=given.names)
    for name in given.categories:
        words = frame[name].map(lambda code: "missing" if np.isnan(code) else f"c{int(code)}")
        frame[name] = words.astype("category")
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--minutes", type=float, default=5.0, help="of AutoGluon, for each split")
    parser.add_argument("--preset", default="best_quality", help="of AutoGluon")
    options = parser.parse_args()
    rows = np.load(options.folder / "rows.npz")
    task = json.loads((options.folder / "task.json").read_text(encoding="utf-8"))
    given = Given(
        names=task["names"],
        categories=list(task["categories"]),
        learn=rows["learn"],
        outcome=rows["learn_outcome"],
        judge=rows["judge"],
        seed=options.seed,
        minutes=options.minutes,
        preset=options.preset,
    )
    began, before = time.perf_counter(), cpu_seconds()
    probability, size = RIVALS[options.name](given)
    told = {
        "cpu": cpu_seconds() - before,
        "clock": time.perf_counter() - began,
        "bytes": size,
    }
    np.save(options.folder / f"{options.name}.npy", probability)
    (options.folder / f"{options.name}.json").write_text(json.dumps(told), encoding="utf-8")


def cpu_seconds() -> float:
    """Seconds of CPU of this process and of those it waited for."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
