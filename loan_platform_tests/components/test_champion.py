"""What people are told of a packaged champion."""

from __future__ import annotations

import dataclasses
import os
import subprocess

import pytest

from loan_platform.components.champion import serve_command
from loan_platform.engine.home import Home

TAG = "credit_risk:abc"


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
