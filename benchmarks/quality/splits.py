"""The rows every system of the benchmark learns from, and those it is judged on.

Two kinds: splits on which systems of the field report, taken from the raw file by position as they
take them; and each shipped contract's own split. In both the inputs are those of a contract, made
by its SQL, and every system gets the same matrix.

Here: rows, inputs and outcomes. Not here: any model (`ours`, `rivals`), or comparing (`compare`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from loan_platform.contract import Contract, read_contract
from loan_platform.contract.portfolios import contract_of
from loan_platform.contract.settings import Search
from loan_platform.contract.sql import features_sql, matrix_sql, typed_sql
from loan_platform.engine import duck
from loan_platform.training.families import Task, task_of
from loan_platform.training.rows import known_rows
from loan_platform.training.split import plan
from loan_platform_tests.training.books import cleaned_table, write_months

CONTRACTS = Path(__file__).parents[1] / "contracts"
AS_OF = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
"""When every loan of the books has come to its end."""
GIVEN = Search(families=["lightgbm", "logistic", "catboost"], trials=10)
"""The settings a search begins with, of the three families that carry the blends, and the two best
of them again from other draws; and no others."""


@dataclass(frozen=True)
class Goal:
    """What is known of a split: each an AUC and a log loss, None where nobody reports it."""

    theirs: tuple[float | None, float | None]
    strongest: tuple[float | None, float | None]
    least: tuple[float | None, float | None]


@dataclass(frozen=True)
class Split:
    """`matrix` (n, inputs) and `outcome` (n,) of a book; positions of rows to learn and to judge.

    `like_judged`: mask over `learn`, rows of the same population as the judged ones; others are
    learnt from and never calibrated on. `subset`: a name and a mask over `judge`, measured too.
    """

    contract: Contract
    task: Task
    matrix: np.ndarray
    outcome: np.ndarray
    learn: np.ndarray
    judge: np.ndarray
    like_judged: np.ndarray
    search: Search = GIVEN
    goal: Goal | None = None
    subset: tuple[str, np.ndarray, Goal] | None = None

    def write(self, folder: Path) -> None:
        """As files that another Python reads: rows.npz and task.json."""
        np.savez(
            folder / "rows.npz",
            learn=self.matrix[self.learn],
            learn_outcome=self.outcome[self.learn],
            like_judged=self.like_judged,
            judge=self.matrix[self.judge],
        )
        told = {"names": self.task.names, "categories": self.task.categories}
        (folder / "task.json").write_text(json.dumps(told), encoding="utf-8")


def shuffled(rows: int, share: float, stratify: np.ndarray | None = None) -> list[np.ndarray]:
    """Positions as `train_test_split(test_size=share, random_state=42)` deals them."""
    from sklearn.model_selection import train_test_split

    dealt = train_test_split(np.arange(rows), test_size=share, random_state=42, stratify=stratify)
    return [np.asarray(one) for one in dealt]


def loan_approval(books: Path) -> Split:
    """The first 44,000 rows, a fifth of them judged."""
    contract, matrix, outcome = _inputs(books, "loan_approval_all")
    learn, judge = shuffled(44_000, 0.2)
    goal = Goal((0.9713, 0.1725), (0.9792, 0.1436), (0.979, 0.144))
    return _split(contract, matrix, outcome, learn, judge, goal)


def loan_default(books: Path) -> Split:
    """A fifth judged, stratified; measured again on judged rows with nothing missing."""
    contract, matrix, outcome = _inputs(books, "loan_default_all")
    learn, judge = shuffled(len(outcome), 0.2, stratify=outcome)
    asked = [contract.model_inputs.index(column.name) for column in contract.feature_columns]
    whole = np.asarray(~np.isnan(matrix[judge][:, asked]).any(axis=1))
    split = _split(
        contract,
        matrix,
        outcome,
        learn,
        judge,
        Goal((0.8899, 0.332), (0.9025, 0.2715), (0.902, 0.272)),
    )
    complete = Goal((0.814, None), (0.829, None), (0.828, None))
    return dataclasses.replace(split, subset=("nothing missing", whole, complete))


def playground_nine(books: Path) -> Split:
    """Without the lender's grade and rate."""
    goal = Goal((0.8988, 0.2275), (0.9250, 0.2048), (0.925, 0.205))
    return _playground(books, "playground_nine", goal)


def playground_all(books: Path) -> Split:
    goal = Goal((0.9608, 0.1471), (0.9608, 0.1471), (0.961, 0.147))
    return _playground(books, "playground_all", goal)


def playground_views(books: Path) -> Split:
    """All columns, numbers also as categories, and the rows of credit_risk to learn from."""
    plain = playground_all(books)
    _, other, other_outcome = _inputs(books, "playground_all", book="credit_risk.csv.gz")
    own = len(plain.outcome)
    matrix = np.vstack([plain.matrix, other])
    learn = np.concatenate([plain.learn, np.arange(own, len(matrix))])
    numbers = [
        name
        for name in (column.name for column in plain.contract.feature_columns)
        if name not in plain.task.categories
    ]
    views = [_as_category(matrix[:, plain.task.names.index(name)], learn) for name in numbers]
    book = np.arange(len(matrix)) >= own
    task = dataclasses.replace(
        plain.task,
        names=(*plain.task.names, *(f"{name}_as_category" for name in numbers), "book"),
        categories={
            **plain.task.categories,
            **{f"{name}_as_category": n for name, (_, n) in zip(numbers, views, strict=True)},
            "book": 2,
        },
        monotone=(*plain.task.monotone, *[0] * (len(numbers) + 1)),
    )
    return dataclasses.replace(
        plain,
        task=task,
        matrix=np.column_stack([matrix, *(codes for codes, _ in views), book]),
        outcome=np.concatenate([plain.outcome, other_outcome]),
        learn=learn,
        like_judged=learn < own,
        goal=Goal((0.9680, 0.1351), (0.9680, 0.1351), (0.967, 0.136)),
    )


def credit_risk(books: Path) -> Split:
    """Without the grade; rows with gaps and copies dropped; the last fifth by position judged."""
    raw = pd.read_csv(books / "credit_risk.csv.gz").dropna().drop_duplicates()
    kept = raw.index.to_numpy()
    contract, matrix, outcome = _inputs(books, "credit_risk_without_grade")
    first = int(0.8 * len(kept))
    goal = Goal((0.9379, 0.1978), (0.9434, 0.1875), (0.943, 0.188))
    return _split(contract, matrix, outcome, kept[:first], kept[first:], goal)


def lending_club(books: Path) -> Split:
    """The shipped contract; loans granted before June 2011 learnt from, later ones judged."""
    contract = contract_of("lending_club")
    matrix, outcome = _matrix(contract, books / "lending_club_2007_2011.csv.gz")
    granted = pd.read_csv(books / "lending_club_2007_2011.csv.gz", usecols=["issue_d"])["issue_d"]
    later = (granted >= "2011-06-01").to_numpy()
    goal = Goal((None, None), (0.7051, 0.3961), (0.703, 0.3965))
    return _split(contract, matrix, outcome, np.flatnonzero(~later), np.flatnonzero(later), goal)


FIELD: dict[str, Callable[[Path], Split]] = {
    "loan_approval": loan_approval,
    "loan_default": loan_default,
    "playground, nine columns": playground_nine,
    "playground, all columns": playground_all,
    "playground, with views": playground_views,
    "credit_risk without grade": credit_risk,
    "lending_club from 2011-06": lending_club,
}
SHIPPED = ("credit_risk", "loan_approval", "loan_default", "playground_s4e10", "lending_club")


def own(portfolio: str, months: dict[str, Path]) -> Split:
    """A shipped contract's rows and parts as `training.train` takes them."""
    contract = contract_of(portfolio)
    rows = known_rows(contract, months, AS_OF)
    used = plan(contract, rows)
    return _split(
        contract,
        rows.matrix,
        rows.outcome,
        np.flatnonzero(used.learn),
        np.flatnonzero(used.judge),
        None,
    )


def cleaned_months(portfolio: str, books: Path, folder: Path) -> dict[str, Path]:
    """The cleaned layer of a shipped contract's book, in `folder`."""
    contract = contract_of(portfolio)
    return write_months(cleaned_table(contract, books / str(contract.source.path)), folder)


def _playground(books: Path, name: str, goal: Goal) -> Split:
    """A fifth is put aside and half of it judged; nobody learns from the other half."""
    contract, matrix, outcome = _inputs(books, name)
    learn, aside = shuffled(len(outcome), 0.2)
    judge = aside[shuffled(len(aside), 0.5)[1]]
    return _split(contract, matrix, outcome, learn, judge, goal)


def _split(
    contract: Contract,
    matrix: np.ndarray,
    outcome: np.ndarray,
    learn: np.ndarray,
    judge: np.ndarray,
    goal: Goal | None,
) -> Split:
    alike = np.ones(len(learn), dtype=bool)
    return Split(contract, task_of(contract), matrix, outcome, learn, judge, alike, goal=goal)


def _inputs(
    books: Path, name: str, book: str | None = None
) -> tuple[Contract, np.ndarray, np.ndarray]:
    """A benchmark contract, and what it makes of every row of its book, or of another one."""
    contract = read_contract(CONTRACTS / f"{name}.yaml")
    matrix, outcome = _matrix(contract, books / (book or str(contract.source.path)))
    return contract, matrix, outcome


def _matrix(contract: Contract, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, inputs) and outcome (n,) of every row of the file, in its order.

    No row is refused: the field's systems learn from, and are judged on, all of them.
    """
    typed = typed_sql(contract, "source")
    also = ("_row", "_outcome_text")
    with duck.connect() as connection:
        connection.execute(
            "CREATE TABLE source AS SELECT row_number() OVER () AS _row, 'book' AS _origin, * "
            "FROM read_csv(?, all_varchar = true)",
            [str(file)],
        )
        inputs = features_sql(contract, f"({typed})", also=also)
        table = connection.sql(
            f"SELECT * FROM ({matrix_sql(contract, f'({inputs})', also)}) ORDER BY _row"
        ).to_arrow_table()
    columns = [np.asarray(table[name], dtype=np.float64) for name in contract.model_inputs]
    bad = set(contract.outcome.bad)
    outcome = np.array([text in bad for text in table["_outcome_text"].to_pylist()], np.int64)
    return np.column_stack(columns), outcome


def _as_category(values: np.ndarray, learn: np.ndarray) -> tuple[np.ndarray, int]:
    """A code for each value learnt from more than once, NaN for others; and how many codes."""
    seen, times = np.unique(values[learn][~np.isnan(values[learn])], return_counts=True)
    known = seen[times > 1]
    at = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[at] == values, at.astype(np.float64), np.nan), len(known)
