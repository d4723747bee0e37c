"""The code location of the daemon tests: the platform's own parts around two small portfolios."""

import dagster as dg

from loan_platform.components.loan_portfolio import portfolio_definitions
from loan_platform.definitions import with_platform_policy
from loan_platform.defs.automation import alerts
from loan_platform.defs.resources import platform_resources
from loan_platform.engine.home import Home
from loan_platform_tests.daemon_tests.book import contract

# The platform's own looks every 30 s and at every portfolio; what steady has, the tests decide.
partition_gaps = dg.AutomationConditionSensorDefinition(
    "partition_gaps", target=dg.AssetSelection.groups("gappy"), minimum_interval_seconds=5
)

defs = with_platform_policy(
    portfolio_definitions(contract("steady")),
    portfolio_definitions(contract("gappy")),
    dg.Definitions(
        sensors=[partition_gaps, alerts],
        resources=platform_resources(Home.from_environment()),
    ),
)
