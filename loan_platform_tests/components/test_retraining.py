"""When a failed drift check asks for the model again: the truth table, on real storage.

Events and runs are Dagster's own, in an ephemeral instance and once more in SQLite; nothing of the
sensor or its storage is replaced.
"""

import datetime as dt
import time
from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from loan_platform.components.checks_history import FailedCheck
from loan_platform.components.retraining import (
    DRIFTED_PARTITION_TAG,
    OPEN,
    REASON_TAG,
    REQUESTED_AT_TAG,
    RETRAIN_TAG,
    TRIGGER_CHECK_TAG,
    TRIGGER_RUN_TAG,
    Evidence,
    Retrain,
    Wait,
    decide,
    retrain_sensor,
)
from loan_platform.contract import Contract
from loan_platform_tests.components.conftest import everywhere

REPORT = dg.AssetKey(["credit_risk", "drift_report"])
MODEL = dg.AssetKey(["credit_risk", "trained_model"])
CHECK = dg.AssetCheckKey(REPORT, "no_drift")

# A queued run says where it was loaded from.
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        RegisteredCodeLocationOrigin(location_name="tests"), repository_name="__repository__"
    ),
    job_name="__ASSET_JOB",
)


@dg.asset(key=MODEL)
def trained_model():
    return dg.MaterializeResult(metadata={"trained_through": "2025-03"})


@dg.asset(key=REPORT, check_specs=[dg.AssetCheckSpec("no_drift", asset=REPORT)])
def drift_report():
    found = dg.AssetCheckResult(
        check_name="no_drift", passed=False, metadata={"partitions": ["2025-04"]}
    )
    return dg.MaterializeResult(check_results=[found])


class Platform:
    """One portfolio's storage, and what happens to it."""

    def __init__(
        self, contract: Contract, instance: dg.DagsterInstance, cooldown_minutes: float = 0
    ) -> None:
        self.instance = instance
        sensor = retrain_sensor(
            contract.model_copy(
                update={
                    "retrain": contract.retrain.model_copy(
                        update={"cooldown_minutes": cooldown_minutes}
                    )
                }
            ),
            check_key=CHECK,
            model=MODEL,
            selection=dg.AssetSelection.assets(MODEL),
        )
        assert sensor is not None
        self.sensor = sensor
        self.defs = dg.Definitions(assets=[trained_model, drift_report], sensors=[sensor])
        self.job = self.defs.resolve_implicit_global_asset_job_def()

    def check_fails(self, *partitions: str) -> None:
        """Outside a run, as an external evaluation reports it."""
        metadata = {"partitions": list(partitions)} if partitions else {}
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=REPORT, check_name="no_drift", passed=False, metadata=metadata
            )
        )

    def check_passes(self) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=REPORT, check_name="no_drift", passed=True, metadata={}
            )
        )

    def drift_report_runs(self) -> str:
        result = self.job.execute_in_process(instance=self.instance, asset_selection=[REPORT])
        return result.run_id

    def trains(self, request: dg.RunRequest | None = None) -> None:
        """The model is materialized, by a retrain that was asked for or by hand."""
        tags = dict(request.tags) if request else {}
        self.job.execute_in_process(instance=self.instance, asset_selection=[MODEL], tags=tags)

    def run_record(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
        """The run that was asked for, as the daemon leaves it in storage."""
        self.instance.create_run_for_job(
            job_def=self.job,
            tags={**request.tags, "dagster/run_key": str(request.run_key)},
            status=status,
            remote_job_origin=ORIGIN,
        )

    def tick(self) -> dg.RunRequest | str:
        """One evaluation, as the daemon makes it: the request, or why there is none."""
        context = dg.build_sensor_context(instance=self.instance, definitions=self.defs)
        data = self.sensor.evaluate_tick(context)
        if data.run_requests:
            (request,) = data.run_requests
            return request
        return data.skip_message or ""

    def asks(self) -> dg.RunRequest:
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        return request

    def waits(self) -> str:
        reason = self.tick()
        assert isinstance(reason, str), reason
        return reason


@pytest.fixture
def platform(credit_risk: Contract, instance: dg.DagsterInstance) -> Platform:
    return Platform(credit_risk, instance)


def test_no_failure_no_retrain(platform: Platform):
    assert "no drift failure" in platform.waits()
    platform.trains()
    platform.check_passes()
    assert "no drift failure" in platform.waits()


@everywhere
def test_a_failed_check_asks_for_the_model_and_says_why(platform: Platform):
    platform.trains()
    run_id = platform.drift_report_runs()
    request = platform.asks()
    assert request.tags[RETRAIN_TAG] == "credit_risk"
    assert request.tags[TRIGGER_RUN_TAG] == run_id
    assert request.tags[TRIGGER_CHECK_TAG] == "credit_risk/drift_report:no_drift"
    assert request.tags[DRIFTED_PARTITION_TAG] == "2025-04"
    assert request.tags[REASON_TAG] == (
        "1 failure of credit_risk/drift_report:no_drift of 2025-04 "
        "since a model trained through 2025-03"
    )
    assert run_id in str(request.run_key)


def test_an_evaluation_outside_a_run_asks_too(platform: Platform):
    platform.trains()
    platform.check_fails("2025-04")
    request = platform.asks()
    assert TRIGGER_RUN_TAG not in request.tags
    platform.run_record(request, dg.DagsterRunStatus.FAILURE)
    platform.check_fails("2025-05")
    assert platform.asks().run_key != request.run_key


def test_a_failure_followed_by_a_pass_is_not_forgotten(platform: Platform):
    platform.trains()
    platform.check_fails("2025-04")
    platform.check_passes()
    assert platform.asks()


@pytest.mark.parametrize("status", OPEN)
def test_no_second_retrain_while_one_is_open(platform: Platform, status: dg.DagsterRunStatus):
    platform.trains()
    platform.check_fails("2025-04")
    platform.run_record(platform.asks(), status)
    assert "already open" in platform.waits()
    platform.check_fails("2025-05")
    assert "already open" in platform.waits()


@everywhere
def test_failed_then_retrained_is_answered(platform: Platform):
    platform.trains()
    platform.check_fails("2025-04")
    platform.trains(platform.asks())
    assert "no drift failure since" in platform.waits()


def test_training_by_hand_answers_a_failure_as_well(platform: Platform):
    platform.check_fails("2025-04")
    platform.trains()
    assert "no drift failure since" in platform.waits()


def test_a_failed_retrain_is_not_repeated_until_there_is_new_evidence(platform: Platform):
    platform.trains()
    platform.check_fails("2025-04")
    request = platform.asks()
    platform.run_record(request, dg.DagsterRunStatus.FAILURE)
    assert "no drift failure since" in platform.waits()
    platform.check_fails("2025-04")
    assert platform.asks().run_key != request.run_key


def test_months_the_model_was_trained_through_ask_for_nothing(platform: Platform):
    platform.trains()
    platform.check_fails("2025-02", "2025-03")
    assert "trained through 2025-03 already" in platform.waits()
    platform.check_fails("2025-03", "2025-04")
    assert platform.asks().tags[DRIFTED_PARTITION_TAG] == "2025-04"


@everywhere
def test_a_month_that_a_retrain_answered_fails_again_to_no_effect(platform: Platform):
    """Its outcomes are not known yet, so the new model did not learn it; the next month is news."""
    platform.trains()
    platform.check_fails("2025-05")
    platform.trains(platform.asks())
    platform.check_fails("2025-05")
    assert "a retrain has answered the drift of 2025-05 already" in platform.waits()
    platform.check_fails("2025-04")
    assert "a retrain has answered" in platform.waits()
    platform.check_fails("2025-06")
    assert platform.asks().tags[DRIFTED_PARTITION_TAG] == "2025-06"


def test_a_retrain_that_failed_or_was_anothers_answers_no_month(platform: Platform):
    platform.trains()
    platform.check_fails("2025-05")
    request = platform.asks()
    foreign = dg.RunRequest(run_key="x", tags={**request.tags, RETRAIN_TAG: "other_book"})
    platform.run_record(foreign, dg.DagsterRunStatus.SUCCESS)
    platform.run_record(request, dg.DagsterRunStatus.FAILURE)
    platform.check_fails("2025-05")
    assert platform.asks()


def test_a_retrain_for_a_failure_without_a_month_forgets_none(platform: Platform):
    platform.trains()
    platform.check_fails("2025-05")
    platform.trains(platform.asks())
    platform.check_fails()
    platform.trains(platform.asks())
    platform.check_fails("2025-05")
    assert "a retrain has answered the drift of 2025-05 already" in platform.waits()


def test_a_failure_that_names_no_month_counts(platform: Platform):
    platform.trains()
    platform.check_fails()
    assert DRIFTED_PARTITION_TAG not in platform.asks().tags


@everywhere
def test_two_failures_make_one_retrain(platform: Platform):
    platform.trains()
    platform.check_fails("2025-05")
    first = platform.asks()
    platform.check_fails("2025-04")
    both = platform.asks()
    assert both.run_key != first.run_key
    assert both.tags[DRIFTED_PARTITION_TAG] == "2025-05"
    assert both.tags[REASON_TAG].startswith("2 failures of ")
    platform.trains(both)
    assert "no drift failure since" in platform.waits()


def test_a_failure_during_the_training_is_news_to_the_model(platform: Platform):
    """It was not in the data the training had read when it began."""
    platform.trains()
    platform.check_fails("2025-04")
    request = platform.asks()

    @dg.asset(key=MODEL)
    def slow_model():
        platform.check_fails("2025-05")
        return dg.MaterializeResult(metadata={"trained_through": "2025-04"})

    job = dg.Definitions(assets=[slow_model]).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=platform.instance, tags=dict(request.tags))
    assert platform.asks().tags[DRIFTED_PARTITION_TAG] == "2025-05"


def test_a_cool_down_keeps_retrains_apart(credit_risk: Contract, instance: dg.DagsterInstance):
    platform = Platform(credit_risk, instance, cooldown_minutes=0.02)
    platform.trains()
    platform.check_fails("2025-04")
    assert "cooling down until" in platform.waits()
    time.sleep(1.3)
    assert platform.asks()


def test_the_cool_down_counts_from_a_retrain_that_failed_too(
    credit_risk: Contract, instance: dg.DagsterInstance
):
    platform = Platform(credit_risk, instance, cooldown_minutes=60)
    platform.check_fails("2025-04")
    platform.run_record(platform.asks(), dg.DagsterRunStatus.FAILURE)
    platform.check_fails("2025-05")
    assert "cooling down until" in platform.waits()


def test_a_restart_between_tick_and_launch_asks_with_the_same_key(
    credit_risk: Contract, reopen: Callable[[], dg.DagsterInstance]
):
    """The daemon dies after the tick; what it finds again in storage gives the same answer."""
    with reopen() as before:
        platform = Platform(credit_risk, before)
        platform.trains()
        platform.drift_report_runs()
        first = platform.asks()
    with reopen() as after:
        platform = Platform(credit_risk, after)
        second = platform.asks()
        assert second.run_key == first.run_key
        platform.run_record(second, dg.DagsterRunStatus.STARTED)
    with reopen() as again:
        assert "already open" in Platform(credit_risk, again).waits()
        (run,) = again.get_runs(dg.RunsFilter(tags={RETRAIN_TAG: "credit_risk"}))
        again.report_run_failed(run)
    with reopen() as last:
        assert "no drift failure since" in Platform(credit_risk, last).waits()


def test_another_portfolios_retrain_does_not_stand_in_the_way(platform: Platform):
    platform.trains()
    platform.check_fails("2025-04")
    request = platform.asks()
    foreign = dg.RunRequest(run_key="x", tags={**request.tags, RETRAIN_TAG: "other_book"})
    platform.run_record(foreign, dg.DagsterRunStatus.STARTED)
    assert platform.asks().run_key == request.run_key


def test_the_contract_can_turn_it_off(credit_risk: Contract):
    off = credit_risk.retrain.model_copy(update={"on_drift": False})
    quiet = credit_risk.model_copy(update={"retrain": off})
    selection = dg.AssetSelection.assets(MODEL)
    assert retrain_sensor(quiet, check_key=CHECK, model=MODEL, selection=selection) is None


def failure(timestamp: float, *partitions: str) -> FailedCheck:
    return FailedCheck(
        CHECK, "run", timestamp, dg.AssetCheckSeverity.ERROR, None, {}, tuple(partitions)
    )


def test_the_decision_says_when_it_was_made_and_names_the_newest_failure():
    decision = decide(
        "credit_risk", 0, Evidence(now=100.0, failures=[failure(90.0, "2025-04"), failure(80.0)])
    )
    assert isinstance(decision, Retrain)
    assert decision.run_key == "credit_risk:run:90.000000"
    asked = dt.datetime.fromisoformat(decision.tags[REQUESTED_AT_TAG])
    assert asked == dt.datetime.fromtimestamp(100, dt.UTC)


@pytest.mark.parametrize(
    ("trained", "answered", "drifted", "asks"),
    [
        (None, None, ("2025-05",), True),
        ("2025-04", None, ("2025-05",), True),
        ("2025-05", None, ("2025-05",), False),
        (None, "2025-05", ("2025-05",), False),
        ("2025-03", "2025-05", ("2025-05",), False),
        ("2025-03", "2025-05", ("2025-04",), False),
        ("2025-03", "2025-05", ("2025-05", "2025-06"), True),
        ("2025-06", "2025-05", ("2025-06",), False),
        ("2025-03", "2025-05", (), True),
    ],
)
def test_a_month_is_asked_for_that_neither_model_nor_retrain_knows(
    trained: str | None, answered: str | None, drifted: tuple[str, ...], asks: bool
):
    evidence = Evidence(
        now=100.0,
        failures=[failure(90.0, *drifted)],
        trained_through=trained,
        answered_through=answered,
    )
    assert isinstance(decide("credit_risk", 0, evidence), Retrain if asks else Wait)


def test_the_cool_down_ends_when_it_is_over():
    evidence = Evidence(now=159.9, failures=[failure(120.0, "2025-04")], answered_at=100.0)
    assert isinstance(decide("credit_risk", 1, evidence), Wait)
    later = Evidence(now=160.0, failures=evidence.failures, answered_at=100.0)
    assert isinstance(decide("credit_risk", 1, later), Retrain)
