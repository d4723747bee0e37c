"""Sensors of the whole location."""

import dagster as dg

# Asks for what the assets' own conditions call for: the months that are missing or failed.
partition_gaps = dg.AutomationConditionSensorDefinition(
    "partition_gaps",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
