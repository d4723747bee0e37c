"""Dagster components: what turns a contract into assets, checks, sensors and schedules.

Here: the thin layer between Dagster and the rooms below it. Not here: anything that would be
needed without Dagster (below), or any single portfolio (`defs`).
"""

from loan_platform.components.loan_portfolio import LoanPortfolio

__all__ = ["LoanPortfolio"]
