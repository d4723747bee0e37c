"""Natural batching: whatever waits is decided together, and answered once it is durable.

While one drain runs, requests gather; the next takes them all: one feature query, one
prediction, one commit; and one more query and prediction for the reasons of those that are not
approved. A lone request waits for nobody, and there is no timer to tune.
Not here: HTTP (`app`), or which model answers (`champion`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import traceback
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import duckdb
import numpy as np
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from bento.champion import Champion
from loan_platform.contract.request import Application, DecisionResponse, Reason, Value
from loan_platform.decisions.log import Decision, DecisionLog
from loan_platform.model.reasons import UNKNOWN

logger = logging.getLogger("bentoml.loan_service")

QUIET_TURNS = 3  # event-loop turns in a row that brought nobody: all who are coming are here
MOST_WAITING = 1024  # some 3 s of work, were none of them approved and each given its reasons

REASONS = TypeAdapter(list[Reason])


class RuleBroken(Exception):
    """The application breaks a row rule; the text is `sql.refusal_sql`'s."""


class NotRecorded(Exception):
    """The decision could not be made durable, so there is none."""


class Overloaded(Exception):
    """More requests wait than can be answered in good time."""


@dataclass(slots=True)
class _Waiting:
    champion: Champion
    application: Application
    answer: asyncio.Future[DecisionResponse]


Answer = DecisionResponse | Exception


class Batcher:
    """Decides about applications in drains, on one thread that owns features and log."""

    def __init__(self, log: DecisionLog) -> None:
        self._log = log
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drain")
        self._draining: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain_for_ever())

    async def stop(self) -> None:
        """Let the running drain finish, then close the log."""
        if self._draining is not None:
            self._draining.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self._log.close()

    async def decide(self, champion: Champion, application: Application) -> DecisionResponse:
        """The decision of `champion`, durable.

        Raises:
            RuleBroken, NotRecorded, Overloaded
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded
        answer: asyncio.Future[DecisionResponse] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(champion, application, answer))
        self._arrived.set()
        return await answer

    async def _drain_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await self._settle()
            batch, self._waiting = self._waiting, []
            self._arrived.clear()
            answers: Sequence[Answer]
            try:
                answers = await loop.run_in_executor(self._thread, self._decide, batch)
            except Exception as error:
                answers = [error] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    async def _settle(self) -> None:
        quiet, seen = 0, len(self._waiting)
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)

    def _decide(self, batch: list[_Waiting]) -> list[Answer]:
        """Answers in the order of `batch`; every decision among them is durable."""
        answers: dict[int, Answer] = {}
        decided: dict[int, Decision] = {}
        for champion in {id(waiting.champion): waiting.champion for waiting in batch}.values():
            # One champion but for the moment of a swap: each request keeps the one it met.
            at = [n for n, waiting in enumerate(batch) if waiting.champion is champion]
            found = _answer(champion, [batch[n].application for n in at])
            for n, outcome in zip(at, found, strict=True):
                if isinstance(outcome, Decision):
                    decided[n] = outcome
                else:
                    answers[n] = outcome
        if decided:
            try:
                self._log.append(list(decided.values()))
            except SQLAlchemyError as error:
                # From None: a database's message may repeat a row.
                failure = NotRecorded(type(error).__name__)
                return [answers.get(n, failure) for n in range(len(batch))]
        for n, decision in decided.items():
            told = {**asdict(decision), "reasons": REASONS.validate_json(decision.reasons)}
            answers[n] = DecisionResponse.model_validate(told)
        return [answers[n] for n in range(len(batch))]


def _answer(
    champion: Champion, applications: list[Application]
) -> list[Decision | RuleBroken | duckdb.Error]:
    """What `champion` decides about each application; nothing is written yet."""
    rows = [application.inputs for application in applications]
    try:
        matrix, refusals = champion.features.evaluate(rows)
    except duckdb.Error as error:
        if len(rows) == 1:
            return [error]
        # One row that no expression can bear must not take those beside it down.
        return [_answer(champion, [application])[0] for application in applications]
    bundle = champion.bundle
    accepted = [n for n, refusal in enumerate(refusals) if not refusal]
    found: list[Decision | RuleBroken | duckdb.Error] = [RuleBroken(text) for text in refusals]
    if not accepted:
        return found
    probabilities = np.asarray(bundle.probability(matrix[accepted]), dtype=np.float64)
    words = bundle.policy.decide(probabilities)
    unapproved = [n for n, word in zip(accepted, words, strict=True) if word != "approve"]
    reasons = dict(
        zip(
            unapproved,
            _reasons(champion, [rows[n] for n in unapproved], matrix[unapproved]),
            strict=True,
        )
    )
    labels = bundle.policy.label(probabilities)
    decided_at = dt.datetime.now(dt.UTC)
    for n, probability, word, label in zip(accepted, probabilities, words, labels, strict=True):
        found[n] = Decision(
            decision_id=uuid.uuid4().hex,
            application_id=applications[n].application_id,
            applied_at=applications[n].applied_at,
            decided_at=decided_at,
            model_version=champion.version,
            contract_hash=champion.contract_hash,
            policy_hash=champion.policy_hash,
            probability_default=float(probability),
            label=int(label),
            decision=str(word),
            inputs=json.dumps(rows[n], ensure_ascii=False),
            reasons=REASONS.dump_json(reasons.get(n, [])).decode(),
        )
    return found


def _reasons(
    champion: Champion, rows: list[dict[str, Value]], matrix: np.ndarray
) -> list[list[Reason]]:
    """Reasons of each application; that they fail must not cost anybody a decision."""
    if not rows:
        return []
    try:
        return champion.reasons.of(rows, matrix)
    except Exception as error:
        # Its text may repeat a value: where it happened is enough.
        where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        logger.error("no reasons for a drain: %s\n%s", type(error).__name__, where)
        return [[UNKNOWN] for _ in rows]
