"""Resources of the platform, bound once from the environment."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from loan_platform.engine.home import Home


def platform_resources(home: Home) -> dict[str, object]:
    """`home`: where state lies. `mlflow`: dagster-mlflow's link from a Dagster run to an MLflow run."""
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
    """dagster-mlflow's resource, imported only by the runs that train: MLflow takes a second to load."""
    from dagster_mlflow import mlflow_tracking

    config = {
        **context.resource_config,
        "parent_run_id": None,
        "mlflow_run_id": None,
        "env": {},
        "env_to_tag": None,
        "extra_tags": {},
    }
    yield from mlflow_tracking.resource_fn(context.replace_config(config))


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources=platform_resources(Home.from_environment()))
