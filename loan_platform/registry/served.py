"""The file MLflow runs to serve a logged bundle: `mlflow.pyfunc.load_model(...).predict(frame)`.

It is logged as code beside the bundle, so nothing is pickled; loan_platform itself must be
installed where the model is loaded. Numbers come as floats: MLflow refuses whole numbers where
a column may hold fractions or be missing.

Here: only the bridge from MLflow's call to the bundle.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from loan_platform.registry.models import predict_frame


class LoanModel(PythonModel):
    """Input columns of the contract in; probability_default, label and decision out."""

    def load_context(self, context: PythonModelContext) -> None:
        from pathlib import Path

        from loan_platform.model import Bundle

        self._bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 (MLflow passes these two by name)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        decided: pd.DataFrame = predict_frame(
            self._bundle, pa.Table.from_pandas(model_input, preserve_index=False)
        ).to_pandas()
        return decided


set_model(LoanModel())
