"""docker-compose.yml and the workflow, without Docker or network: schemas, and what they run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from loan_platform.cli import app
from loan_platform.engine.home import PROJECT_ROOT
from loan_platform.local.up import SERVICE, Place, Ports, programs

COMPOSE = PROJECT_ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture(scope="module")
def ours(services):
    return {name: service for name, service in services.items() if "build" in service}


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "docker-compose.yml"),
        ("vendor.github-workflows", ".github/workflows/tests.yml"),
    ],
)
def test_the_file_is_what_its_schema_allows(schema, file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, file]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_each_container_becomes_a_process_of_the_platform_with_options_that_exist(ours, home):
    known = programs(home, Place("0.0.0.0", "code", Ports()))
    up = typer.main.get_command(app).commands["up"]  # type: ignore[attr-defined]
    become = set()
    for name, service in ours.items():
        command, *options = service["command"]
        assert command == "up", name
        become.add(up.make_context(name, options).params["only"])
    assert become == set(known), (
        "the containers are the processes of `loan-platform up`, all of them"
    )


def test_what_a_container_publishes_is_where_its_process_listens(ours):
    published = {
        name: re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", port)
        for name, service in ours.items()
        for port in service.get("ports", [])
    }
    assert all(published.values()), "loopback only: none of these pages asks who you are"
    inside = {name: int(match[2]) for name, match in published.items() if match}
    serving = {name for name in ours if name.startswith(SERVICE)}
    assert inside == {
        "mlflow": Ports.mlflow,
        "webserver": Ports.dagster,
        **dict.fromkeys(serving, Ports.service),
    }
    for name in serving:  # alone in its container, or it would listen on a later port
        assert SERVICE + ours[name]["environment"]["LOAN_PLATFORM_PORTFOLIOS"] == name
    outside = [match[1] for match in published.values() if match]
    assert len(set(outside)) == len(outside)
    for name, service in ours.items():
        if name in inside or name == "code":
            assert "0.0.0.0" in service["command"], f"{name} is asked by other containers"


def test_every_container_is_watched_and_waits_for_healthy_ones(services):
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how == {"condition": "service_healthy"}, (name, other)


def test_volumes_are_declared_and_mounted_files_exist(services):
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.rsplit(":/", 1)[0]
            if source.startswith("./"):
                assert (PROJECT_ROOT / source).is_file(), source
            else:
                assert source in declared or source.startswith("${"), source


def test_no_secret_stands_in_the_file_and_each_is_required():
    text = COMPOSE.read_text()
    assert re.findall(r"PASSWORD: +(\S+)", text) == ["${POSTGRES_PASSWORD:?set"]
    for credentials in re.findall(r"//loan_platform:(.*?)@", text):
        assert credentials == "${POSTGRES_PASSWORD:?set it in .env}"


def test_every_variable_is_explained_in_the_example(services):
    explained = set(
        re.findall(r"^#?([A-Z][A-Z_]+)=", (PROJECT_ROOT / ".env.example").read_text(), re.MULTILINE)
    )
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    assert used <= explained
    read_by_the_platform = {
        name
        for file in [*PROJECT_ROOT.glob("loan_platform/**/*.py"), *PROJECT_ROOT.glob("bento/*.py")]
        for name in re.findall(r"environ(?:\.get\(|\[)\"(LOAN_[A-Z_]+)\"", file.read_text())
    }
    internal = {"LOAN_PORTFOLIO", "LOAN_PLATFORM_CODE_HOST"}
    assert read_by_the_platform - internal <= explained


def test_images_are_pinned_and_the_build_has_what_it_copies(services):
    images = [service["image"] for service in services.values()]
    images += re.findall(r"^FROM (\S+)", (PROJECT_ROOT / "deploy/Dockerfile").read_text(), re.M)
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?", image), image
    allowed = (PROJECT_ROOT / ".dockerignore").read_text().split()
    for needed in ("loan_platform/", "bento/", "deploy/", "dagster.yaml", "requirements.lock"):
        assert f"!{needed}" in allowed
        assert (PROJECT_ROOT / needed).exists()


def test_ci_runs_the_readmes_test_command():
    pattern = re.search(r"grep -m 1 -E '(.*)' README\.md", (PROJECT_ROOT / ".ci/run").read_text())
    assert pattern
    expression = pattern[1].replace("[[:space:]]", r"\s")
    lines = Path(PROJECT_ROOT / "README.md").read_text().splitlines()
    (command,) = [line for line in lines if re.search(expression, line)]
    assert command.strip().endswith(".venv/bin/pytest")
