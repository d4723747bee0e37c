"""A search in MLflow: one run of the experiment named after the portfolio, each trial nested in it.

A search that goes on after it was killed goes on in its run, so nothing is there twice.

Here: writing them. Not here: the trials themselves (`training.search`), or models (`models`).
"""

from __future__ import annotations

import datetime as dt
import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from loan_platform.engine.home import Home
from loan_platform.registry.models import Registry
from loan_platform.training.recipe import Recipe, Tried

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUESTION_TAG = "loan_platform.search"
PLACE_TAG = "loan_platform.trial"
STATE_TAG = "loan_platform.state"
MOST_TRIALS = 10_000


class TrialRuns:
    """The MLflow run of one search, a `training.search.Tracker`; leaving it ends the run.

    `parent_run_id`: the run it is nested in.
    """

    def __init__(self, home: Home, portfolio: str, parent_run_id: str | None = None) -> None:
        self._registry = Registry(home, portfolio)
        self._parent = parent_run_id
        self._run_id: str | None = None

    def __enter__(self) -> TrialRuns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._run_id is not None:
            self._client.set_terminated(self._run_id, "FINISHED" if error is None else "FAILED")

    @property
    def run_id(self) -> str:
        """The run of the search, once it has begun."""
        if self._run_id is None:
            raise RuntimeError("the search has not begun; search(..., tracker=this) begins it")
        return self._run_id

    def begin(self, question: str) -> set[int]:
        """Make the run of the search that asks `question`, or take it up; gives the places there.

        A run that was taken up is nested where it was.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

        asked = f"tags.`{QUESTION_TAG}` = '{question}'"
        if found := self._client.search_runs([self._experiment], asked, max_results=1):
            self._run_id = found[0].info.run_id
            self._client.update_run(self.run_id, "RUNNING")
            nested = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.run_id}'"
            trials = self._client.search_runs([self._experiment], nested, max_results=MOST_TRIALS)
            ended = ("FINISHED", "FAILED")
            return {int(t.data.tags[PLACE_TAG]) for t in trials if t.info.status in ended}
        portfolio = self._registry.portfolio
        tags = {
            MLFLOW_RUN_NAME: f"{portfolio} search",
            "portfolio": portfolio,
            QUESTION_TAG: question,
            **({MLFLOW_PARENT_RUN_ID: self._parent} if self._parent else {}),
        }
        self._run_id = self._client.create_run(self._experiment, tags=tags).info.run_id
        return set()

    def record(self, tried: Tried) -> None:
        """One nested run: settings, measures, duration (seconds), and what became of the trial."""
        from mlflow.entities import Metric, Param
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

        began = _milliseconds(tried.began)
        ended = began + int(1000 * tried.seconds)
        run_id = self._client.create_run(
            self._experiment,
            start_time=began,
            tags={
                MLFLOW_PARENT_RUN_ID: self.run_id,
                MLFLOW_RUN_NAME: f"trial {tried.place}: {tried.family}",
                "portfolio": self._registry.portfolio,
                PLACE_TAG: str(tried.place),
                STATE_TAG: tried.state,
                **({"error": tried.error} if tried.error else {}),
            },
        ).info.run_id
        measures = {**tried.figures, "seconds": tried.seconds}
        settings = {"family": tried.family, **tried.parameters}
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, ended, 0) for name, value in measures.items()],
            params=[Param(name, str(value)) for name, value in settings.items()],
        )
        self._client.set_terminated(
            run_id, "FAILED" if tried.state == "failed" else "FINISHED", ended
        )

    def conclude(self, recipe: Recipe) -> None:
        """Put what the search found on its run."""
        from mlflow.entities import Metric

        at = _milliseconds(dt.datetime.now(dt.UTC))
        figures = {**recipe.figures, "trials": len(recipe.tried)}
        self._client.log_batch(
            self.run_id, metrics=[Metric(name, value, at, 0) for name, value in figures.items()]
        )
        self._client.set_tag(self.run_id, "recipe", recipe.words)
        with tempfile.TemporaryDirectory() as folder:
            recipe.write(Path(folder) / "recipe.json")
            self._client.log_artifacts(self.run_id, folder)

    @property
    def _client(self) -> MlflowClient:
        return self._registry.client

    @cached_property
    def _experiment(self) -> str:
        return self._registry.experiment_id()


def _milliseconds(moment: dt.datetime) -> int:
    return int(1000 * moment.timestamp())
