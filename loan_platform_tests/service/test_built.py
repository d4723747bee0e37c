"""The built Bento: whole by itself, and true to the batch path and to its log when it is served."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bento.build import stage
from loan_platform.contract import Contract
from loan_platform.contract.request import Value, example
from loan_platform.decisions import read_decisions
from loan_platform.engine.home import Home
from loan_platform.model.bundle import Bundle, environment
from loan_platform.registry.models import Registry
from loan_platform.training import families
from loan_platform.training.rows import known_rows
from loan_platform.training.train import train
from loan_platform_tests.engine.test_prepared import awkward
from loan_platform_tests.service.bundles import AS_OF, applications, bundle, cleaned_layer
from loan_platform_tests.service.server import PROJECT, Load, serving
from loan_platform_tests.service.test_following import register, says

pytestmark = pytest.mark.slow


ROWS = 1500


@dataclass(frozen=True)
class TrainedOn:
    """Applications, the cleaned layer they make, and the folder of the bundle trained on it."""

    rows: list[dict[str, Value]]
    cleaned: dict[str, Path]
    bundle: Path


@pytest.fixture(scope="module")
def trained(credit_risk: Contract, tmp_path_factory: pytest.TempPathFactory) -> TrainedOn:
    folder = tmp_path_factory.mktemp("trained")
    edges = awkward(credit_risk)
    rows = [*edges, *applications(credit_risk, ROWS - len(edges), seed=11)]
    cleaned = cleaned_layer(credit_risk, rows, folder)
    train(credit_risk, cleaned, AS_OF).bundle.save(folder / "bundle")
    return TrainedOn(rows, cleaned, folder / "bundle")


@pytest.fixture(scope="module")
def saved(trained: TrainedOn) -> Path:
    return trained.bundle


def run_build(store: Path, saved: Path, portfolio: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--portfolio", portfolio, "--bundle", str(saved), "--version", "7"]
    return subprocess.run(
        [sys.executable, "bento/build.py", *arguments],
        cwd=PROJECT,
        env=os.environ | {"BENTOML_HOME": str(store), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def built(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("store")
    run = run_build(store, saved, "credit_risk")
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_building_tells_where_the_bento_lies(built: dict[str, Any], credit_risk: Contract) -> None:
    assert set(built) == {"tag", "path", "size_bytes"}
    assert built["tag"].startswith("credit_risk:")
    assert built["size_bytes"] > 10_000
    text = (Path(built["path"]) / "bento.yaml").read_text()
    assert "model_version: '7'" in text
    assert f"contract_hash: {credit_risk.contract_hash}" in text
    shipped = Path(built["path"]) / "src/loan_platform"
    rooms = {path.name for path in shipped.iterdir() if path.is_dir()}
    assert rooms == {"contract", "engine", "decisions", "model", "registry"}, "it never trains"
    requirements = (Path(built["path"]) / "env/python/requirements.txt").read_text()
    assert re.search(r"^lightgbm==[\d.]+", requirements, re.MULTILINE)
    assert "//" not in re.sub(r"^#.*$", "", requirements, flags=re.MULTILINE), "no address in it"


def test_a_bento_is_given_what_its_model_needs_of_the_extra(
    credit_risk: Contract, tmp_path: Path
) -> None:
    pytest.importorskip("xgboost", reason="needs xgboost, of the extra [families]")
    one, task = bundle(credit_risk), families.task_of(credit_risk)
    matrix = np.tile(one.golden, (20, 1))
    outcome = np.arange(len(matrix)) % 2
    scorer = families.module("xgboost").fit(families.Fit(task, matrix, outcome, until=2), {}).scorer
    record = one.record.model_copy(update={"environment": environment(scorer)})
    replace(one, scorer=scorer, record=record).save(tmp_path / "bundle")
    for folder, saved in (("xgboost", tmp_path / "bundle"), ("lightgbm", tmp_path / "plain")):
        (tmp_path / folder).mkdir()
        if folder == "lightgbm":
            one.save(saved)
        stage(tmp_path / folder, "credit_risk", saved, "1")
        requirements = (tmp_path / folder / "requirements.txt").read_text()
        assert ("\nxgboost-cpu==" in requirements) == (folder == "xgboost")
        assert "\nlightgbm==" in requirements


def test_a_bundle_that_cannot_be_served_is_not_built(saved: Path, tmp_path: Path) -> None:
    run = run_build(tmp_path, saved, "cars")
    assert run.returncode == 1
    assert "a bundle of credit_risk, not of cars" in run.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(saved, damaged)
    (damaged / "scorer-0.lightgbm").write_text("no model")
    run = run_build(tmp_path, damaged, "credit_risk")
    assert run.returncode == 1
    assert "not the file that was saved" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_copied_bento_serves_by_itself(
    built: dict[str, Any], trained: TrainedOn, credit_risk: Contract, tmp_path: Path
) -> None:
    """One server, asked everything: starting costs seconds."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(built["path"], copy)
    home = Home.at(tmp_path / "home")
    log = tmp_path / "server.log"
    with serving(copy, log, LOAN_PLATFORM_HOME=home.root, BENTOML_HOME=tmp_path / "no") as server:
        health = server.health()
        assert health is not None
        assert (health.json()["model_version"], health.json()["simulated"]) == ("7", True)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            # The very rows it was trained on get the batch path's probability.
            known = known_rows(credit_risk, trained.cleaned, AS_OF)
            expected = Bundle.load(trained.bundle).probability(known.matrix)
            assert len(known) == ROWS
            for name, probability in zip(known.application_id, expected, strict=True):
                row = trained.rows[int(name.removeprefix("a-"))]
                body = {**row, "application_id": name}
                answer = client.post("/predict", json=body).json()
                assert answer["application_id"] == name
                assert abs(answer["probability_default"] - probability) <= 1e-9
            # Refusals over a real socket, with a value planted in each.
            planted = {**example(credit_risk), "loan_intent": "PLANTED", "person_income": -98765}
            assert client.post("/predict", json=planted).status_code == 422
            broken = {**example(credit_risk), "person_age": 20, "person_emp_length": 98.765}
            assert client.post("/predict", json=broken).status_code == 422
            for content, kind, status in (
                (b'{"person_income": 98765', "application/json", 400),
                (b"person_income=98765", "text/plain", 415),
                (b"[98765," * 300_000, "application/json", 413),
            ):
                headers = {"content-type": kind}
                response = client.post("/predict", content=content, headers=headers)
                assert response.status_code == status
                assert "98765" not in response.text
                assert set(response.json()["error"]) == {"code", "message", "fields"}
            assert client.get("/predict").status_code == 405
            assert client.get("/nowhere").json()["error"]["code"] == "not_found"
            assert client.get("/", follow_redirects=True).url.path == "/docs"
            assert client.get("/metrics").status_code == 404
            assert client.get("/livez").status_code == 200
        seconds = server.stop()
        assert seconds < 10
    said = log.read_text()
    assert "Traceback" not in said
    assert "98765" not in said
    assert "PLANTED" not in said
    assert read_decisions(home, "credit_risk").num_rows == ROWS


def test_a_bento_answers_with_its_own_model_until_the_registry_has_another(
    built: dict[str, Any], home_with_store: Home, credit_risk: Contract, tmp_path: Path
) -> None:
    home, registry = home_with_store, Registry(home_with_store, "credit_risk")
    assert registry.version_of("champion") is None
    with serving(
        Path(built["path"]),
        tmp_path / "server.log",
        LOAN_PLATFORM_HOME=home.root,
        MLFLOW_TRACKING_URI=home.tracking_uri,
    ) as server:
        health = server.health()
        assert health is not None
        assert (health.json()["model_version"], health.json()["trouble"]) == ("7", None)
        version = register(registry, bundle(credit_risk, seed=3))
        registry.promote(version)
        server.wait(says(version), 30)
        answer = httpx.post(f"{server.url}/predict", json=example(credit_risk), timeout=30)
        assert answer.json()["model_version"] == version


def test_killed_workers_lose_no_answered_decision(
    built: dict[str, Any], credit_risk: Contract, tmp_path: Path
) -> None:
    home = Home.at(tmp_path / "home")
    rows = applications(credit_risk, 200, seed=12)
    log = tmp_path / "server.log"
    with serving(
        Path(built["path"]), log, LOAN_PLATFORM_HOME=home.root, LOAN_SERVICE_WORKERS="2"
    ) as server:
        deadline = time.monotonic() + 30
        while len(files(home)) < 2 and time.monotonic() < deadline:  # both have answered
            with Load(server.url, rows, clients=8):
                time.sleep(0.5)
        with Load(server.url, rows, clients=32) as load:
            load.wait(answers=600, seconds=30)
            first, *_ = server.workers()
            server.kill(first)
            load.wait(answers=len(load.answers) + 300, seconds=30)
            for worker in server.workers():
                server.kill(worker)
            time.sleep(0.3)
        server.wait(lambda response: response.status_code == 200, 60)
        with Load(server.url, rows, clients=4) as after:
            after.wait(answers=20, seconds=30)
    answered = [answer["decision_id"] for _, answer in [*load.answers, *after.answers]]
    assert len(set(answered)) == len(answered) >= 920
    logged = read_decisions(home, "credit_risk")
    assert set(answered) <= set(logged["decision_id"].to_pylist())
    assert not [refusal for refusal in load.refused if not refusal.startswith("503")]
    assert len(files(home)) == 2, "a worker that comes back goes on with its own file"
    for file in files(home):
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    assert "Traceback" not in log.read_text()


def test_in_flight_requests_are_answered_when_it_is_told_to_end(
    built: dict[str, Any], credit_risk: Contract, tmp_path: Path
) -> None:
    home = Home.at(tmp_path / "home")
    rows = applications(credit_risk, 100, seed=13)
    log = tmp_path / "server.log"
    with (
        serving(Path(built["path"]), log, LOAN_PLATFORM_HOME=home.root) as server,
        Load(server.url, rows, clients=16) as load,
    ):
        load.wait(answers=200, seconds=30)
        seconds = server.stop()
        assert seconds < 10
    assert not load.refused
    answered = {answer["decision_id"] for _, answer in load.answers}
    logged = read_decisions(home, "credit_risk")
    assert answered <= set(logged["decision_id"].to_pylist())
    # Whatever was decided was answered, too: nobody was cut off after the commit.
    assert logged.num_rows == len(answered)


def files(home: Home) -> list[Path]:
    return sorted((home.decisions / "credit_risk").glob("decisions-*.db"))
