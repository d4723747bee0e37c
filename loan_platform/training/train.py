"""Training one model from the rows known by a moment.

Here: the order in which the parts are used. Not here: each step's own work, or what happens to
the model afterwards (`registry`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle, TrainingRecord, environment
from loan_platform.model.policy import Policy
from loan_platform.training.calibrate import fit_calibrator
from loan_platform.training.evaluate import Evaluation, evaluate
from loan_platform.training.guard import refuse_leaks
from loan_platform.training.rows import Rows, TrainingError, known_rows, matured_months
from loan_platform.training.split import PARTS, part
from loan_platform.training.threshold import choose_policy

if TYPE_CHECKING:
    from lightgbm import Booster

# Chosen on credit_risk's real book, on the rows that do not judge (fit, calibrate, threshold) and
# no others: five-fold cross-validation over max_bin 255, 511, 1023 x learning_rate 0.03, 0.05, 0.1
# x num_leaves 15, 31, 63. Of those within one standard error of the least log loss (0.2709), this
# one grows the smallest model: 770 trees of 15 leaves, log loss 0.2713. Fine bins matter most: 1023
# instead of 255 takes 0.006 off the log loss. The other settings are usual ones, not searched.
PARAMETERS: dict[str, float | int | str] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "max_bin": 1023,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
}
# A second thread saves a third of the time on an idle machine and multiplies it on a busy one,
# where LightGBM's threads wait for each other at every split: 1.3 s became 10 s.
THREADS = 1
MOST_TREES = 2000
PATIENCE = 50
GOLDEN_ROWS = 16


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
    reported: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Trained:
    """Train one LightGBM on the cleaned months (key -> Parquet file), as known by `as_of`.

    `reported`: every outcome ever reported, as `known_rows` takes it.

    A trial model, fitted on the `fit` part, shows on the `calibrate` part how many trees to grow
    and how its margin becomes a probability, and on the `threshold` part where the policy's
    threshold lies. The model is then fitted again with that many trees on these three parts
    together. The `judge` part is only measured on. Same rows, same contract: the same model.

    Raises:
        TrainingError: there are too few rows, a part has only one class, a file lacks a column,
            an outcome was made by a model, a column gives the outcome away, simulated rows are
            mixed with real ones, or the policy would approve nobody.
    """
    say = progress or (lambda _: None)
    rows = known_rows(contract, cleaned, as_of, reported=reported)
    of_part = part(rows.application_id)
    parts = {str(name): rows.where(of_part == name) for name in PARTS}
    _refuse_too_little(contract, rows, parts, as_of)
    refuse_leaks(contract, cleaned, rows)

    say(f"fitting a trial model on {len(parts['fit']):,} of {len(rows):,} rows")
    trial = _fit(contract, parts["fit"], MOST_TREES, stop_on=parts["calibrate"])
    trees = max(1, trial.best_iteration)
    calibrator = fit_calibrator(_margin(trial, parts["calibrate"]), parts["calibrate"].outcome)
    promised = calibrator.probability(_margin(trial, parts["threshold"]))
    policy = choose_policy(contract.policy, parts["threshold"].outcome, promised)
    _refuse_to_approve_nobody(contract, policy, promised)

    judge = parts["judge"]
    learnt = rows.where(of_part != "judge")
    say(f"fitting {trees} trees on {len(learnt):,} rows")
    booster = _fit(contract, learnt, trees)
    say(f"judging on {len(judge):,} rows kept apart")
    evaluation = evaluate(
        judge.outcome,
        calibrator.probability(_margin(booster, judge)),
        policy,
        confidence=contract.training.confidence,
        seed=contract.training.seed,
    )
    months = matured_months(contract, rows, as_of)
    record = TrainingRecord(
        portfolio=contract.name,
        trained_at=dt.datetime.now(dt.UTC),
        as_of=as_of,
        trained_through=months[-1],
        partitions=months,
        rows={name: len(parts[name]) for name in parts},
        metrics=evaluation.metrics,
        parameters={**PARAMETERS, "trees": trees},
        contract_hash=contract.contract_hash,
        data_hash=rows.data_hash,
        environment=environment(),
        simulated=rows.simulated,
        seed=contract.training.seed,
    )
    bundle = Bundle(
        contract=contract,
        policy=policy,
        calibrator=calibrator,
        record=record,
        booster_text=booster.model_to_string(),
        golden=_golden_rows(learnt.matrix, contract.training.seed),
    )
    return Trained(bundle, evaluation)


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


def _fit(contract: Contract, rows: Rows, trees: int, stop_on: Rows | None = None) -> Booster:
    """Grow `trees` trees, or with `stop_on` as few as give these rows their least log loss."""
    import lightgbm

    parameters = {
        **PARAMETERS,
        "monotone_constraints": contract.monotone_directions,
        "seed": contract.training.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    inputs = contract.model_inputs
    dataset = lightgbm.Dataset(
        rows.matrix,
        rows.outcome,
        categorical_feature=[inputs.index(name) for name in contract.categorical_inputs],
        params=parameters,
    )
    if stop_on is None:
        return lightgbm.train(parameters, dataset, trees)
    return lightgbm.train(
        parameters,
        dataset,
        trees,
        valid_sets=[dataset.create_valid(stop_on.matrix, stop_on.outcome)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _margin(booster: Booster, rows: Rows) -> np.ndarray:
    """Log-odds before calibration, of the best iteration where the booster has one."""
    margin = booster.predict(rows.matrix, raw_score=True, num_threads=THREADS)
    return np.asarray(margin)


def _golden_rows(matrix: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose every value is drawn from another applicant, so that none is a person's."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(matrix), size=(GOLDEN_ROWS, matrix.shape[1]))
    golden = np.take_along_axis(matrix, drawn, axis=0)
    golden[-1] = np.nan
    return golden
