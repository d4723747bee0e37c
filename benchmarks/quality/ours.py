"""What the platform's own search and training get: `python -m benchmarks.quality.ours ...`.

On a shipped contract `search` and `train` run as the assets run them. On a split of the field,
which has no months, their parts run on its rows: the search, the recipe it finds in cross-fitting
for the margins that the calibrator learns from, and the recipe on all. Writes the same files as
`rivals`.

Here: the calls. Not here: how a model is made (`loan_platform.training`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.quality import splits
from benchmarks.quality.rivals import cpu_seconds
from loan_platform.contract.portfolios import contract_of
from loan_platform.model.scorers import Scorer
from loan_platform.model.scorers.blend import Blend
from loan_platform.training.blending import cross_fitted, fit_recipe
from loan_platform.training.calibrate import fit_calibrator
from loan_platform.training.recipe import Recipe
from loan_platform.training.search import search, search_rows
from loan_platform.training.train import train


def on_rows(split: splits.Split, seed: int) -> tuple[np.ndarray, Recipe, Scorer]:
    """Probabilities of the judged rows, the recipe found and the scorer made by it."""
    task = dataclasses.replace(split.task, seed=seed)
    matrix, outcome = split.matrix[split.learn], split.outcome[split.learn]
    recipe = search_rows(task, matrix, outcome, split.search, progress=say)
    margin = cross_fitted(task, recipe, matrix, outcome, np.arange(len(outcome)))
    alike = split.like_judged
    calibrator = fit_calibrator(margin[alike], outcome[alike], seed=seed)
    scorer, _ = fit_recipe(task, recipe, matrix, outcome)
    return calibrator.probability(scorer.margin(split.matrix[split.judge])), recipe, scorer


def on_months(
    portfolio: str, months: dict[str, Path], seed: int
) -> tuple[np.ndarray, Recipe, Scorer]:
    """The same of a shipped contract, with the search's default budget."""
    contract = contract_of(portfolio)
    training = contract.training.model_copy(update={"seed": seed})
    contract = contract.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        recipe = search(contract, months, splits.AS_OF, folder=Path(folder), progress=say)
    trained = train(contract, months, splits.AS_OF, recipe=recipe, progress=say)
    return trained.evaluation.probability, recipe, trained.bundle.scorer


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("split", help="a split of the field, or a shipped portfolio with --months")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--months", type=Path, help="folder of the cleaned months")
    options = parser.parse_args()
    began, before = time.perf_counter(), cpu_seconds()
    if options.months:
        months = {file.stem: file for file in sorted(options.months.glob("*.parquet"))}
        probability, recipe, scorer = on_months(options.split, months, options.seed)
    else:
        split = splits.FIELD[options.split](options.books)
        began, before = time.perf_counter(), cpu_seconds()  # reading the book is no part of it
        probability, recipe, scorer = on_rows(split, options.seed)
    parts = scorer.scorers if isinstance(scorer, Blend) else (scorer,)
    told = {
        "cpu": cpu_seconds() - before,
        "clock": time.perf_counter() - began,
        "bytes": sum(len(one.dump()) for one in parts),
        "recipe": recipe.words,
        "row_ms": recipe.figures.get("row_ms"),
    }
    np.save(options.folder / "ours.npy", probability)
    (options.folder / "ours.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
