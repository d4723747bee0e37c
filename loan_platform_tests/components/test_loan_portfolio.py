"""What the code location holds, and what a person is told whose contract is wrong."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox
from yaml import YAMLError

from loan_platform.components.loan_portfolio import AttributesAsWritten
from loan_platform.contract.portfolios import CHOICE
from loan_platform.definitions import defs
from loan_platform.engine.home import PROJECT_ROOT
from loan_platform_tests import home_loans

MONTHLY = {
    "decisions",
    "outcomes",
    "raw_loans",
    "cleaned_features",
    "feature_counts",
    "drift_report",
}
WHOLE = {
    *("profile", "feature_bins", "model_search", "trained_model"),
    *("champion", "baseline_stats", "loan_service"),
}


@pytest.fixture(scope="module")
def location() -> dg.Definitions:
    """As the server loads it, with one of its portfolios."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CHOICE, "credit_risk")
        return defs()


@pytest.fixture(scope="module")
def specs(location: dg.Definitions) -> dict[str, dg.AssetSpec]:
    found = location.resolve_all_asset_specs()
    assert all(spec.key.path[0] == "credit_risk" for spec in found)
    return {spec.key.path[-1]: spec for spec in found}


def test_the_asset_graph_is_the_one_people_were_promised(specs: dict[str, dg.AssetSpec]):
    assert set(specs) == MONTHLY | WHOLE
    deps = {name: {dep.asset_key.path[-1] for dep in spec.deps} for name, spec in specs.items()}
    assert deps == {
        "decisions": set(),
        "outcomes": {"decisions"},
        "raw_loans": {"decisions", "outcomes"},
        "cleaned_features": {"raw_loans"},
        "profile": set(),
        "feature_bins": set(),
        "feature_counts": {"cleaned_features", "feature_bins"},
        "model_search": {"profile", "cleaned_features"},
        "trained_model": {"profile", "cleaned_features", "model_search"},
        "champion": {"trained_model"},
        "baseline_stats": {"champion", "feature_counts"},
        "loan_service": {"champion"},
        "drift_report": {"feature_counts", "baseline_stats"},
    }


@pytest.mark.parametrize("name", sorted(MONTHLY | WHOLE))
def test_every_asset_says_what_it_is_and_when_it_is_late(name: str, specs: dict[str, dg.AssetSpec]):
    spec = specs[name]
    assert spec.group_name == "credit_risk"
    assert list(spec.owners) == ["team:credit-risk"]
    assert spec.kinds
    assert len(spec.description or "") > 30
    assert isinstance(spec.partitions_def, dg.MonthlyPartitionsDefinition) == (name in MONTHLY)
    policy: Any = spec.freshness_policy
    days = 40 if name in MONTHLY else 270
    assert policy.fail_window.to_timedelta() == dt.timedelta(days=days)
    assert policy.warn_window.to_timedelta() < policy.fail_window.to_timedelta()


CONTRACT_CHECKS = ("types", "ranges", "categories", "nulls", "duplicates", "dates", "rules")


def test_sensors_schedule_and_check(location: dg.Definitions):
    repository = location.get_repository_def()
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    mine = {"credit_risk_retrain_on_drift", "credit_risk_champion_watch"}
    assert mine | {"partition_gaps"} <= set(sensors)
    assert all(one.default_status is dg.DefaultSensorStatus.RUNNING for one in sensors.values())
    (schedule,) = repository.schedule_defs
    assert schedule.name == "credit_risk_current_months"
    checks = location.resolve_asset_graph().asset_check_keys
    assert {key.to_user_string() for key in checks} == {
        "credit_risk/champion:alias_in_ledger",
        "credit_risk/drift_report:no_drift",
        "credit_risk/profile:no_leak",
        *(
            f"credit_risk/raw_loans:{name}"
            for name in ("admitted", *CONTRACT_CHECKS, "row_count", "last_month")
        ),
    }


def test_the_model_is_trained_by_one_run_at_a_time(location: dg.Definitions):
    node = location.resolve_asset_graph().get(dg.AssetKey(["credit_risk", "trained_model"]))
    assert node.pools == {"training"}


def test_columns_are_shown_with_types_units_and_limits(specs: dict[str, dg.AssetSpec]):
    schema: dg.TableSchema = specs["raw_loans"].metadata["dagster/column_schema"]
    columns = {column.name: column for column in schema.columns}
    age = columns["person_age"]
    assert (age.type, age.description) == ("BIGINT", "Age of the applicant (years)")
    assert age.constraints.other == ["between 18 and 100"]
    assert not age.constraints.nullable
    assert columns["person_emp_length"].constraints.nullable
    assert columns["cb_person_default_on_file"].constraints.other == ["one of N, Y"]
    assert "loan_grade" not in columns


def test_every_cleaned_column_names_the_raw_columns_it_comes_from(specs: dict[str, dg.AssetSpec]):
    metadata = specs["cleaned_features"].metadata
    lineage: dg.TableColumnLineage = metadata["dagster/column_lineage"]
    schema: dg.TableSchema = metadata["dagster/column_schema"]
    raw: dg.TableSchema = specs["raw_loans"].metadata["dagster/column_schema"]
    assert set(lineage.deps_by_column) == {column.name for column in schema.columns}
    sources = {
        name: [dep.column_name for dep in deps] for name, deps in lineage.deps_by_column.items()
    }
    assert sources["loan_to_income"] == ["loan_amnt", "person_income"]
    known = {column.name for column in raw.columns}
    assert known.issuperset(name for names in sources.values() for name in names)


def test_loading_the_location_imports_nothing_heavy():
    """Every run worker and sensor tick pays for what is imported here."""
    heavy = ["mlflow", "sklearn", "lightgbm", "bentoml", "matplotlib", "scipy", "dagster_mlflow"]
    script = (
        "import json, sys\nfrom loan_platform.definitions import defs\n"
        "defs().get_repository_def()\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(loaded.stdout.splitlines()[-1]) == []


def error_of_loading(text: str) -> tuple[Path, str]:
    """Load a project whose only portfolio is `text`; the file, and everything a person is shown."""
    with create_defs_folder_sandbox() as sandbox:
        file = sandbox.defs_folder_path / "portfolios" / "mine" / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        with pytest.raises((ComponentTreeException, YAMLError)) as raised, sandbox.build_all_defs():
            pass
    shown: list[str] = []
    error: BaseException | None = raised.value
    while error is not None:
        shown.append(str(error))
        error = error.__cause__
    return file, "\n".join(shown)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ('ln("loan amount")', 'ln("amount")', "features.log_amount.sql", "unknown column amount"),
        ("range: [0, 60]", "range: [60, 0]", "columns[6].range", "low 60 is not below high 0"),
        ("matures_after_days", "matures_after", "outcome.matures_after", "check the spelling"),
    ],
)  # fmt: skip
def test_dagster_shows_file_line_and_mend_of_a_bad_contract(
    old: str, new: str, place: str, words: str
):
    text = home_loans.DEFS_YAML.replace(old, new)
    line = text[: text.index(new)].count("\n") + 1
    file, shown = error_of_loading(text)
    assert f"{file}:{line}: {place}: " in shown
    assert words in shown


def test_dagster_shows_file_and_line_of_broken_yaml():
    file, shown = error_of_loading(home_loans.DEFS_YAML.replace("good: [paid]", "good: [paid"))
    assert f'"{file}", line ' in shown


def test_a_contract_without_attributes_is_told():
    file, shown = error_of_loading("type: loan_platform.components.LoanPortfolio\n")
    assert f"{file}:1: no attributes: block" in shown


def test_editors_get_the_contracts_schema():
    schema = AttributesAsWritten.model_json_schema()
    assert {"columns", "outcome", "time", "features"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert "Column" in schema["$defs"]


@pytest.mark.slow
def test_dg_checks_the_project():
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "check", "defs"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr
