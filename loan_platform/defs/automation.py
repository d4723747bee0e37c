"""Sensors of the whole location."""

import dagster as dg

from loan_platform.components.alerting import alert_sensor

# Asks for what the assets' own conditions call for: the months that are missing or failed.
partition_gaps = dg.AutomationConditionSensorDefinition(
    "partition_gaps",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)

alerts = alert_sensor()
