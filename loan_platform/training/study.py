"""The trials of one search, kept in a folder so that a killed search goes on where it was.

One folder, one question: rows, folds, families, settings, library versions. Another question
empties it. Each trial has a place, 1 to the budget. Its margins are stored before it counts as
finished, so a finished trial can always be blended; one that was under way when the process died
takes its place again with the same settings. The sampler is seeded by seed and place: it needs no
memory of what was asked before.

Here: asking Optuna for settings, and keeping results. Not here: what a trial does (`search`).
"""

from __future__ import annotations

import dataclasses
import fcntl
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loan_platform.contract.settings import Family
from loan_platform.engine.files import make_folder, replacing, write_text
from loan_platform.training.families import module
from loan_platform.training.recipe import Tried

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 50
"""Most proposals for one place; beyond it the families hold nothing that was not tried."""

_FAMILY = "family"  # the one name all trials of a study share
_PLAN, _LOSS, _RESULT = "plan", "loss", "result"  # attributes of a trial


class StudyError(RuntimeError):
    """The trials cannot be kept or read: says what, where, and how to mend it."""


@dataclass(frozen=True)
class Plan:
    """What a trial is to try, and where it stands in the search.

    `proposed`: by Optuna, not given.
    """

    place: int
    family: Family
    parameters: dict[str, Any]
    proposed: bool


class Study:
    """The trials of one question; open it with `opened`."""

    def __init__(self, study: optuna.Study, folder: Path, seed: int) -> None:
        self._study = study
        self._folder = folder
        self._seed = seed
        self._asked: dict[int, tuple[Plan, optuna.Trial]] = {}
        self._interrupted: dict[int, dict[str, Any]] = {}

    def tried(self) -> list[Tried]:
        """Every finished trial, by place."""
        found = [
            Tried.model_validate(trial.user_attrs[_RESULT])
            for trial in self._study.get_trials(deepcopy=False)
            if _RESULT in trial.user_attrs
        ]
        return sorted(found, key=lambda one: one.place)

    def ask(
        self,
        place: int,
        families: Sequence[Family],
        family: Family,
        given: Mapping[str, Any] | None = None,
    ) -> Plan | None:
        """Settings of a family for a place: `given`, or what Optuna proposes.

        A place that was killed has the settings again that it had. `families` are those of the
        study. None where nothing is left that was not tried.
        """
        import optuna

        seen = [_whole(one.family, one.parameters) for one in self.tried()]
        seen += [_whole(plan.family, plan.parameters) for plan, _ in self._asked.values()]
        for attempt in range(ATTEMPTS):
            # A sampler of its own for each place, so that it proposes the same after a restart.
            self._study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([self._seed, place, attempt]).generate_state(1)[0]),
                n_startup_trials=len(families),
            )
            fixed = self._interrupted.pop(place, None)
            if fixed is None and given is not None:
                _, whole = _whole(family, given)
                fixed = {_FAMILY: family, **{f"{family}.{k}": v for k, v in whole.items()}}
            self._study.enqueue_trial(fixed or {_FAMILY: family})
            trial = self._study.ask()
            chosen = cast("Family", trial.suggest_categorical(_FAMILY, list(families)))
            asked = module(chosen).suggest(cast("optuna.Trial", _OfFamily(trial, chosen, fixed)))
            parameters = asked if given is None else dict(given)
            if _whole(chosen, parameters) in seen:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                given = None
                continue
            plan = Plan(place, chosen, parameters, proposed=given is None)
            trial.set_user_attr(_PLAN, dataclasses.asdict(plan))
            self._asked[place] = (plan, trial)
            return plan
        return None

    def hopeless(self, plan: Plan, loss: float) -> bool:
        """Whether the first fold's `loss` is above the median of the family's complete trials.

        Optuna's own median is over all families: it would stop every proposal of a weaker one,
        which may be the one a blend needs.
        """
        from optuna.trial import TrialState

        _, trial = self._asked[plan.place]
        trial.report(loss, 0)
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        of_family = [
            one.intermediate_values[0] for one in complete if one.params[_FAMILY] == plan.family
        ]
        return bool(of_family) and loss > float(np.median(of_family))

    def keep(self, tried: Tried, loss: float | None, margin: np.ndarray | None = None) -> None:
        """Finish a trial; a complete one with its margins, shape (n,).

        `loss` None: nothing is to be learnt from it for what is proposed next.
        """
        if margin is not None:
            with replacing(self._margins(tried.place)) as whole, whole.open("wb") as file:
                np.save(file, margin)
        _, trial = self._asked.pop(tried.place)
        trial.set_user_attr(_LOSS, loss)
        trial.set_user_attr(_RESULT, tried.model_dump(mode="json"))  # from here on it is finished
        self._tell(trial.number, tried, loss)

    def margin(self, tried: Tried) -> np.ndarray:
        """The margins a complete trial was kept with, shape (n,)."""
        return np.asarray(np.load(self._margins(tried.place), allow_pickle=False))

    def _tell(self, number: int, tried: Tried, loss: float | None) -> None:
        from optuna.trial import TrialState

        if loss is None:
            self._study.tell(number, state=TrialState.FAIL)
        elif tried.state == "complete":
            self._study.tell(number, loss)
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def _margins(self, place: int) -> Path:
        return self._folder / f"trial-{place}.npy"

    def _take_up(self) -> None:
        """End what a killed search left under way, and keep its settings for its place."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.WAITING:
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            if trial.state is not TrialState.RUNNING:
                continue
            if _RESULT in trial.user_attrs:
                tried = Tried.model_validate(trial.user_attrs[_RESULT])
                self._tell(trial.number, tried, trial.user_attrs[_LOSS])
                continue
            if _PLAN in trial.user_attrs:
                self._interrupted[trial.user_attrs[_PLAN]["place"]] = dict(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def opened(folder: Path, question: str, seed: int) -> Iterator[Study]:
    """The study of `question` in `folder`, which nobody else may open meanwhile.

    Raises:
        StudyError: another search works in this folder.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    make_folder(folder)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however
        except BlockingIOError:
            raise StudyError(
                f"another search works in {folder}; wait for its end, or stop it"
            ) from None
        _empty_for_another(folder, question)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = folder / "trials.journal"
        _mend(journal)
        storage = optuna.storages.JournalStorage(
            JournalFileBackend(str(journal), cast("Any", _Alone()))
        )
        with warnings.catch_warnings():
            # Settings known to be good may lie outside the range worth searching.
            warnings.filterwarnings("ignore", message="Fixed parameter .* out of range")
            study = Study(
                optuna.create_study(
                    storage=storage,
                    study_name=question,
                    direction="minimize",
                    load_if_exists=True,
                    pruner=optuna.pruners.NopPruner(),  # `hopeless` decides
                ),
                folder,
                seed,
            )
            study._take_up()
            yield study


class _Alone:
    """Optuna's lock on its journal: none, since `opened` holds one that ends with its process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(journal: Path) -> None:
    """Take away a last line that a crash left unfinished; Optuna would write on behind it."""
    content = journal.read_bytes() if journal.is_file() else b""
    if whole := content[: content.rfind(b"\n") + 1]:
        if whole != content:
            journal.write_bytes(whole)
    else:
        journal.unlink(missing_ok=True)


def _empty_for_another(folder: Path, question: str) -> None:
    """Take away the trials of another question: their margins are of other rows."""
    asked = folder / "question"
    if asked.is_file() and asked.read_text(encoding="utf-8") == question:
        return
    for file in [*folder.glob("trial-*.npy"), *folder.glob("trials.journal")]:
        file.unlink()
    write_text(question, asked)


class _OfFamily:
    """A trial whose names are the family's own: two families may use one name otherwise.

    `fixed`: what is set beforehand; a name that is not among it keeps the library's own value, so
    Optuna is told nothing of it.
    """

    def __init__(self, trial: optuna.Trial, family: str, fixed: Mapping[str, Any] | None) -> None:
        self._trial = trial
        self._family = family
        self._fixed = fixed

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> float:
        ask = partial(self._trial.suggest_float, low=low, high=high, **how)
        return float(self._asked(name, low, ask))

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> int:
        ask = partial(self._trial.suggest_int, low=low, high=high, **how)
        return int(self._asked(name, low, ask))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        full = f"{self._family}.{name}"
        if self._fixed is not None and self._fixed.get(full) not in choices:
            return choices[0]  # Optuna keeps no value beside the choices
        return self._trial.suggest_categorical(full, list(choices))

    def _asked(self, name: str, otherwise: Any, ask: Callable[[str], Any]) -> Any:
        full = f"{self._family}.{name}"
        return ask(full) if self._fixed is None or full in self._fixed else otherwise


def _whole(family: Family, parameters: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """A family with all of its settings, those it has by default as well."""
    return family, {**module(family).defaults(), **parameters}
