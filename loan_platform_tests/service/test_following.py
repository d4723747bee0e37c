"""The service, from its source, follows the registry: no restart, no failed and no mixed answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from loan_platform.contract import Contract
from loan_platform.contract.request import example
from loan_platform.decisions import read_decisions
from loan_platform.engine.home import Home
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import Bundle
from loan_platform.registry.models import Registry
from loan_platform.training.evaluate import evaluate
from loan_platform_tests.service.bundles import applications, bundle
from loan_platform_tests.service.server import Load, serving

pytestmark = pytest.mark.slow

SWAPS = 20
WORKERS = 2
FOLLOWED = "answers now (before: none)"


def register(registry: Registry, made: Bundle) -> str:
    outcome, probability = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    return registry.register(made, evaluate(outcome, probability, made.policy))


def test_it_follows_the_registry_from_nothing_through_twenty_swaps(
    home_with_store: Home, credit_risk: Contract, tmp_path: Path
) -> None:
    home, registry = home_with_store, Registry(home_with_store, "credit_risk")
    assert registry.version_of("champion") is None
    log = tmp_path / "server.log"
    rows = applications(credit_risk, 200, seed=14)
    bundles = [bundle(credit_risk, seed) for seed in (1, 2)]
    with serving(
        "bento.service:LoanService",
        log,
        ready=503,
        LOAN_PORTFOLIO="credit_risk",
        LOAN_PLATFORM_HOME=home.root,
        MLFLOW_TRACKING_URI=home.tracking_uri,
        LOAN_SERVICE_WORKERS=str(WORKERS),
    ) as server:
        refused = httpx.post(f"{server.url}/predict", json=example(credit_risk), timeout=30)
        assert refused.status_code == 503
        assert "materialize credit_risk/champion" in refused.json()["error"]["message"]

        versions = [register(registry, made) for made in bundles]
        registry.promote(versions[0])
        # An answer of /health is one worker's; each says in the log when it has followed.
        server.wait(lambda _: log.read_text().count(FOLLOWED) == WORKERS, 120)
        matrix, _ = PreparedFeatures(credit_risk).evaluate(rows)
        expected = {
            version: made.probability(matrix)
            for version, made in zip(versions, bundles, strict=True)
        }
        # Some requests are in flight at any moment, and the server can also load what it follows.
        with Load(server.url, rows, clients=4, pause=0.05) as load:
            load.wait(answers=50, seconds=60)
            for swap in range(SWAPS):
                version = versions[(swap + 1) % 2]
                registry.promote(version)
                server.wait(says(version), 60)
    assert not load.refused
    assert not load.broken
    for row, answer in load.answers:
        assert answer["probability_default"] == expected[answer["model_version"]][row]
    policies = {(a["model_version"], a["policy_hash"]) for _, a in load.answers}
    assert policies == {
        (version, made.policy.policy_hash) for version, made in zip(versions, bundles, strict=True)
    }
    assert min(Counter(a["model_version"] for _, a in load.answers).values()) > 100
    logged = read_decisions(home, "credit_risk")
    assert {a["decision_id"] for _, a in load.answers} <= set(logged["decision_id"].to_pylist())
    assert "Traceback" not in log.read_text()


def says(version: str) -> Callable[[httpx.Response], bool]:
    return lambda response: response.json()["model_version"] == version
