"""Training one model from the rows known by a moment.

Here: the order in which the parts are used. Not here: each step's own work, or what happens to
the model afterwards (`registry`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle, TrainingRecord, environment
from loan_platform.model.calibrator import Calibrator
from loan_platform.model.policy import Policy
from loan_platform.model.scorers import Scorer
from loan_platform.training.blending import cross_fitted, fit_recipe
from loan_platform.training.calibrate import fit_calibrator
from loan_platform.training.evaluate import Evaluation, evaluate, evaluate_rows
from loan_platform.training.families import Task, Watched, module, task_of
from loan_platform.training.guard import refuse_leaks
from loan_platform.training.profit import profit_if_approved
from loan_platform.training.recipe import Recipe, usual
from loan_platform.training.reference import approved_reference
from loan_platform.training.rows import Rows, TrainingError, known_rows, matured_months
from loan_platform.training.split import Plan, first_copies, plan
from loan_platform.training.threshold import choose_policy

GOLDEN_ROWS = 16
ENOUGH_TO_CALIBRATE = 10_000
"""Rows of a calibrate part that are enough by themselves: a standard error of their bad rate is at
most half a percentage point, and cross-fitting would take half as long again or more."""


@dataclass(frozen=True)
class Trained:
    """A model and how it did on the judge part."""

    bundle: Bundle
    evaluation: Evaluation


def train(
    contract: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    raw: dict[str, Path] | None = None,
    reported: Path | None = None,
    recipe: Recipe | None = None,
    progress: Callable[[str], None] | None = None,
) -> Trained:
    """Train by `recipe` on the cleaned months (key -> Parquet file), as known by `as_of`.

    `raw`: the raw months, for what is measured by money, segment and group. `reported`: every
    outcome ever reported. Both as `known_rows` takes them. Without a recipe, the usual one.

    A trial model, fitted on the plan's `fit` rows, shows on its `calibrate` rows how large each
    ingredient grows and, by time or where they are many, how the margin becomes a probability;
    else cross-fitting shows that on both. On its `threshold` rows it shows where the policy's
    threshold lies. The model is then fitted again to that size on all rows that do not judge. The
    `judge` part is only measured on. Same rows, contract and recipe: the same model.

    Raises:
        TrainingError: there are too few rows, a part has only one class, a file lacks a column,
            an outcome was made by a model, a column gives the outcome away, simulated rows are
            mixed with real ones, no profit is known where the policy asks for it, or the policy
            would approve nobody.
    """
    say = progress or (lambda _: None)
    rows = known_rows(contract, cleaned, as_of, raw=raw, reported=reported)
    used = plan(contract, rows)
    fit, calibrate, threshold, judge, learn = (
        rows.where(mask)
        for mask in (used.fit, used.calibrate, used.threshold, used.judge, used.learn)
    )
    parts = {"fit": fit, "calibrate": calibrate, "threshold": threshold, "judge": judge}
    _refuse_too_little(contract, rows, parts, as_of)
    refuse_leaks(contract, cleaned, rows)

    say(f"fitting a trial model on {len(fit):,} of {len(rows):,} rows")
    task = task_of(contract)
    trial, grown = fit_recipe(
        task,
        recipe or usual(),
        fit.matrix,
        fit.outcome,
        watch=Watched(calibrate.matrix, calibrate.outcome),
    )
    say("calibrating on rows it has not learnt from")
    calibrator = fit_calibrator(
        *_held_out_margins(task, grown, trial, rows, used), seed=contract.training.seed
    )
    promised = calibrator.probability(trial.margin(threshold.matrix))
    policy = choose_policy(
        contract.policy, threshold.outcome, promised, profit_if_approved(contract, threshold)
    )
    _refuse_to_approve_nobody(contract, policy, promised)

    say(f"fitting {_told(grown)} on {len(learn):,} rows")
    scorer, _ = fit_recipe(task, grown, learn.matrix, learn.outcome)
    say(f"judging on {len(judge):,} rows kept apart")
    evaluation = evaluate_rows(
        contract, judge, calibrator.probability(scorer.margin(judge.matrix)), policy
    )
    months = matured_months(contract, rows, as_of)
    record = TrainingRecord(
        portfolio=contract.name,
        trained_at=dt.datetime.now(dt.UTC),
        as_of=as_of,
        trained_through=months[-1],
        partitions=months,
        rows={name: len(there) for name, there in parts.items()},
        metrics=evaluation.metrics,
        out_of_time={}
        if used.unseen is None
        else _out_of_time(contract, rows.where(used.unseen), trial, calibrator, policy),
        parameters=_parameters(grown),
        ingredients=[one.model_dump(mode="json") for one in grown.ingredients],
        notes=list(used.notes),
        contract_hash=contract.contract_hash,
        data_hash=rows.data_hash,
        environment=environment(scorer),
        simulated=rows.simulated,
        seed=contract.training.seed,
    )
    approved = threshold.application_id[policy.decide(promised) == "approve"]
    bundle = Bundle(
        contract=contract,
        policy=policy,
        calibrator=calibrator,
        record=record,
        scorer=scorer,
        golden=_golden_rows(learn.matrix, contract.training.seed),
        reference=approved_reference(contract, cleaned, approved),
    )
    return Trained(bundle, evaluation)


def _held_out_margins(
    task: Task, recipe: Recipe, trial: Scorer, rows: Rows, used: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Margins of models that had not learnt from the row, and outcomes, to calibrate on: (n,).

    The trial model's of the calibrate part, by time or where it is large. By hash there are no
    later months to ask, and cross-fitting gives the rows of the fit part as well, seven times as
    many.
    """
    if used.since is not None or used.calibrate.sum() >= ENOUGH_TO_CALIBRATE:
        unseen = rows.where(used.calibrate)
        return trial.margin(unseen.matrix), unseen.outcome
    both = rows.where(used.fit | used.calibrate)
    return cross_fitted(task, recipe, both.matrix, both.outcome, first_copies(both)), both.outcome


def _out_of_time(
    contract: Contract, rows: Rows, trial: Scorer, calibrator: Calibrator, policy: Policy
) -> dict[str, float]:
    """Metrics of the trial model on judge rows of months newer than all it learnt from."""
    return evaluate(
        rows.outcome,
        calibrator.probability(trial.margin(rows.matrix)),
        policy,
        profit=profit_if_approved(contract, rows),
        confidence=contract.training.confidence,
        seed=contract.training.seed,
    ).metrics


def _told(recipe: Recipe) -> str:
    return ", ".join(f"{one.family} of size {one.size}" for one in recipe.ingredients)


def _parameters(recipe: Recipe) -> dict[str, float | int | str]:
    """What a tracker is told: every setting, with its ingredient's number where there are some."""
    told: dict[str, float | int | str] = {}
    for number, one in enumerate(recipe.ingredients, start=1):
        before = f"{number}." if len(recipe.ingredients) > 1 else ""
        settings = {**module(one.family).defaults(), **one.parameters}
        named = {"family": one.family, "size": one.size, "weight": one.weight, **settings}
        told |= {
            before + name: value if isinstance(value, int | float | str) else str(value)
            for name, value in named.items()
        }
    return told


def _refuse_too_little(
    contract: Contract, rows: Rows, parts: dict[str, Rows], as_of: dt.datetime
) -> None:
    wanted = contract.training.minimum_rows
    if len(rows) < wanted:
        raise TrainingError(
            f"{contract.name} has {len(rows):,} rows with an outcome known by {as_of:%Y-%m-%d}, "
            f"and training needs {wanted:,}; ingest more months, wait until more outcomes are "
            "known, or lower training.minimum_rows"
        )
    for name, there in parts.items():
        if len(set(there.outcome.tolist())) < 2:
            raise TrainingError(
                f"all {len(there):,} rows of the {name} part of {contract.name} have the same "
                "outcome; both good and bad loans are needed: check outcome.bad and outcome.good "
                "in the contract, or ingest more months"
            )


def _refuse_to_approve_nobody(contract: Contract, policy: Policy, probability: np.ndarray) -> None:
    if not (policy.decide(probability) == "approve").any():
        raise TrainingError(
            f"the policy of {contract.name} would approve none of the {len(probability):,} rows "
            f"its threshold is set on: approve ends at {policy.approve[1]:.4g}, and the lowest "
            f"probability of default is {probability.min():.4g}; lower policy.refer_share, set "
            "policy.threshold: approval_rate, or end policy.bands.approve higher"
        )


def _golden_rows(matrix: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose every value is drawn from another applicant, so that none is a person's."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(matrix), size=(GOLDEN_ROWS, matrix.shape[1]))
    golden = np.take_along_axis(matrix, drawn, axis=0)
    golden[-1] = np.nan
    return golden
