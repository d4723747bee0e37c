"""The `LoanPortfolio` component: one contract in, one asset graph out.

Here: which parts a portfolio has. Not here: the parts (`profile`, `book`, `champion`, `monitoring`,
`automation`, `retraining`, `alias_watch`), or anything a portfolio computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from loan_platform.components.alias_watch import champion_watch
from loan_platform.components.automation import current_months_schedule
from loan_platform.components.book import book_assets
from loan_platform.components.champion import MODEL_ASSETS, champion_assets
from loan_platform.components.monitoring import drift_check_key, monitoring_assets
from loan_platform.components.profile import profile_assets
from loan_platform.components.retraining import retrain_sensor
from loan_platform.components.scaffolding import PortfolioScaffolder
from loan_platform.contract import Contract, read_contract
from loan_platform.contract.portfolios import is_chosen

# What changes with every night of an open month.
MONTHLY_ASSETS = ("decisions", "outcomes", "raw_loans", "cleaned_features", "feature_counts")


class AttributesAsWritten(BaseModel):
    """The contract before it is judged, with its JSON schema for editors and `dg check yaml`.

    Dagster's own validation loses the line and the message of what a contract finds in itself.
    """

    model_config = ConfigDict(extra="allow")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        return handler(Contract.__pydantic_core_schema__)


@dg.scaffold_with(PortfolioScaffolder)
class LoanPortfolio(dg.Component):
    """The asset graph of one loan book, from its contract.

    Raw loans, cleaned features, counts, baseline, model, champion, service, decisions, outcomes
    and drift reports; a sensor that retrains on drift and one that watches the champion; a schedule
    for the current months.
    """

    def __init__(self, contract: Contract | None) -> None:
        self.contract = contract  # None: not among those in LOAN_PLATFORM_PORTFOLIOS

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return AttributesAsWritten

    @classmethod
    def load(
        cls,
        attributes: BaseModel | None,  # noqa: ARG003
        context: dg.ComponentLoadContext,
    ) -> LoanPortfolio:
        folder = Path(context.path)
        return cls(read_contract(folder / "defs.yaml") if is_chosen(folder.name) else None)

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="The asset graph of one loan book, from its contract.",
            owners=["team:credit-risk"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        return portfolio_definitions(self.contract) if self.contract else dg.Definitions()


def portfolio_definitions(contract: Contract) -> dg.Definitions:
    """Assets, checks, sensors, schedule of one portfolio. Needs resources `home` and `mlflow`."""

    def keys(names: tuple[str, ...]) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*(dg.AssetKey([contract.name, name]) for name in names))

    sensor = retrain_sensor(
        contract,
        check_key=drift_check_key(contract),
        model=dg.AssetKey([contract.name, "trained_model"]),
        selection=keys(MODEL_ASSETS),
    )
    return dg.Definitions(
        assets=[
            *profile_assets(contract),
            *book_assets(contract),
            *champion_assets(contract),
            *monitoring_assets(contract),
        ],
        sensors=[champion_watch(contract), *([sensor] if sensor else [])],
        schedules=[current_months_schedule(contract, keys(MONTHLY_ASSETS))],
    )
