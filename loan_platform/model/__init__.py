"""The trained model as the service and the assets share it: the bundle, and deciding with it.

Here: what is needed to turn a matrix into decisions, and to carry that safely between machines.
Not here: fitting or measuring it (`training`), or where versions are kept (`registry`).
"""

from loan_platform.model.bundle import Bundle, BundleError, TrainingRecord
from loan_platform.model.policy import Policy

__all__ = ["Bundle", "BundleError", "Policy", "TrainingRecord"]
