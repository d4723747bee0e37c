"""Why an application was not approved, in sentences that were tried before they are said.

A sentence names one column, the applicant's value and what approved loans typically have. It is
said only if the same application, with that one column at the typical value, gets a lower
probability of default from the same model: see docs/reasons.md.

Here: which columns are named, in which order, in which words. Not here: what is typical of
approved loans (`training.reference`), or when reasons are asked for (`bento.batching`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cached_property

import duckdb
import numpy as np

from loan_platform.contract.expression import columns_of
from loan_platform.contract.portfolio import Column
from loan_platform.contract.request import Reason, Value
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import Bundle

MOST = 4  # more are not helpful to an applicant: 12 CFR 1002, comment 9(b)(2)-1
LEAST_GAIN = 1e-6  # of log-odds; less could be how a library rounds
WORTH_SAYING = 0.01  # of log-odds: the odds of default fall by one in a hundred
LONGEST_TEXT = 80  # characters of a text column that a sentence repeats

TOGETHER = Reason(
    column=None,
    value=None,
    reference=None,
    text="No single value could be shown to be the reason; the values of the application led to "
    "this decision together",
)
UNKNOWN = Reason(
    column=None,
    value=None,
    reference=None,
    text="The reasons could not be worked out here; ask the lender for them",
)


class Reasons:
    """Reasons of one model's decisions. Not for two threads at a time, as `features` is not."""

    def __init__(self, bundle: Bundle, features: PreparedFeatures) -> None:
        self._bundle = bundle
        self._features = features
        asked = bundle.contract.request_columns
        self._columns = [column for column in asked if column.name in bundle.reference]
        time = bundle.contract.time_column  # has a typical day where features read it
        self._day = time.name if time and time.name in bundle.reference else None

    def of(self, rows: Sequence[Mapping[str, Value]], matrix: np.ndarray) -> list[list[Reason]]:
        """One to `MOST` reasons of each application, the largest contribution first.

        `rows` and `matrix` are what `features` took and gave. The reasons of a row do not depend
        on the rows beside it.
        """
        references = [[self._reference(column, row) for column in self._columns] for row in rows]
        gains = self._gains(rows, matrix, references)
        weights = self._contributions(matrix)
        if weights is None:  # the exact difference of one column is all that is known
            weights = gains
        return [
            [
                Reason(
                    column=column.name,
                    value=row[column.name],
                    reference=there[at],
                    text=sentence(column, row[column.name], there[at]),
                )
                for at in _stated(gain, weight)
                for column in [self._columns[at]]
            ]
            or [TOGETHER]
            for row, there, gain, weight in zip(rows, references, gains, weights, strict=True)
        ]

    def _reference(self, column: Column, row: Mapping[str, Value]) -> Value:
        """What approved loans typically have; a date as old as theirs, on the application's day."""
        typical, day = self._bundle.reference[column.name], self._day
        if column.type != "date" or typical is None or day is None:
            return typical
        passed = _day(row[day]) - _day(self._bundle.reference[day])
        return (_day(typical) + passed).isoformat()

    def _gains(
        self,
        rows: Sequence[Mapping[str, Value]],
        matrix: np.ndarray,
        references: list[list[Value]],
    ) -> np.ndarray:
        """By how much the log-odds fall with one column at its reference, (rows, columns).

        0 where that is not tried or proves nothing: the value is the typical one, it is on the
        better side of it by the contract's own word, or the changed application breaks a rule or
        fails in SQL. 0 too where the probability stays.
        """
        tried = [
            (n, at)
            for n, row in enumerate(rows)
            for at, column in enumerate(self._columns)
            if _speaks_against(column, row[column.name], references[n][at])
        ]
        changed = [{**rows[n], self._columns[at].name: references[n][at]} for n, at in tried]
        there, valid = self._evaluate(changed)
        proofs = np.array(tried, dtype=np.int64).reshape(-1, 2)[valid]
        margin = self._bundle.margin(np.vstack([matrix, there[valid]]))
        probability = self._bundle.calibrator.probability(margin)
        of, after = proofs[:, 0], np.arange(len(rows), len(margin))
        gain = margin[of] - margin[after]
        better = (gain >= LEAST_GAIN) & (probability[after] < probability[of])
        gains = np.zeros((len(rows), len(self._columns)))
        gains[of, proofs[:, 1]] = np.where(better, gain, 0)
        return gains

    def _evaluate(self, rows: list[dict[str, Value]]) -> tuple[np.ndarray, np.ndarray]:
        """The matrix of changed applications, and which of them are valid ones."""
        try:
            matrix, refusals = self._features.evaluate(rows)
        except duckdb.Error:
            # One row that no expression can bear must not take the others' reasons along.
            if len(rows) == 1:
                nothing = np.full((1, len(self._bundle.contract.model_inputs)), np.nan)
                return nothing, np.array([False])
            half = len(rows) // 2
            parts = [self._evaluate(rows[:half]), self._evaluate(rows[half:])]
            return np.vstack([m for m, _ in parts]), np.concatenate([valid for _, valid in parts])
        return matrix, np.array([not refusal for refusal in refusals], dtype=bool)

    def _contributions(self, matrix: np.ndarray) -> np.ndarray | None:
        """What each column adds to the log-odds, (rows, columns); None where that is unknown."""
        of_inputs = self._bundle.scorer.contributions(matrix)
        if of_inputs is None:
            return None
        folded = np.zeros((len(matrix), len(self._columns)))
        # One after the other: a matrix product may round otherwise for another number of rows.
        for source, target, share in self._shares:
            folded[:, target] += share * of_inputs[:, source]
        return folded

    @cached_property
    def _shares(self) -> list[tuple[int, int, float]]:
        """(model input, column, share): a column has its own contribution, and an equal share of
        each derived feature's that reads it, with the others an applicant gives. The day of the
        application has none: it is nobody's merit."""
        contract = self._bundle.contract
        given = {column.name for column in contract.request_columns}
        place = {column.name: at for at, column in enumerate(self._columns)}
        shares = []
        for at, name in enumerate(contract.model_inputs):
            feature = contract.features.get(name)
            read = [name] if feature is None else [n for n in columns_of(feature.sql) if n in given]
            shares += [(at, place[other], 1 / len(read)) for other in read if other in place]
        return shares


def sentence(column: Column, value: Value, reference: Value) -> str:
    """The reason in words: the applicant's value, and what approved applications typically have.

    'higher' and 'lower' are said where the contract declares the column's direction, to which
    the model keeps.
    """
    subject = (column.description or column.name).rstrip(". ")
    mine, typical = _words(column, value), _words(column, reference)
    if mine == typical:  # they differ in digits that are usually left out
        mine, typical = _words(column, value, exact=True), _words(column, reference, exact=True)
    if value is None:
        return f"{subject}: not given, where approved applications typically have {typical}"
    if reference is None:
        return f"{subject}: {mine}, where approved applications typically have none"
    if column.monotone:
        side = "higher" if column.monotone == "increasing" else "lower"
        return f"{subject}: {mine}, {side} than the {typical} approved applications typically have"
    return f"{subject}: {mine}, where approved applications typically have {typical}"


def _stated(gain: np.ndarray, weight: np.ndarray) -> list[int]:
    """Columns to name: proven ones that contribute, the largest contribution first.

    Where there is none worth saying: every proven one, the largest gain first.
    """
    named, by = np.flatnonzero((weight > 0) & (gain >= WORTH_SAYING)), weight
    if not len(named):
        named, by = np.flatnonzero(gain), gain
    return [int(at) for at in named[np.argsort(-by[named], kind="stable")][:MOST]]


def _speaks_against(column: Column, value: Value, reference: Value) -> bool:
    """Whether a value may be a reason: it is not typical, nor better by the declared direction."""
    if value == reference:
        return False
    if column.monotone is None or value is None or reference is None:
        return True
    higher = float(value) > float(reference)
    return higher == (column.monotone == "increasing")


def _words(column: Column, value: Value, exact: bool = False) -> str:
    if isinstance(value, str):
        if column.type != "text":
            return value
        return f"'{value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + '…'}'"
    if value is None:
        return "none"
    unit = "" if column.unit in (None, "ratio") else f" {column.unit}"
    return _number(value, exact) + (unit.removesuffix("s") if value == 1 else unit)


def _number(value: float, exact: bool) -> str:
    """With separators of thousands; two decimals, or of a number below 1 three digits."""
    if value == int(value):
        return f"{int(value):,}"
    if exact:
        return f"{value:,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.3g}"


def _day(text: Value) -> dt.date:
    return dt.date.fromisoformat(str(text))
