"""What the asset champion decides, does and tells, and what people are told of a packaged one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from loan_platform.components.champion import MODEL_ASSETS, champion_assets, serve_command
from loan_platform.contract import Contract
from loan_platform.engine.home import Home
from loan_platform.model.calibrator import Sigmoid
from loan_platform.registry.ledger import Ledger
from loan_platform.registry.models import Registry
from loan_platform.registry.moves import challenge, promote, rollback
from loan_platform.training.train import Trained
from loan_platform_tests import home_loans
from loan_platform_tests.registry.conftest import registry as registry
from loan_platform_tests.registry.conftest import trained as trained
from loan_platform_tests.training.conftest import months as months

NAME = "home_loans"
TAG = "credit_risk:abc"


@pytest.fixture
def taken_in(registry: Registry, months: dict[str, Path]) -> Registry:
    """A registry beside the cleaned months of the book."""
    for key, file in months.items():
        to = registry.home.partition(NAME, "cleaned_features", key)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    return registry


def add_challenger(registry: Registry, trained: Trained) -> None:
    """As the asset trained_model does."""
    version = registry.register(trained.bundle, trained.evaluation, pictures={})
    challenge(registry, Ledger(registry.home, NAME), version, by="a training")


def decided(home: Home, contract: Contract) -> dict[str, Any]:
    """Metadata of the asset champion, materialized once."""
    keys = {asset.key.path[-1]: asset for asset in champion_assets(contract)}
    result = dg.materialize([keys["champion"]], resources={"home": home})
    (made,) = result.asset_materializations_for_node(f"{NAME}_champion")
    return {name: value.value for name, value in made.metadata.items()}


def waiting(home: Home, contract: Contract) -> set[str]:
    """What a run of champion and all that is made of it makes; it succeeds."""
    assets = [one for one in champion_assets(contract) if one.key.path[-1] in MODEL_ASSETS[1:]]
    result = dg.materialize(assets, resources={"home": home})
    return {key.path[-1] for e in result.get_asset_materialization_events() if (key := e.asset_key)}


def in_mode(mode: str) -> Contract:
    return home_loans.contract(promotion={"mode": mode})


def worse(trained: Trained) -> Trained:
    """Promises too little: its log loss is surely worse, its ranking the same."""
    calibrator = trained.bundle.calibrator
    assert isinstance(calibrator, Sigmoid)
    shifted = calibrator.model_copy(update={"intercept": calibrator.intercept - 1})
    bundle = dataclasses.replace(trained.bundle, calibrator=shifted)
    return dataclasses.replace(trained, bundle=bundle)


def test_a_verdict_is_left_to_people_where_the_contract_says_so(
    taken_in: Registry, trained: Trained
) -> None:
    home, ledger = taken_in.home, Ledger(taken_in.home, NAME)
    add_challenger(taken_in, trained)
    manual = decided(home, in_mode("manual"))
    assert manual["decision"] == "proposed"
    assert f"`loan-platform promote {NAME} --version 1 --by NAME`" in manual["next_step"]
    assert manual["champion_version"] == "none"
    assert taken_in.version_of("champion") is None
    assert waiting(home, in_mode("manual")) == {"champion"}
    two = decided(home, in_mode("two_person"))
    assert two["decision"] == "proposed"
    assert f"`loan-platform approve {NAME} --by ANOTHER-NAME`" in two["next_step"]
    assert [entry.event for entry in ledger.entries()][2:] == ["proposed"] * 3
    # The verdict in the ledger is what lets the person promote.
    promote(taken_in, ledger, "1", by="Ada")
    assert taken_in.version_of("champion") == "1"
    again = decided(home, in_mode("manual"))
    assert again["decision"] == "the challenger is the champion"


def test_the_asset_promotes_refuses_and_outlives_a_lost_champion(
    taken_in: Registry, trained: Trained
) -> None:
    home, ledger, contract = taken_in.home, Ledger(taken_in.home, NAME), in_mode("automatic")
    add_challenger(taken_in, trained)
    first = decided(home, contract)
    assert (first["decision"], first["champion_version"]) == ("promoted", "1")
    assert taken_in.version_of("champion") == "1"
    entry = ledger.entries()[2]
    assert (entry.event, entry.by) == ("promoting", "loan-platform/champion")
    assert entry.facts["evidence"]["refused_by"] == []

    bad = worse(trained)
    add_challenger(taken_in, bad)
    refused = decided(home, contract)
    assert (refused["decision"], refused["champion_version"]) == ("refused", "1")
    assert taken_in.version_of("champion") == "1"
    assert "refused by the rule loss: log loss is surely worse, by" in refused["reasons"]
    assert refused["gains"].startswith("| on | rows | measure | champion | challenger |")
    assert "newly approved" in refused["swap_set"]
    assert refused["gains_picture"].startswith("![gains")
    written = json.loads((home.portfolio(NAME) / "champion" / "version-2.json").read_text())
    assert (written["decision"], written["champion_version"]) == ("refused", "1")
    assert written["evidence"]["swap_set"]["everyone"]["applications"] > 500
    assert ledger.standing().verdicts["2"].event == "refused"

    # The champion's files are damaged: nobody can be compared with, and nothing is served by it.
    source = str(taken_in.client.get_model_version(NAME, "1").source)
    folder = Path(source.removeprefix("file://")) / "artifacts" / "bundle"
    (folder / "bundle.json").write_text("{}")
    add_challenger(taken_in, trained)
    healed = decided(home, contract)
    assert (healed["decision"], healed["champion_version"]) == ("promoted", "3")
    assert "THE CHAMPION IS LOST: version 1 cannot be loaded" in healed["reasons"]
    np.testing.assert_array_equal(taken_in.load("3").golden, trained.bundle.golden)


def test_what_people_rolled_back_from_is_not_promoted_by_itself_again(
    taken_in: Registry, trained: Trained
) -> None:
    home, ledger, contract = taken_in.home, Ledger(taken_in.home, NAME), in_mode("automatic")
    bad = worse(trained)
    add_challenger(taken_in, bad)
    promote(taken_in, ledger, "1", by="Ada", despite="nothing else is there")
    add_challenger(taken_in, trained)
    assert decided(home, contract)["decision"] == "promoted"
    rollback(taken_in, ledger, by="Ada", reason="complaints")
    again = decided(home, contract)
    assert (again["decision"], again["champion_version"]) == ("proposed", "1")
    assert "Ada rolled back from version 2" in again["next_step"]
    assert taken_in.version_of("champion") == "1"


def test_the_line_that_serves_a_bento_can_be_pasted_into_a_shell(home: Home):
    home = dataclasses.replace(home, root=home.root / "my home")
    fence, line, end = str(serve_command(home, TAG).value).split("\n")
    assert (fence, end) == ("```sh", "```")
    assert line.endswith(f" bentoml serve {TAG}")
    settings = line.removesuffix(f"bentoml serve {TAG}")
    shown = subprocess.run(
        ["sh", "-c", f"{settings} env"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {
        f"BENTOML_HOME={home.bentoml}",
        f"LOAN_PLATFORM_HOME={home.root}",
        f"MLFLOW_TRACKING_URI={home.tracking_uri}",
    } <= set(shown.stdout.splitlines())


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg2://loans:s3cret@db/loans",
        "postgresql+psycopg2://db/loans?password=s3cret",
        "https://s3cret@mlflow.example",
    ],
)
def test_an_address_that_may_hold_a_password_is_named_only(home: Home, address: str):
    elsewhere = dataclasses.replace(home, tracking_uri=address, decisions_url=address)
    shown = str(serve_command(elsewhere, TAG).value)
    assert "s3cret" not in shown
    assert shown.endswith(
        "with the platform's MLFLOW_TRACKING_URI and LOAN_PLATFORM_DECISIONS_URL set"
    )


def test_servers_without_a_password_are_shown(home: Home):
    elsewhere = dataclasses.replace(home, tracking_uri="http://127.0.0.1:5000")
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:5000 " in str(serve_command(elsewhere, TAG).value)
