"""The search: which family, with which settings, alone or blended, suits a portfolio.

Only rows that fit a trial model are seen (`split`). Each trial is measured by cross-validation on
them: every row is judged by a model that was not fitted on it. Then the best trials are blended
where that surely helps (`blending`), and the result is a recipe that later trainings follow in
seconds.

Here: the order of trials, and the choice. Not here: one trial (`trial`), keeping them (`study`),
the weights (`blending`), or showing them (`search_picture`, `registry.trials`).
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from loan_platform.contract import Contract
from loan_platform.contract.settings import Family, Search
from loan_platform.training import split
from loan_platform.training.blending import WORKERS, Candidate, choose, fit_recipe
from loan_platform.training.families import Task, Watched, module, task_of
from loan_platform.training.guard import refuse_leaks
from loan_platform.training.recipe import Ingredient, Recipe, Tried
from loan_platform.training.rows import TrainingError, known_rows
from loan_platform.training.study import Plan, Study, opened
from loan_platform.training.trial import (
    GROWN,
    MOST_ROW_MS,
    Fold,
    Question,
    Stopped,
    grown_size,
    may_serve,
    measure,
)

Progress = Callable[[str], None]

# Tried before anything is proposed, in this order: what is worth most stands first, for those who
# give few trials. Settings are over the family's defaults. Those of LightGBM were measured on the
# five real books by out-of-fold log loss: each of them is the best alone or helps a blend on some.
FIRST: tuple[tuple[Family, dict[str, Any]], ...] = (
    ("lightgbm", {}),
    ("logistic", {}),
    (
        "lightgbm",
        {"learning_rate": 0.03, "num_leaves": 31, "feature_fraction": 0.5, "lambda_l2": 5.0},
    ),
    (
        "lightgbm",
        {
            "learning_rate": 0.05,
            "num_leaves": 15,
            "max_bin": 4095,
            "min_data_in_bin": 1,
            "feature_fraction": 0.6,
            "max_cat_to_onehot": 50,
        },
    ),
    (  # for books in which little is to be seen
        "lightgbm",
        {
            "learning_rate": 0.03,
            "feature_fraction": 0.3,
            "min_data_in_leaf": 100,
            "lambda_l2": 20.0,
            "max_bin": 255,
        },
    ),
    ("hist_gradient_boosting", {}),
    # Thresholds drawn at random: seldom the best alone, and unlike all others in a blend.
    ("lightgbm", {"extra_trees": True, "learning_rate": 0.1, "num_leaves": 31}),
    ("lightgbm", {"learning_rate": 0.1, "num_leaves": 7}),
    ("xgboost", {}),
    ("catboost", {}),
    ("gradient_boosting", {}),
    ("random_forest", {}),
    ("neural_net", {}),
)
DRAWN: tuple[Family, ...] = ("lightgbm", "xgboost", "catboost")
"""Families whose trees are of rows and columns drawn at random."""
DRAWS = 2
"""So many of the best settings given are fitted again from other draws: the mean of two such models
is better than either, most of all where there is little to be seen."""
MOST_ROWS = 40_000
"""Rows that trials are measured on; settings that are better on these are better on more."""
SIZING_FOLDS = 5


class Tracker(Protocol):
    """Who is told of every finished trial."""

    def begin(self, question: str) -> set[int]:
        """A search begins, or goes on: the places of the trials it was told of before."""
        ...

    def record(self, tried: Tried) -> None: ...


def search(
    contract: Contract,
    cleaned: dict[str, Path],
    as_of: dt.datetime,
    *,
    folder: Path,
    raw: dict[str, Path] | None = None,
    reported: Path | None = None,
    settings: Search | None = None,
    tracker: Tracker | None = None,
    progress: Progress | None = None,
) -> Recipe:
    """Find a recipe for a portfolio from what was known by `as_of`.

    `cleaned`, `raw` and `reported`: as `known_rows` takes them. `folder` keeps the trials, and a
    search of the same question there goes on with them. `settings`: instead of the contract's.

    Raises:
        TrainingError: too few rows are known, a column gives the outcome away, no family can serve
            the book, or every trial failed.
        StudyError: another search works in `folder`.
    """
    rows = known_rows(contract, cleaned, as_of, raw=raw, reported=reported)
    uses = split.plan(contract, rows)
    fit = rows.where(uses.fit)
    if len(rows) < contract.training.minimum_rows or len(set(fit.outcome.tolist())) < 2:
        raise TrainingError(
            f"{contract.name} has {len(rows):,} rows with an outcome known by {as_of:%Y-%m-%d}, "
            f"and a search needs {contract.training.minimum_rows:,} of both outcomes; ingest more "
            "months, wait until more outcomes are known, or lower training.minimum_rows"
        )
    refuse_leaks(contract, cleaned, rows)
    return search_rows(
        task_of(contract),
        fit.matrix,
        fit.outcome,
        settings or contract.training.search,
        folder=folder,
        copies_of=split.first_copies(fit),
        refit_rows=int(uses.learn.sum()),
        tracker=tracker,
        progress=progress,
    ).model_copy(update={"contract_hash": contract.contract_hash})


def search_rows(
    task: Task,
    matrix: np.ndarray,
    outcome: np.ndarray,
    settings: Search,
    *,
    folder: Path | None = None,
    copies_of: np.ndarray | None = None,
    refit_rows: int | None = None,
    tracker: Tracker | None = None,
    progress: Progress | None = None,
) -> Recipe:
    """Find a recipe for rows (n, inputs) with `outcome` (n,), 1 for bad.

    `copies_of`: rows of one value (n,) lie in one fold. `refit_rows`: on how many the recipe will
    be fitted; without it on these. `folder`: where the trials are kept; without it nowhere. The
    same rows and settings give the same ingredients, however many cores there are.

    Raises:
        TrainingError: no family can serve the book, or every trial failed.
    """
    from threadpoolctl import threadpool_limits

    say = progress or (lambda _: None)
    left_out = _left_out(task, settings)
    for family, why in left_out.items():
        say(f"{family} is left out: {why}")
    families = tuple(one for one in settings.families if one not in left_out)
    if not families:
        told = "; ".join(f"{family}: {why}" for family, why in left_out.items())
        raise TrainingError(
            f"no family of training.search.families can serve this book ({told}); list another"
        )
    names = np.arange(len(outcome)) if copies_of is None else copies_of
    refit_rows = refit_rows or len(outcome)
    tried_on = _sample(len(outcome), task.seed)
    if len(tried_on) < len(outcome):
        say(f"tried on {len(tried_on):,} of {len(outcome):,} rows, drawn at random")
    question = Question(
        task=task,
        matrix=matrix[tried_on],
        outcome=outcome[tried_on],
        fold=split.folds(outcome[tried_on], names[tried_on], settings.folds, task.seed),
        settings=settings,
        families=families,
        given=tuple(one for one in FIRST if one[0] in families),
        refit_rows=refit_rows,
    )
    # One limit around all: a fit that sets its own and lifts it would lift it for the other.
    with threadpool_limits(1):
        with _folder(folder) as kept, opened(kept, question.key, task.seed) as study:
            _try(question, study, tracker, say)
            recipe = _choose(question, study, left_out, say)
        if len(tried_on) < len(outcome):
            recipe = _sized(task, recipe, matrix, outcome, names, refit_rows)
    say(f"found {recipe.words}: log loss {recipe.figures['log_loss']:.4f}")
    return recipe


def _left_out(task: Task, settings: Search) -> dict[str, str]:
    found = {family: module(family).unable(task) for family in settings.families}
    return {family: why for family, why in found.items() if why}


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as passing:
        yield Path(passing)


def _try(question: Question, study: Study, tracker: Tracker | None, say: Progress) -> None:
    """Run trials until the budget is spent: two at a time, whatever the machine.

    So the settings proposed do not depend on the number of cores, or on which trial ends first.
    """
    settings = question.settings
    began = time.monotonic()
    done = {one.place for one in study.tried()}
    if done:
        say(f"{len(done)} trials of an earlier search of the same question count")
    if tracker is not None:
        told = tracker.begin(question.key)
        for tried in study.tried():
            if tried.place not in told:  # the process died in between
                tracker.record(tried)
    ran = 0
    with ThreadPoolExecutor(WORKERS) as workers:
        try:
            while len(done) < settings.trials:
                spent = time.monotonic() - began
                if done and settings.minutes is not None and spent >= settings.minutes * 60:
                    say(f"no further trial: the {settings.minutes:g} minutes are over")
                    return
                next_ones = [one for one in range(1, settings.trials + 1) if one not in done]
                before, last = _pair(next_ones[0], len(question.given))
                pair = [one for one in next_ones if one <= last]
                so_far = [one for one in study.tried() if one.place <= before]
                worth = _worth_tuning(question, so_far)
                asked = [
                    study.ask(place, question.families, *_asked(question, so_far, place))
                    for place in pair
                ]
                plans = [plan for plan in asked if plan is not None]
                for tried in _run(question, study, workers, plans, worth):
                    if tracker is not None:
                        tracker.record(tried)
                    done.add(tried.place)
                    ran += 1
                    say(_told(question, study, tried, time.monotonic() - began, ran, len(done)))
                if len(plans) < len(asked):
                    say("no further trial: these families hold nothing that was not tried")
                    return
        finally:
            question.stopped.set()


def _pair(place: int, given: int) -> tuple[int, int]:
    """How many places lie before the pair of a place, and its last place.

    The last of those given has none beside it where their number is odd: what follows depends on
    all of them.
    """
    start = 0 if place <= given else given
    before = start + (place - 1 - start) // 2 * 2
    return before, min(before + 2, given) if place <= given else before + 2


def _able(tried: Sequence[Tried]) -> list[Tried]:
    """The trials that may be chosen."""
    return [
        one
        for one in tried
        if one.state == "complete" and may_serve(one.exact, one.figures["row_ms"])
    ]


def _worth_tuning(question: Question, tried: Sequence[Tried]) -> list[Family]:
    """Families whose models may be chosen, or all of them where none is: rivals are not tuned."""
    able = {one.family for one in _able(tried)}
    return [one for one in question.families if one in able or not able]


def _asked(
    question: Question, tried: Sequence[Tried], place: int
) -> tuple[Family, dict[str, Any] | None]:
    """The family of a place and, where they are not to be proposed, its settings."""
    if place <= len(question.given):
        return question.given[place - 1]
    draw = place - len(question.given)
    given = [one for one in _able(tried) if one.place <= len(question.given)]
    drawn = sorted(
        (one for one in given if one.family in DRAWN),
        key=lambda one: (question.loss(one.figures), one.place),
    )
    if draw <= len(drawn[:DRAWS]):
        again = drawn[draw - 1]
        return again.family, {**again.parameters, "seed": question.task.seed + 1}
    return _next(question, tried, place), None


def _next(question: Question, tried: Sequence[Tried], place: int) -> Family:
    """The family to tune: by turns that of the best trial, and one of the others."""
    worth = _worth_tuning(question, tried)
    measured = [one for one in tried if one.state == "complete" and one.family in worth]
    if not measured:
        return worth[place % len(worth)]
    best = min(measured, key=lambda one: question.loss(one.figures)).family
    others = [one for one in worth if one != best]
    return best if place % 2 or not others else others[place // 2 % len(others)]


def _run(
    question: Question,
    study: Study,
    workers: ThreadPoolExecutor,
    plans: Sequence[Plan],
    worth: Sequence[Family],
) -> Iterator[Tried]:
    """Run some trials together and keep each as soon as it is finished, in the order of places.

    One fold of a trial is enough where its model could not be chosen anyway, and of settings that
    were proposed where it tells that they are no better than most.
    """
    every = range(question.settings.folds)

    def begin(plan: Plan, numbers: Sequence[int]) -> list[Future[Fold]]:
        return [workers.submit(measure, question, plan, number) for number in numbers]

    def whole(plan: Plan) -> bool:
        return not plan.proposed and plan.family in worth

    running = [begin(plan, every if whole(plan) else every[:1]) for plan in plans]
    for plan, futures in zip(plans, running, strict=True):
        if futures[0].exception() is None:
            first = futures[0].result()
            loss = question.loss(question.figures(question.fold == 0, first.margin))
            hopeless = study.hopeless(plan, loss) and plan.proposed
            rival = plan.family not in worth and not first.may_serve
            if len(futures) == 1 and not hopeless and not rival:
                futures += begin(plan, every[1:])
    for plan, futures in zip(plans, running, strict=True):
        yield _finish(question, study, plan, futures)


def _finish(question: Question, study: Study, plan: Plan, futures: Sequence[Future[Fold]]) -> Tried:
    """Wait for the folds of a trial that were begun, and keep what they gave."""
    problem = next((why for one in futures if (why := one.exception()) is not None), None)
    if isinstance(problem, Stopped):
        raise problem
    ended = [one.result() for one in futures if one.exception() is None]
    tried = Tried(
        place=plan.place,
        family=plan.family,
        parameters=plan.parameters,
        state="failed",
        began=dt.datetime.fromtimestamp(min([one.began for one in ended] or [time.time()]), dt.UTC),
        seconds=sum(one.ended - one.began for one in ended),
        error=None if problem is None else _first_line(problem),
    )
    if problem is not None:
        study.keep(tried, None)
        return tried
    measured = question.fold < len(ended)
    margin = np.full(len(question.outcome), np.nan)
    for number, one in enumerate(ended):
        margin[question.fold == number] = one.margin
    figures = question.figures(measured, margin[measured])
    complete = len(ended) == question.settings.folds
    if not complete and (able := _able(study.tried())):
        # On the same rows, since one fold is easier than another.
        best = min(able, key=lambda one: question.loss(one.figures))
        there = question.figures(measured, study.margin(best)[measured])
        figures |= {f"{name}_of_best": value for name, value in there.items()}
    first = ended[0]
    size = question.refit_size(plan.family, [one.size for one in ended])
    # A single row costs with the trees, and the model will have more of them.
    figures |= {"size": float(size), "row_ms": first.row_ms * max(1.0, size / first.size)}
    tried = tried.model_copy(
        update={
            "state": "complete" if complete else "pruned",
            "figures": figures,
            "exact": first.exact,
        }
    )
    study.keep(tried, question.loss(figures), margin if complete else None)
    return tried


def _sample(rows: int, seed: int) -> np.ndarray:
    """Positions of at most `MOST_ROWS` of the rows, in order."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))


def _sized(
    task: Task,
    recipe: Recipe,
    matrix: np.ndarray,
    outcome: np.ndarray,
    copies_of: np.ndarray,
    refit_rows: int,
) -> Recipe:
    """The recipe with sizes found on all rows: those that suited a sample of them are too small."""
    held = split.folds(outcome, copies_of, SIZING_FOLDS, task.seed) == 0
    unsized = [
        one.model_copy(update={"size": None}) if one.family in GROWN else one
        for one in recipe.ingredients
    ]
    _, grown = fit_recipe(
        task,
        recipe.model_copy(update={"ingredients": unsized}),
        matrix[~held],
        outcome[~held],
        watch=Watched(matrix[held], outcome[held]),
    )
    growth = refit_rows / int((~held).sum())
    sized = [
        one.model_copy(update={"size": grown_size(one.family, [one.size or 1], growth)})
        for one in grown.ingredients
    ]
    return recipe.model_copy(update={"ingredients": sized})


def _choose(question: Question, study: Study, left_out: dict[str, str], say: Progress) -> Recipe:
    """The best trial, or the blend that surely beats it."""
    tried = study.tried()
    complete = [one for one in tried if one.state == "complete"]
    if not complete:
        errors = sorted({f"{one.family}: {one.error}" for one in tried if one.error})
        raise TrainingError(
            f"none of the {len(tried)} trials came to an end ({'; '.join(errors) or 'no time'}); "
            "give the search more minutes, or list other families in training.search.families"
        )
    able = _able(tried)
    if not able:
        say("no trial gives exact reasons within a millisecond: the best of them alone")
    allowed = sorted(able or complete, key=lambda one: (question.loss(one.figures), one.place))
    best = allowed[0]
    mix = choose(
        [Candidate(study.margin(one), one.figures["row_ms"]) for one in allowed],
        question.outcome,
        question.fold,
        first=0,
        most=question.settings.members if able else 1,
        most_ms=MOST_ROW_MS,
    )
    chosen = [allowed[member] for member in mix.members]
    return Recipe(
        ingredients=[
            Ingredient(
                family=one.family,
                parameters=one.parameters,
                size=int(one.figures["size"]),
                weight=weight,
            )
            for one, weight in zip(chosen, mix.weights, strict=True)
        ],
        searched_at=dt.datetime.now(dt.UTC),
        figures={
            "log_loss": float(mix.losses.mean()),
            "log_loss_best_single": best.figures["log_loss"],
            "log_loss_best_tried": min(one.figures["log_loss"] for one in complete),
            "row_ms": sum(one.figures["row_ms"] for one in chosen),
        },
        left_out=left_out,
        tried=tried,
    )


def _told(question: Question, study: Study, tried: Tried, spent: float, ran: int, done: int) -> str:
    settings = question.settings
    name = f"trial {tried.place} of {settings.trials}: {tried.family}"
    if tried.error is not None:
        return f"{name} failed ({tried.error})"
    metric = settings.metric
    reached = f"{metric.replace('_', ' ')} {tried.figures[metric]:.4f}"
    if tried.state == "complete":
        values = [one.figures[metric] for one in study.tried() if one.state == "complete"]
        reached += f" (best {(min if metric == 'log_loss' else max)(values):.4f})"
    else:
        best = tried.figures.get(f"{metric}_of_best", tried.figures[metric])
        reached += f" on one fold (best {best:.4f} there)"
    left = spent / ran * (settings.trials - done)
    if settings.minutes is not None:
        left = min(left, max(0.0, settings.minutes * 60 - spent))
    return f"{name}, {reached}, {tried.seconds:.0f} s; some {left:.0f} s left"


def _first_line(problem: BaseException) -> str:
    """What went wrong, without the values a longer message may show."""
    said = str(problem).partition("\n")[0][:120]
    return f"{type(problem).__name__}: {said}"
