"""Resources of the platform, bound once from the environment."""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from loan_platform.engine.home import Home


def platform_resources(home: Home) -> dict[str, object]:
    """`home`: where state lies. `mlflow`: dagster-mlflow's MLflow run of each Dagster run."""
    return {
        "home": home,
        "mlflow": mlflow_link.configured(
            {"mlflow_tracking_uri": home.tracking_uri, "experiment_name": "loan_platform"}
        ),
    }


@dg.resource(
    config_schema={"mlflow_tracking_uri": str, "experiment_name": str},
    description="One MLflow run for each Dagster run that trains.",
)
def mlflow_link(context: dg.InitResourceContext) -> Iterator[Any]:
    """dagster-mlflow's resource, imported by the runs that train: MLflow takes a second to load."""
    config = {
        **context.resource_config,
        "parent_run_id": None,
        "mlflow_run_id": None,
        "env": {},
        "env_to_tag": None,
        "extra_tags": {},
    }
    with warnings.catch_warnings():
        # All of dagster-mlflow is marked beta; its version is pinned and its use tested.
        warnings.simplefilter("ignore", dg.BetaWarning)
        from dagster_mlflow import mlflow_tracking

        start: Any = mlflow_tracking.resource_fn  # typed by Dagster as if it took no context
        running = start(context.replace_config(config))
        link = next(running)
    yield link
    yield from running


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources=platform_resources(Home.from_environment()))
