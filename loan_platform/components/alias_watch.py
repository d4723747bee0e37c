"""The alias champion is watched: it is where the ledger has it, and all that follows it follows.

Here: the check `alias_in_ledger`, the sensor that settles a move by hand, tells of it, and has the
baseline and the Bento made again for another champion; both decide on plain evidence. Not here: the
moves themselves (`registry.moves`), sending alerts (`alerting`).

The sensor keeps no cursor. What was told already stands in the check's own history, what was made
for which champion in the assets' metadata; a restart or a lost tick changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from loan_platform.components.checks_history import MEND, failed_checks
from loan_platform.components.retraining import OPEN, REASON_TAG
from loan_platform.contract import Contract
from loan_platform.engine.home import Home

if TYPE_CHECKING:
    from loan_platform.registry.ledger import Break, Entry

ALIAS_IN_LEDGER = "alias_in_ledger"
# Metadata of a failed evaluation: which finding it tells of, so that it is told once.
FINDING = "finding"
CHAMPION_VERSION = "champion_version"
FOLLOWERS = ("baseline_stats", "loan_service")


@dataclass(frozen=True)
class Finding:
    """Something a person has to hear of: a key that stands for it, what it is, what to do."""

    key: str
    description: str
    mend: str


@dataclass(frozen=True)
class Made:
    """An asset's newest materialization: the champion it was made for, and the run; else None."""

    version: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known when the sensor ticks; `told`: keys of findings, `made`: by asset name."""

    entries: "Sequence[Entry]"
    broken: "Break | None"
    told: frozenset[str]
    made: Mapping[str, Made]
    open_run: str | None = None


@dataclass(frozen=True)
class Remake:
    """Make assets again: the key that stands for this evidence, which ones, and why."""

    run_key: str
    assets: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Decision:
    """What to tell, and what to make again; where nothing is, `waits` says why."""

    tell: tuple[Finding, ...]
    remake: Remake | None
    waits: str = ""


def decide(portfolio: str, evidence: Evidence) -> Decision:
    """What the evidence calls for. A finding is told once; a champion's followers are asked for
    once, and again when something else was made for another champion since."""
    from loan_platform.registry.ledger import standing

    found = findings(portfolio, evidence.entries, evidence.broken)
    tell = tuple(one for one in found if one.key not in evidence.told)
    if evidence.broken:
        return Decision(tell, None, "the ledger is not as it was written, so it is no guide")
    now = standing(evidence.entries)
    if now.champion is None or now.since is None:
        return Decision(tell, None, "there is no champion")
    behind = tuple(name for name, made in evidence.made.items() if made.version != now.champion)
    if not behind:
        return Decision(tell, None, f"all is made for version {now.champion}, the champion")
    what = f"{', '.join(behind)} of another champion than version {now.champion}"
    if evidence.open_run:
        return Decision(tell, None, f"{what}; run {evidence.open_run} may make them")
    made_by = ":".join(evidence.made[name].run_id or "never" for name in behind)
    run_key = f"{portfolio}:champion:{now.champion}:{now.since.seq}:{made_by}"
    moved = f"{now.since.event.replace('_', ' ')} by {now.since.by}"
    return Decision(tell, Remake(run_key, behind, f"version {now.champion} was {moved}"))


def findings(portfolio: str, entries: "Sequence[Entry]", broken: "Break | None") -> list[Finding]:
    """Every champion moved by hand, and where the ledger itself is not as it was written."""
    found = [
        _by_hand(portfolio, entry, entries[entry.seq :])
        for entry in entries
        if (entry.event, entry.alias) == ("moved_by_hand", "champion") and not broken
    ]
    if broken:
        found.append(
            Finding(
                f"broken:{broken.seq}",
                f"the ledger of {portfolio} is not as it was written: {broken.why}",
                "find out who can write to its database, compare with a backup, and look at "
                f"loan-platform history {portfolio}; until then do not rely on what it says",
            )
        )
    return found


def _by_hand(portfolio: str, entry: "Entry", later: "Sequence[Entry]") -> Finding:
    settled = next((one for one in later if one.event in SETTLED_AS), None)
    outcome = SETTLED_AS[settled.event] if settled else "is not settled yet"
    mends = {
        "put_back": f"if the move was meant, loan-platform promote {portfolio} --version "
        f"{entry.to_version or 'V'}; if not, see who can write to MLflow",
        "adopted": f"if the move was not meant, loan-platform rollback {portfolio}, and see who "
        "can write to MLflow",
    }
    look = f"look at loan-platform history {portfolio}, and see who can write to MLflow"
    return Finding(
        f"{entry.seq}:{entry.hash[:12]}",
        f"the champion of {portfolio} was moved by hand in MLflow, from "
        f"{_named(entry.from_version)} to {_named(entry.to_version)} (found {entry.at[:16]} UTC); "
        f"that {outcome}",
        mends.get(settled.event if settled else "", look),
    )


SETTLED_AS = {
    "put_back": "was put back",
    "adopted": "was adopted",
    "promoted": "was followed by a promotion",
    "rolled_back": "was rolled back",
}


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"


def gather(instance: dg.DagsterInstance, contract: Contract, home: Home) -> Evidence:
    """Read the evidence from the ledger, MLflow and Dagster's storage."""
    from loan_platform.registry.ledger import Ledger
    from loan_platform.registry.models import Registry
    from loan_platform.registry.moves import chain_head

    ledger = Ledger(home, contract.name)
    key = alias_check_key(contract)
    return Evidence(
        entries=ledger.entries(),
        broken=ledger.verify(chain_head(Registry(home, contract.name))),
        told=frozenset(
            str(failed.metadata.get(FINDING)) for failed in failed_checks(instance, key, since=0.0)
        ),
        made={name: _made(instance, dg.AssetKey([contract.name, name])) for name in FOLLOWERS},
        open_run=_open_run(instance, contract),
    )


def _made(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Made:
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return Made()
    version = event.asset_materialization.metadata.get(CHAMPION_VERSION)
    return Made(str(version.value) if version else None, event.run_id or None)


def _open_run(instance: dg.DagsterInstance, contract: Contract) -> str | None:
    """A run that goes on and may move the champion or make what follows it."""
    mine = {dg.AssetKey([contract.name, name]) for name in ("champion", *FOLLOWERS)}
    for run in instance.get_runs(dg.RunsFilter(statuses=OPEN)):
        # A run of a sensor's or schedule's own job does not list its assets.
        if run.asset_selection is None or mine & set(run.asset_selection):
            return run.run_id
    return None


def alias_check_key(contract: Contract) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(dg.AssetKey([contract.name, "champion"]), ALIAS_IN_LEDGER)


def alias_check_spec(contract: Contract) -> dg.AssetCheckSpec:
    """The check `alias_in_ledger`: red from a move by hand until the champion is judged again."""
    return dg.AssetCheckSpec(
        ALIAS_IN_LEDGER,
        asset=alias_check_key(contract).asset_key,
        description="The alias champion is where the ledger of promotions has it, and the ledger "
        "is as it was written.",
    )


def alias_check_result(contract: Contract, home: Home) -> dg.AssetCheckResult:
    """The verdict of `alias_in_ledger` now, of the asset that has just done its work."""
    from loan_platform.registry.ledger import Ledger
    from loan_platform.registry.models import Registry
    from loan_platform.registry.moves import chain_head

    registry, ledger = Registry(home, contract.name), Ledger(home, contract.name)
    champion, now = registry.version_of("champion"), ledger.standing()
    named = _named(champion)
    if broken := ledger.verify(chain_head(registry)):
        (found,) = findings(contract.name, ledger.entries(), broken)
    elif now.by_hand or champion != now.champion:
        found = Finding(
            f"now:{named}",
            f"the champion is {named} in MLflow, and {_named(now.champion)} in the ledger",
            f"the sensor {contract.name}_champion_watch settles it; see that it runs",
        )
    else:
        return dg.AssetCheckResult(
            check_name=ALIAS_IN_LEDGER,
            passed=True,
            description=f"the champion is {named} in MLflow and in the ledger",
        )
    return dg.AssetCheckResult(
        check_name=ALIAS_IN_LEDGER,
        passed=False,
        description=found.description,
        metadata={FINDING: found.key, MEND: found.mend},
    )


def champion_watch(contract: Contract) -> dg.SensorDefinition:
    """The sensor `<portfolio>_champion_watch`."""
    model = dg.AssetKey([contract.name, "trained_model"])
    followers = [dg.AssetKey([contract.name, name]) for name in FOLLOWERS]
    check_key = alias_check_key(contract)

    @dg.sensor(
        name=f"{contract.name}_champion_watch",
        description="Adopts or puts back a champion moved by hand in MLflow, and makes what "
        "follows the champion again when it is another.",
        target=dg.AssetSelection.assets(*followers),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def watch(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> Any:
        if context.instance.get_latest_materialization_event(model) is None:
            # Nor is MLflow asked: its server makes the store when it first starts.
            return dg.SkipReason("no model was trained yet")
        from loan_platform.registry.ledger import Ledger
        from loan_platform.registry.models import Registry
        from loan_platform.registry.moves import MoveError, reconcile

        registry, ledger = Registry(home, contract.name), Ledger(home, contract.name)
        trouble = ""
        try:
            for entry in reconcile(registry, ledger, contract.promotion.alias_moved_by_hand):
                moved = f"{entry.alias} {entry.event}: {_named(entry.to_version)}"
                context.log.warning(f"{moved}, {entry.reason}")
        except MoveError as error:
            trouble = f"{error}; "
        decision = decide(contract.name, gather(context.instance, contract, home))
        told = [_evaluation(check_key, finding) for finding in decision.tell]
        if decision.remake is None:
            return dg.SensorResult(skip_reason=trouble + decision.waits, asset_events=told)
        context.log.info(decision.remake.reason)
        request = dg.RunRequest(
            run_key=decision.remake.run_key,
            asset_selection=[dg.AssetKey([contract.name, a]) for a in decision.remake.assets],
            tags={REASON_TAG: decision.remake.reason},
        )
        return dg.SensorResult(run_requests=[request], asset_events=told)

    return watch


def _evaluation(check_key: dg.AssetCheckKey, finding: Finding) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=check_key.asset_key,
        check_name=check_key.name,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=finding.description,
        metadata={FINDING: finding.key, MEND: finding.mend},
    )
