"""From cleaned rows with known outcomes to a fitted, calibrated and measured model.

Here: which rows may be used and for what, fitting, calibration, the threshold, the measures.
Not here: keeping versions and choosing between them (`registry`), or the assets (`components`).
"""

from loan_platform.training.rows import TrainingError

__all__ = ["TrainingError"]
