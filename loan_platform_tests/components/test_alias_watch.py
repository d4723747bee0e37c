"""The champion is watched: moves by hand are settled and told, and its followers follow.

The instance, the store of versions and the ledger are real; the assets that follow the champion are
small ones that say for which version they were made.
"""

from pathlib import Path

import dagster as dg
import pytest

from loan_platform.components.alerting import failures_since
from loan_platform.components.alias_watch import (
    ALIAS_IN_LEDGER,
    FOLLOWERS,
    Decision,
    Evidence,
    Made,
    alias_check_result,
    alias_check_spec,
    champion_watch,
    decide,
)
from loan_platform.components.checks_history import failed_checks
from loan_platform.components.retraining import REASON_TAG
from loan_platform.contract import Contract
from loan_platform.contract.settings import Promotion
from loan_platform.engine.home import Home
from loan_platform.registry import moves
from loan_platform.registry.ledger import Entry, Event, Ledger
from loan_platform.registry.models import Registry
from loan_platform_tests.components.conftest import everywhere
from loan_platform_tests.components.test_retraining import ORIGIN
from loan_platform_tests.registry.made import add_version, move_by_hand
from loan_platform_tests.registry.made import saved as saved

CHAMPION = dg.AssetKey(["credit_risk", "champion"])
CHECK = dg.AssetCheckKey(CHAMPION, ALIAS_IN_LEDGER)


class Platform:
    """One portfolio with three versions of which the first is champion, and what happens to it."""

    def __init__(self, contract: Contract, home: Home, instance: dg.DagsterInstance) -> None:
        self.instance, self.home, self.contract = instance, home, contract
        self.registry, self.ledger = Registry(home, contract.name), Ledger(home, contract.name)
        self.sensor = champion_watch(contract)
        registry = self.registry

        @dg.asset(key=["credit_risk", "trained_model"])
        def trained_model():
            return dg.MaterializeResult()

        @dg.multi_asset(specs=[dg.AssetSpec(CHAMPION)], check_specs=[alias_check_spec(contract)])
        def champion():
            return dg.MaterializeResult(check_results=[alias_check_result(contract, home)])

        def follower(name: str) -> dg.AssetsDefinition:
            @dg.asset(key=["credit_risk", name])
            def made():
                return dg.MaterializeResult(
                    metadata={"champion_version": registry.version_of("champion")}
                )

            return made

        followers = [follower(name) for name in FOLLOWERS]
        self.defs = dg.Definitions(
            assets=[trained_model, champion, *followers], sensors=[self.sensor]
        )
        self.job = self.defs.resolve_implicit_global_asset_job_def()

    def makes(self, *assets: str) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetKey(["credit_risk", asset]) for asset in assets]
        return self.job.execute_in_process(instance=self.instance, asset_selection=keys)

    def promotes(self, version: str) -> None:
        before = self.ledger.standing().champion
        evidence = {"champion_before": before}
        moves.promote(self.registry, self.ledger, version, by="asset", evidence=evidence)

    def tick(self) -> dg.RunRequest | str:
        """One evaluation, and what the daemon does with it; the request, or why there is none."""
        context = dg.build_sensor_context(
            instance=self.instance, definitions=self.defs, resources={"home": self.home}
        )
        data = self.sensor.evaluate_tick(context)
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        if data.run_requests:
            (request,) = data.run_requests
            return request
        return data.skip_message or ""

    def asks(self) -> dg.RunRequest:
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        return request

    def told(self) -> list[str]:
        """Descriptions of failed evaluations, oldest first."""
        failed = failed_checks(self.instance, CHECK, since=0.0)
        return [one.description or "" for one in reversed(failed)]


def set_to(contract: Contract, setting: str) -> Contract:
    promotion = Promotion.model_validate({"alias_moved_by_hand": setting})
    return contract.model_copy(update={"promotion": promotion})


@pytest.fixture
def platform(
    request: pytest.FixtureRequest,
    credit_risk: Contract,
    home_with_store: Home,
    instance: dg.DagsterInstance,
    saved: Path,
) -> Platform:
    setting = getattr(request, "param", "put_back")
    platform = Platform(set_to(credit_risk, setting), home_with_store, instance)
    for _ in range(3):
        add_version(platform.registry, saved)
    platform.promotes("1")
    platform.makes("trained_model", "champion", *FOLLOWERS)
    return platform


def test_nothing_is_asked_of_mlflow_before_there_is_a_model(
    credit_risk: Contract, home: Home, instance: dg.DagsterInstance
):
    empty = Platform(credit_risk, home, instance)
    assert empty.tick() == "no model was trained yet"
    assert not home.root.exists()


@everywhere
def test_a_move_by_hand_is_put_back_and_told_once_with_what_to_do(platform: Platform):
    assert "all is made for version 1" in str(platform.tick())
    move_by_hand(platform.registry, "3")
    assert "all is made for version 1" in str(platform.tick())
    assert platform.registry.version_of("champion") == "1"
    (failed,) = failed_checks(platform.instance, CHECK, since=0.0)
    assert failed.severity is dg.AssetCheckSeverity.ERROR
    assert (failed.description or "").startswith(
        "the champion of credit_risk was moved by hand in MLflow, from version 1 to version 3"
    )
    assert (failed.description or "").endswith("that was put back")
    assert "loan-platform promote credit_risk --version 3" in (failed.mend or "")
    for _ in range(2):
        platform.tick()
    assert len(platform.told()) == 1
    move_by_hand(platform.registry, "3")
    platform.tick()
    assert len(platform.told()) == 2


def test_the_alert_of_a_move_by_hand_reaches_the_receivers(platform: Platform):
    move_by_hand(platform.registry, "2")
    platform.tick()
    repository = platform.defs.get_repository_def()
    (alert,) = failures_since(platform.instance, repository, 0.0, lambda _key, _at: False)
    assert "alias_in_ledger" in alert.title
    assert "moved by hand" in alert.body


@pytest.mark.parametrize("platform", ["adopt"], indirect=True)
def test_a_move_by_hand_is_adopted_and_its_followers_are_made(platform: Platform):
    move_by_hand(platform.registry, "2")
    request = platform.asks()
    assert platform.registry.version_of("champion") == "2"
    assert set(request.asset_selection or []) == {
        dg.AssetKey(["credit_risk", name]) for name in FOLLOWERS
    }
    assert request.tags[REASON_TAG] == ("version 2 was adopted by loan-platform/champion watch")
    (told,) = platform.told()
    assert told.endswith("that was adopted")


def test_a_rollback_has_the_followers_made_again_once(platform: Platform):
    platform.promotes("2")
    platform.makes(*FOLLOWERS)
    assert "all is made for version 2" in str(platform.tick())
    moves.rollback(platform.registry, platform.ledger, by="Ann")
    request = platform.asks()
    assert request.tags[REASON_TAG] == "version 1 was rolled back by Ann"
    again = platform.asks()
    assert again.run_key == request.run_key, "Dagster launches one run for a key"
    platform.makes("loan_service")
    rest = platform.asks()
    assert rest.asset_selection == [dg.AssetKey(["credit_risk", "baseline_stats"])]
    platform.makes("baseline_stats")
    assert "all is made for version 1" in str(platform.tick())
    assert platform.told() == [], "a rollback is no news to the ledger"


def test_what_was_made_for_another_champion_since_is_asked_for_again(platform: Platform):
    """A run that had read the champion before, and ended after the rollback's own run."""
    platform.promotes("2")
    platform.makes(*FOLLOWERS)
    moves.rollback(platform.registry, platform.ledger, by="Ann")
    request = platform.asks()
    platform.makes(*FOLLOWERS)
    late = dg.AssetMaterialization(
        ["credit_risk", "baseline_stats"], metadata={"champion_version": "2"}
    )
    platform.instance.report_runless_asset_event(late)
    assert platform.asks().run_key != request.run_key


@pytest.mark.parametrize("selection", [None, "champion", "baseline_stats", "raw_loans"])
def test_a_run_that_may_make_them_is_waited_for(platform: Platform, selection: str | None):
    platform.promotes("2")
    keys = frozenset({dg.AssetKey(["credit_risk", selection])}) if selection else None
    run = platform.instance.create_run_for_job(
        job_def=platform.job,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=keys if selection != "raw_loans" else None,
        remote_job_origin=ORIGIN,
    )
    assert run.run_id in str(platform.tick())
    platform.instance.report_run_failed(run)
    assert platform.asks()


def test_an_interrupted_promotion_is_finished(platform: Platform):
    platform.ledger.append("promoting", by="Ann", from_version="1", to_version="2")
    assert platform.asks().tags[REASON_TAG] == "version 2 was promoted by Ann"
    assert platform.registry.version_of("champion") == "2"
    assert platform.told() == []


def test_the_check_is_red_until_the_champion_is_judged_again(platform: Platform):
    def evaluated() -> bool:
        (evaluation,) = platform.makes("champion").get_asset_check_evaluations()
        return bool(evaluation.passed)

    assert evaluated()
    move_by_hand(platform.registry, "3")
    assert not evaluated(), "nobody has settled it yet"
    platform.tick()
    assert evaluated()


def test_a_ledger_that_was_changed_is_told_and_moves_nothing(platform: Platform):
    import sqlite3

    file = platform.home.decisions / "credit_risk" / "ledger.db"
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER ledger_no_update")
        connection.execute("UPDATE ledger SET to_version = '2' WHERE event = 'promoted'")
    connection.close()
    said = str(platform.tick())
    assert "not as it was written (entry 2 was changed after it was written)" in said
    assert platform.registry.version_of("champion") == "1", "it is no guide any more"
    (told,) = platform.told()
    assert told.endswith("entry 2 was changed after it was written")


def entry(seq: int, event: Event, version: str | None) -> Entry:
    at = "2026-01-01T00:00"
    return Entry(seq, "book", at, "champion", event, None, version, "Ann", "", "{}", "", f"h{seq}")


def decided(
    *entries: Entry, told: tuple[str, ...] = (), open_run: str | None = None, **made: str
) -> Decision:
    versions = {name: Made(version, f"run-{version}") for name, version in made.items()}
    return decide("book", Evidence(entries, None, frozenset(told), versions, open_run))


def test_the_decision_on_plain_evidence():
    promoted = entry(1, "promoted", "1")
    assert decided().waits == "there is no champion"
    assert decided(promoted, a="1", b="1").remake is None
    behind = decided(promoted, a="1", b="0").remake
    assert behind is not None
    assert (behind.assets, behind.run_key) == (("b",), "book:champion:1:1:run-0")
    assert decided(promoted, a="0", open_run="run-7").remake is None
    by_hand = entry(2, "moved_by_hand", "2")
    (open_one,) = decided(promoted, by_hand).tell
    assert open_one.description.endswith("that is not settled yet")
    (settled,) = decided(promoted, by_hand, entry(3, "promoted", "3")).tell
    assert settled.description.endswith("that was followed by a promotion")
    assert decided(promoted, by_hand, told=(settled.key,)).tell == ()
