"""Failed checks, failed runs and overdue assets reach a real receiver: once each, none lost."""

import datetime as dt
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from loan_platform.alerts.delivery import VARIABLE
from loan_platform.components.alerting import alert_sensor, failures_since
from loan_platform.contract import ContractError
from loan_platform_tests.components.conftest import everywhere
from loan_platform_tests.receiver import HttpReceiver, http_receiver

REPORT = dg.AssetKey(["toy", "drift_report"])
RAW = dg.AssetKey(["toy", "raw_loans"])
CLEAN = dg.AssetKey(["toy", "cleaned_features"])


@dg.asset(key=REPORT, check_specs=[dg.AssetCheckSpec("no_drift", asset=REPORT)])
def drift_report():
    found = dg.AssetCheckResult(
        check_name="no_drift",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description="income moved",
        metadata={"partitions": ["2025-04"]},
    )
    return dg.MaterializeResult(check_results=[found])


@dg.asset(key=RAW, check_specs=[dg.AssetCheckSpec("none_lost", asset=RAW, blocking=True)])
def raw_loans():
    found = dg.AssetCheckResult(check_name="none_lost", passed=False, description="2 rows lost")
    return dg.MaterializeResult(check_results=[found])


def broken(error: Exception) -> dg.AssetsDefinition:
    @dg.asset(key=CLEAN)
    def cleaned_features() -> None:
        raise error

    return cleaned_features


class Location:
    """A code location with its storage; each tick is one evaluation with the stored cursor."""

    def __init__(self, instance: dg.DagsterInstance, error: Exception | None = None) -> None:
        self.instance = instance
        self.sensor = alert_sensor()
        self.defs = dg.Definitions(
            assets=[drift_report, raw_loans, broken(error or ValueError("income 51234 is bad"))],
            sensors=[self.sensor],
        )
        self.cursor: str | None = None

    def materialize(self, key: dg.AssetKey) -> str:
        job = self.defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance, asset_selection=[key], raise_on_error=False
        )
        return result.run_id

    def tick(self, *, stored: bool = True) -> str:
        """One tick; what it said. `stored=False`: the daemon dies before the cursor is stored."""
        context = dg.build_sensor_context(
            instance=self.instance, definitions=self.defs, cursor=self.cursor
        )
        data = self.sensor.evaluate_tick(context)
        if stored:
            self.cursor = data.cursor
        return data.skip_message or ""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with http_receiver() as held:
        monkeypatch.setenv(VARIABLE, held.url)
        yield held


@everywhere
def test_a_failed_check_is_told_once_with_its_run(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    run_id = location.materialize(REPORT)
    assert location.tick() == "json #1: 1 told"
    assert location.tick() == "json #1: 0 told"
    (message,) = receiver.messages
    assert message["title"] == "toy: check no_drift failed on drift_report"
    assert message["type"] == "warning"
    assert "What: income moved" in message["message"]
    assert "partition 2025-04" in message["message"]
    assert f"/runs/{run_id}" in message["message"]


def test_the_same_check_failing_in_another_run_is_another_failure(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    location.materialize(REPORT)
    location.tick()
    location.materialize(REPORT)
    location.tick()
    assert len(receiver.messages) == len(set(receiver.keys)) == 2


def test_a_failed_run_names_the_step_and_no_value_of_a_row(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    run_id = location.materialize(CLEAN)
    location.tick()
    (message,) = receiver.messages
    assert message["title"] == "toy: a run failed"
    assert "step toy__cleaned_features failed: ValueError" in message["message"]
    assert "Where: toy/cleaned_features\n" in message["message"]
    assert "51234" not in message["message"]
    assert f"/runs/{run_id}" in message["message"]


@pytest.mark.parametrize(
    "error",
    [
        ContractError("defs.yaml:7: columns[0].range: low is not below high"),
        dg.Failure("defs.yaml:7: columns[0].range: low is not below high"),
    ],
)
def test_an_error_worded_by_the_platform_is_quoted(
    instance: dg.DagsterInstance, receiver: HttpReceiver, error: Exception
):
    location = Location(instance, error)
    location.materialize(CLEAN)
    location.tick()
    assert "failed: defs.yaml:7: columns[0].range" in receiver.messages[0]["message"]


@everywhere
def test_a_run_failed_by_a_blocking_check_gives_one_message(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    location.materialize(RAW)
    location.tick()
    location.tick()
    assert receiver.titles == ["toy: check none_lost failed on raw_loans"]


def test_a_run_that_ended_without_a_failed_step_is_told(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    """A worker that was killed leaves no step failure behind."""
    location = Location(instance)
    job = location.defs.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(job_def=job, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "the worker is gone")
    location.tick()
    assert "What: the worker is gone" in receiver.messages[0]["message"]


@everywhere
def test_nothing_is_lost_while_the_receiver_is_down(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    receiver.down()
    location.materialize(REPORT)
    assert "1 still owed" in location.tick()
    location.materialize(CLEAN)
    assert "2 still owed" in location.tick()
    receiver.up()
    assert location.tick() == "json #1: 2 told"
    location.tick()
    assert len(receiver.messages) == 2


def test_a_receiver_that_is_down_holds_up_no_other(
    instance: dg.DagsterInstance, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
):
    with http_receiver(up=False) as other:
        monkeypatch.setenv(VARIABLE, f"{other.url} {receiver.url}")
        location = Location(instance)
        location.materialize(REPORT)
        location.tick()
        location.tick()
        assert len(receiver.messages) == 1
        other.up()
        location.tick()
        assert (len(receiver.messages), len(other.messages)) == (1, 1)


def test_a_tick_that_died_before_it_was_stored_is_repeated_with_the_same_keys(
    instance: dg.DagsterInstance, receiver: HttpReceiver
):
    location = Location(instance)
    location.materialize(REPORT)
    location.tick(stored=False)
    location.tick()
    assert len(receiver.messages) == 2
    assert len(set(receiver.keys)) == 1


def test_a_restart_neither_loses_nor_repeats(
    reopen: Callable[[], dg.DagsterInstance], receiver: HttpReceiver
):
    with reopen() as before:
        location = Location(before)
        location.materialize(REPORT)
        location.tick()
        cursor = location.cursor
        location.materialize(CLEAN)
    with reopen() as after:
        location = Location(after)
        location.cursor = cursor
        location.tick()
        location.tick()
    assert receiver.titles == ["toy: check no_drift failed on drift_report", "toy: a run failed"]


def test_without_a_receiver_it_says_so_and_sends_nothing(instance: dg.DagsterInstance):
    location = Location(instance)
    location.materialize(REPORT)
    assert "LOAN_PLATFORM_ALERT_URLS is not set" in location.tick()


def test_no_url_is_stored_in_the_cursor(instance: dg.DagsterInstance, receiver: HttpReceiver):
    location = Location(instance)
    location.materialize(REPORT)
    location.tick()
    assert location.cursor is not None
    assert "s3cret-token" not in location.cursor
    assert str(receiver.port) not in location.cursor


def test_an_asset_whose_freshness_fails_is_told_until_it_is_fresh_again(
    instance: dg.DagsterInstance,
):
    from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

    location = Location(instance)
    repository = location.defs.get_repository_def()

    def becomes(state: FreshnessState) -> None:
        """As the freshness daemon reports it."""
        now = dt.datetime.now(dt.UTC).timestamp()
        instance._report_runless_asset_event(
            FreshnessStateChange(
                key=RAW,
                previous_state=FreshnessState.UNKNOWN,
                new_state=state,
                state_change_timestamp=now,
            )
        )

    becomes(FreshnessState.WARN)
    assert list(failures_since(instance, repository, 0, lambda *_: False)) == []
    becomes(FreshnessState.FAIL)
    (alert,) = failures_since(instance, repository, 0, lambda *_: False)
    assert alert.title == "toy: raw_loans is overdue"
    becomes(FreshnessState.PASS)
    assert list(failures_since(instance, repository, 0, lambda *_: False)) == []
