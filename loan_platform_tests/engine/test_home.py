"""Where state lies, and what moves it."""

from pathlib import Path

import pytest

from loan_platform.engine.home import PROJECT_ROOT, Home, data_directories


def test_everything_lies_below_the_one_folder(tmp_path: Path):
    home = Home.at(tmp_path / "state")
    places = [home.dagster, home.mlflow_artifacts, home.bentoml, home.decisions]
    places += [home.portfolio("p"), home.partition("p", "raw_loans", "2024-01")]
    assert all(place.is_relative_to(tmp_path / "state") for place in places)
    assert home.tracking_uri == f"sqlite:///{tmp_path / 'state' / 'mlflow' / 'mlflow.db'}"
    assert not (tmp_path / "state").exists(), "naming a place does not make it"


def test_a_relative_folder_stays_the_same_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    home = Home.at(Path("state"))
    monkeypatch.chdir("/")
    assert home.root == tmp_path / "state"


def test_the_environment_names_the_folder_and_the_servers(monkeypatch: pytest.MonkeyPatch):
    assert Home.from_environment().root == PROJECT_ROOT / ".loan_platform"
    monkeypatch.setenv("LOAN_PLATFORM_HOME", "/state")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("LOAN_PLATFORM_DECISIONS_URL", "postgresql+psycopg2://u:p@h/d")
    home = Home.from_environment()
    assert home.root == Path("/state")
    assert home.tracking_uri == "http://mlflow:5000"
    assert home.decisions_url == "postgresql+psycopg2://u:p@h/d"
    assert home.dagster_url is None


def test_the_months_of_a_layer_come_in_order_and_without_half_written_files(tmp_path: Path):
    home = Home.at(tmp_path)
    folder = home.partition("p", "raw_loans", "x").parent
    folder.mkdir(parents=True)
    for name in ("2024-10.parquet", "2023-02.parquet", ".2024-11.parquet.k3x", "2024-11.json"):
        (folder / name).touch()
    assert list(home.partitions("p", "raw_loans")) == ["2023-02", "2024-10"]
    assert home.partitions("p", "nothing") == {}


def test_the_data_folder_is_the_one_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert data_directories() == []
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path))
    assert data_directories() == [tmp_path]
