"""The code location: everything under `defs/`, and the policy that holds for the whole platform.

Here: loading and platform-wide settings, once. Not here: any asset (`components`), any portfolio
or resource (`defs`).
"""

from pathlib import Path

import dagster as dg

from loan_platform.contract.portfolios import contract_files

# One process a run: a step's own process costs seconds of imports, its work less than one.
# Runs go beside each other; steps of a run do not.
EXECUTOR = dg.in_process_executor


def with_platform_policy(*parts: dg.Definitions) -> dg.Definitions:
    """Merge portfolios and resources into one location with the platform's executor."""
    return dg.Definitions.merge(*parts, dg.Definitions(executor=EXECUTOR))


@dg.definitions
def defs() -> dg.Definitions:
    contract_files()  # a misspelt LOAN_PLATFORM_PORTFOLIOS is an error, not an empty location
    return with_platform_policy(dg.load_from_defs_folder(path_within_project=Path(__file__).parent))
