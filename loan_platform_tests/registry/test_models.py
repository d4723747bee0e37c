from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from loan_platform.contract import Contract
from loan_platform.contract.request import request_model
from loan_platform.engine.home import Home
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import BundleError, bundle_hash
from loan_platform.model.scorers.lightgbm import LightGBM
from loan_platform.registry.models import Registry, _signature, example_frame, predict_frame
from loan_platform.registry.versions import RegistryError, Version, Versions
from loan_platform.training.rows import known_rows
from loan_platform.training.train import Trained
from loan_platform_tests import club_loans, home_loans
from loan_platform_tests.service import bundles
from loan_platform_tests.training.conftest import AS_OF


def test_a_training_is_a_run_with_everything_and_a_version(
    registry: Registry, trained: Trained, home: Home, tmp_path: Path
) -> None:
    assert registry.version_of("champion") is None
    client = registry.client
    parent = client.create_run(client.create_experiment("dagster")).info.run_id
    version = registry.register(
        trained.bundle, trained.evaluation, parent_run_id=parent, tags={"dagster_run_id": "abc"}
    )
    assert version == "1"
    assert registry.version_of("challenger") is None, "that is a move, which the ledger is told"
    assert registry.version_of("champion") is None

    run = client.get_run(registry.run_id(version))
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "home_loans"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["dagster_run_id"] == "abc"
    record = trained.bundle.record
    newest = {f"out_of_time/{name}": value for name, value in record.out_of_time.items()}
    assert run.data.metrics == {**trained.evaluation.metrics, **newest}
    assert {"auc_low", "auc_high", "log_loss_low", "ks_high"} < set(run.data.metrics)
    assert run.data.params["learning_rate"] == "0.05"
    assert run.data.params["partitions"] == ", ".join(record.partitions)
    assert run.inputs
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == record.data_hash
    # MLflow's page of a version shows what its logged model was told.
    assert run.outputs
    (made,) = run.outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    assert {metric.key: metric.value for metric in model.metrics or []} == run.data.metrics
    assert model.params == run.data.params

    files = {file.path: file.is_dir for file in client.list_artifacts(run.info.run_id)}
    assert {path for path, is_folder in files.items() if not is_folder} == {
        *("by_month.json", "by_segment.json", "fairness.json"),
        *("model_card.json", "model_card.html"),
    }
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {
        f"pictures/{name}.png"
        for name in (
            *("roc", "precision_recall", "calibration", "score_distribution"),
            *("confusion_matrix", "lift", "feature_importance", "fairness"),
        )
    }
    table = json.loads(
        Path(client.download_artifacts(run.info.run_id, "by_month.json")).read_text()
    )
    months = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [month["name"] for month in months] == [one.name for one in trained.evaluation.by_month]
    assert months[0]["auc"] == pytest.approx(trained.evaluation.by_month[0].auc)
    card = Path(client.download_artifacts(run.info.run_id, "model_card.html")).read_text()
    assert card == registry.card("1").read_text()
    assert run.info.run_id in card
    assert "abc" in card
    assert "version 1" in card
    tags = client.get_model_version("home_loans", version).tags
    assert tags["contract_hash"] == record.contract_hash
    assert tags["policy_hash"] == trained.bundle.policy.policy_hash
    assert tags["trained_through"] == "2024-08"
    assert tags["simulated"] == "true"

    # Nothing is written but below the state folder.
    assert [path.name for path in tmp_path.iterdir() if path != home.root] == []


def test_promote_load_and_download_give_the_bundle_that_was_registered(
    registry: Registry, trained: Trained, months: dict[str, Path], tmp_path: Path
) -> None:
    first = registry.register(trained.bundle, trained.evaluation, pictures={})
    registry.promote(first)
    second = registry.register(trained.bundle, trained.evaluation, pictures={})
    registry.promote(second, "challenger")
    assert registry.version_of("champion") == first
    matrix = known_rows(home_loans.contract(), months, AS_OF).matrix
    loaded = registry.load(first)
    np.testing.assert_array_equal(loaded.probability(matrix), trained.bundle.probability(matrix))
    assert loaded.record == trained.bundle.record
    folder = registry.download(second, tmp_path / "here")
    assert (folder / "manifest.json").is_file()
    # A service reads by the same names, and tells the version by its files too.
    reader = Versions(registry.home, "home_loans")
    assert reader.named("champion") == Version(first, bundle_hash(folder))
    assert reader.version_of("challenger") == second
    with pytest.raises(RegistryError, match="version 9 of home_loans cannot be fetched"):
        registry.load("9")


def test_more_and_longer_parameters_than_mlflow_takes_at_once(
    registry: Registry, trained: Trained
) -> None:
    many = {f"{number}.setting": number for number in range(150)} | {"long": "x" * 7000}
    record = trained.bundle.record.model_copy(update={"parameters": many})
    bundle = dataclasses.replace(trained.bundle, record=record)
    version = registry.register(bundle, trained.evaluation, pictures={})
    params = registry.client.get_run(registry.run_id(version)).data.params
    assert params["149.setting"] == "149"
    assert len(params) > 150
    assert params["long"] == "x" * 5999 + "…"


def test_a_version_says_which_protected_columns_it_uses_and_why(
    registry: Registry, trained: Trained
) -> None:
    contract = trained.bundle.contract
    columns = [
        column.model_copy(update={"protected_accepted": "because"})
        if column.name == "years_in_job"
        else column
        for column in contract.columns
    ]
    bundle = dataclasses.replace(
        trained.bundle, contract=contract.model_copy(update={"columns": columns})
    )
    version = registry.register(bundle, trained.evaluation, pictures={})
    found = registry.client.get_model_version("home_loans", version)
    told = "used although it is protected: years_in_job: because"
    assert found.tags["protected_accepted"] == told
    assert found.description == told


def test_polling_an_alias_is_cheap(registry: Registry, trained: Trained) -> None:
    registry.promote(registry.register(trained.bundle, trained.evaluation, pictures={}))
    took = []
    for _ in range(20):
        begin = time.process_time()
        registry.version_of("champion")
        took.append(time.process_time() - begin)
    assert np.median(took) < 0.03


def test_a_version_with_a_damaged_bundle_never_becomes_champion(
    registry: Registry, trained: Trained, home: Home
) -> None:
    good = registry.register(trained.bundle, trained.evaluation, pictures={})
    registry.promote(good)
    bad = registry.register(trained.bundle, trained.evaluation, pictures={})
    source = registry.client.get_model_version("home_loans", bad).source
    assert source is not None
    file = Path(source.removeprefix("file://")) / "artifacts/bundle/scorer-0.lightgbm"
    file.write_text(file.read_text().replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(BundleError, match=r"scorer-0.lightgbm: not the file that was saved"):
        registry.promote(bad)
    assert registry.version_of("champion") == good


def test_a_training_that_cannot_be_stored_leaves_no_version_and_a_failed_run(
    registry: Registry, trained: Trained
) -> None:
    registry.register(trained.bundle, trained.evaluation, pictures={})
    short = dataclasses.replace(trained.bundle, golden=trained.bundle.golden[:, :2])
    with pytest.raises(ValueError, match="the matrix has shape"):
        registry.register(short, trained.evaluation, pictures={})
    (only,) = registry.client.search_model_versions("name = 'home_loans'")
    assert str(only.version) == "1"
    experiment = registry.client.get_experiment_by_name("home_loans")
    assert experiment is not None
    runs = registry.client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


@pytest.mark.slow
def test_mlflow_itself_loads_the_champion_in_another_process(
    registry: Registry, trained: Trained, home: Home, tmp_path: Path
) -> None:
    registry.promote(registry.register(trained.bundle, trained.evaluation, pictures={}))
    frame = example_frame(trained.bundle)
    frame.to_pandas().to_parquet(tmp_path / "frame.parquet")
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mlflow, pandas as pd\n"
            "mlflow.set_tracking_uri(sys.argv[1])\n"
            "model = mlflow.pyfunc.load_model('models:/home_loans@champion')\n"
            "model.predict(pd.read_parquet('frame.parquet')).to_parquet('out.parquet')\n",
            home.tracking_uri,
        ],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    answered = pd.read_parquet(tmp_path / "out.parquet")
    expected = predict_frame(trained.bundle, frame).to_pandas()
    pd.testing.assert_frame_equal(answered, expected)
    assert set(answered["decision"]) <= {"approve", "refer", "decline"}


def test_predicting_a_frame_is_the_road_of_training(
    trained: Trained, months: dict[str, Path]
) -> None:
    import pyarrow.parquet as pq

    contract = home_loans.contract()
    table = pq.read_table(months["2024-03"])
    columns = [column.name for column in contract.feature_columns]
    rows = known_rows(contract, {"2024-03": months["2024-03"]}, AS_OF)
    order = np.argsort(table["application_id"].to_numpy(zero_copy_only=False))
    answered = predict_frame(trained.bundle, table.select(columns).take(order))
    np.testing.assert_array_equal(
        answered["probability_default"], trained.bundle.probability(rows.matrix)
    )
    with pytest.raises(ValueError, match="the table lacks debt-ratio"):
        predict_frame(trained.bundle, table.select(columns).drop_columns(["debt-ratio"]))


def test_a_frame_may_hold_dates_texts_and_the_day_of_the_application(
    credit_risk: Contract,
) -> None:
    """A model whose features read what the model itself does not see cannot be asked by MLflow."""
    contract = club_loans.contract()
    request = request_model(contract)
    inputs = [
        request.model_validate_json(json.dumps(typed)).inputs for _, typed in club_loans.rows(60)
    ]
    matrix, _ = PreparedFeatures(contract).evaluate(inputs)
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5},
        lightgbm.Dataset(matrix, np.nan_to_num(matrix[:, 4]) % 2),
        num_boost_round=5,
    )
    model = dataclasses.replace(
        bundles.bundle(credit_risk, trees=1),
        contract=contract,
        scorer=LightGBM(booster.model_to_string()),
        golden=matrix[:5],
    )
    answered = predict_frame(model, pa.Table.from_pylist(inputs))
    np.testing.assert_array_equal(answered["probability_default"], model.probability(matrix))
    example = example_frame(model)
    assert example.column_names == [column.name for column in contract.input_columns]
    assert len(predict_frame(model, example)) == 5
    kinds = {column.name: column.type.name for column in _signature(model).inputs}
    assert (kinds["issue_d"], kinds["purpose"], kinds["years"]) == ("string", "string", "double")
