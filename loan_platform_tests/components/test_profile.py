"""The leak guard through Dagster: a planted leak fails closed, and an override is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.registry.models import Registry
from loan_platform_tests import home_loans
from loan_platform_tests.components.running import definitions, latest, run
from loan_platform_tests.training.books import cleaned_table, write_months

NAME = "home_loans"
WHY = "the fee is agreed before the loan is granted"


def with_fee(accepted: str | None = None, **changes: Any) -> Contract:
    """The contract with a column `fee`, which the file has for good loans alone."""
    written = yaml.safe_load(home_loans.DEFS_YAML)["attributes"] | changes
    fee: dict[str, Any] = {"name": "fee", "type": "number", "nulls": "allowed"}
    if accepted:
        fee["leak_accepted"] = accepted
    return Contract.model_validate(written | {"columns": [*written["columns"], fee]})


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    rows = [
        {**row, "fee": "" if row["outcome"] == "defaulted" else f"{number % 90 + 10}"}
        for number, row in enumerate(home_loans.rows())
    ]
    home_loans.write_csv(tmp_path / "home_loans.csv", rows)
    return rows


def verdict(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = result.get_asset_check_evaluations()
    return found


@pytest.mark.slow
def test_a_leak_fails_closed_and_an_override_is_seen(
    book: list[dict[str, Any]], home: Home, instance: dg.DagsterInstance
) -> None:
    """One road, in order: the check, the training by itself, then both with the override."""
    leaking = definitions(with_fee(), home)
    # Together: the failed check stops the training in the same run.
    result = run(leaking, instance, NAME, "profile", "trained_model", check=False)
    failed = verdict(result)
    assert not failed.passed
    assert failed.severity is dg.AssetCheckSeverity.ERROR
    assert "fee: whether it is missing tells the outcome" in str(failed.description)
    assert "leak_accepted: why" in str(failed.description)
    assert not instance.get_latest_materialization_event(dg.AssetKey([NAME, "trained_model"]))
    steps = {event.step_key for event in result.all_events if event.is_step_start}
    assert steps == {f"{NAME}_profile"}

    shown = latest(instance, NAME, "profile")
    assert shown["dagster/row_count"] == len(book)
    assert "| fee | blocked | used |" in shown["leaks"]
    folder = home.portfolio(NAME)
    told = json.loads((folder / "profile.json").read_text())
    assert (told["rows"], told["suspicions"][0]["column"]) == (len(book), "fee")
    assert Path(shown["page"]) == folder / "profile.html"

    # Alone, with no profile to go by: the training looks for itself.
    (folder / "profile.json").unlink()
    cleaned = cleaned_table(with_fee(), folder.parents[2] / "home_loans.csv")
    write_months(cleaned, folder / "cleaned_features")
    result = run(leaking, instance, NAME, "trained_model", check=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = str(failure.step_failure_data.error)
    assert "give the outcome away" in told
    assert "fee: whether it is missing tells the outcome" in told
    assert Registry(home, NAME).version_of("challenger") is None

    # With a reason it trains, and everything says so.
    contract = with_fee(accepted=WHY)
    accepted = definitions(contract, home)
    passed = verdict(run(accepted, instance, NAME, "profile", "trained_model"))
    assert passed.passed
    assert f"fee is used although it leaks: {WHY}" in str(passed.description)
    assert WHY in latest(instance, NAME, "profile")["leaks"]
    assert WHY in (folder / "profile.html").read_text()
    assert latest(instance, NAME, "trained_model")["leaks_accepted"] == {"fee": WHY}
    registry = Registry(home, NAME)
    version = registry.version_of("challenger")
    assert version is not None
    stored = registry.client.get_model_version(NAME, version)
    assert WHY in stored.tags["leaks_accepted"]
    assert WHY in (stored.description or "")
    assert registry.load(version).contract.leaks_accepted == {"fee": WHY}


def test_a_column_that_leaks_and_is_not_used_stops_nothing(
    book: list[dict[str, Any]], home: Home, instance: dg.DagsterInstance
) -> None:
    contract = home_loans.contract()
    found = verdict(run(definitions(contract, home), instance, NAME, "profile"))
    assert found.passed
    assert "| fee | blocked | no |" in json.dumps(str(found.metadata["evidence"].value))
