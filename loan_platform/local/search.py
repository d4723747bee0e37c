"""Searches for a portfolio's recipe in this process: `loan-platform search`.

Here: the budget asked for, the progress and the closing table. Not here: the search (`training`),
or the asset that runs it (`components`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loan_platform.components.training import SEARCH_LOG, recipe_file
from loan_platform.contract.portfolios import contract_of
from loan_platform.engine.home import Home
from loan_platform.local.instance import environment, prepare
from loan_platform.local.platform_runs import PlatformRuns
from loan_platform.training.recipe import Recipe, Tried


def search(portfolio: str, say: Console, *, trials: int | None, minutes: float | None) -> Recipe:
    """Find a recipe on the months that are cleaned, within the contract's budget or this one.

    Again after a kill it goes on where it was; again with more trials it adds to them.

    Raises:
        ContractError: there is no such portfolio, or its contract is not valid.
        RunError: the run failed.
    """
    contract = contract_of(portfolio)
    home = Home.from_environment()
    os.environ.update(environment(home))
    prepare(home)
    asked = {"trials": trials, "minutes": minutes}
    config = {name: value for name, value in asked.items() if value is not None}
    with PlatformRuns(contract, home) as runs, said(lambda text: say.print(escape(text))):
        runs.materialize("model_search", config=config)
    recipe = Recipe.read(recipe_file(home, contract))
    say.print(closing_table(recipe))
    return recipe


@contextmanager
def said(to: Callable[[str], None]) -> Iterator[None]:
    """Hand on what a search in this process says while it goes on."""

    class Hand(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            to(record.getMessage())

    log, hand = logging.getLogger(SEARCH_LOG), Hand()
    before = log.level, log.propagate
    log.addHandler(hand)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(hand)
        log.level, log.propagate = before


def closing_table(recipe: Recipe) -> Table:
    """The best trial of each family, those of the best families first, and what was found."""
    columns = ("family", "trials", "log loss", "best there", "AUC", "ms a row", "exact reasons")
    table = Table(*columns, box=None, pad_edge=False)
    best = recipe.figures["log_loss_best_single"]
    for one in _best_of_each(recipe):
        table.add_row(
            one.family,
            str(sum(other.family == one.family for other in recipe.tried)),
            f"{one.figures['log_loss']:.4f}",
            f"{one.figures.get('log_loss_of_best', best):.4f}",  # a rival saw one fold only
            f"{one.figures['auc']:.4f}",
            f"{one.figures['row_ms']:.2f}",
            "yes" if one.exact else "no",
        )
    table.add_section()
    table.add_row("found", str(recipe.trials), f"{recipe.figures['log_loss']:.4f}")
    table.caption = escape(recipe.words)
    return table


def _best_of_each(recipe: Recipe) -> list[Tried]:
    """Of every family its best trial: a complete one, or one that was stopped, against the best."""

    def order(one: Tried) -> tuple[bool, float]:
        loss = one.figures["log_loss"]
        return one.state != "complete", loss - one.figures.get("log_loss_of_best", 0.0)

    best: dict[str, Tried] = {}
    for one in sorted((one for one in recipe.tried if one.figures), key=order):
        best.setdefault(one.family, one)
    return list(best.values())
