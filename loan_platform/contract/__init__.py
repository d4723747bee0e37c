"""What a portfolio is: the contract, and the SQL and request models made from it.

Here: the declaration and everything generated from it, as text and types.
Not here: running any of it (`engine`), or anything that knows of Dagster, MLflow or BentoML.
"""

from loan_platform.contract.portfolio import Contract
from loan_platform.contract.reading import ContractError, read_contract

__all__ = ["Contract", "ContractError", "read_contract"]
