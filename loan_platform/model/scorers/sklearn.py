"""scikit-learn's pipelines, stored by skops.

Here: asking one, and reading one that holds nothing but the types listed here. Not here: fitting.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from loan_platform.model.scorers import ScorerError, refuse_other_width, shares
from loan_platform.model.threads import thread_pools

# How skops rebuilds an object. Those that look a function up by name (FunctionNode, MethodNode,
# PartialNode, OperatorFuncNode) or call a constructor are not among them.
LOADERS = frozenset(
    {
        *("DictNode", "ListNode", "TupleNode", "SliceNode", "JsonNode", "TypeNode", "DTypeNode"),
        *("NdArrayNode", "ObjectNode", "TreeNode", "LossNode"),
        *("RandomStateNode", "RandomGeneratorNode"),
    }
)
# Every type that a pipeline of `training.families` holds. FunctionTransformer is not one of them:
# it calls whatever function it was given.
TRUSTED = frozenset(
    {
        *("builtins.dict", "builtins.list", "builtins.tuple", "builtins.slice"),
        "builtins.str",
        *("numpy.ndarray", "numpy.dtype", "numpy.float64", "numpy.int64", "numpy.uint64"),
        "numpy.random.mtrand.RandomState",
        "numpy.random._generator.Generator",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.dummy.DummyClassifier",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._gb.GradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.preprocessing._label.LabelBinarizer",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._tree.Tree",
    }
)
# A forest may say 0 or 1, of which the log-odds are infinite: it never is as sure as that.
SUREST = 1e-4


@dataclass(frozen=True)
class Sklearn:
    """A pipeline that takes the matrix as it is and ends in a classifier of 0 (good) and 1 (bad).

    No contributions: none of these classifiers adds its margin up from its inputs.
    """

    content: bytes

    kind: ClassVar[str] = "sklearn"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy", "skops")

    @classmethod
    def of(cls, pipeline: Any) -> Sklearn:
        from skops.io import dumps

        return cls(dumps(pipeline, compression=zipfile.ZIP_DEFLATED))

    @cached_property
    def _pipeline(self) -> Any:
        from skops.io import loads

        _refuse_untrusted(self.content)
        return loads(self.content, trusted=sorted(TRUSTED))

    @cached_property
    def _pools(self) -> Any:
        assert self._pipeline is not None  # loads the libraries whose pools these are
        return thread_pools()

    def margin(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        del threads  # more of them only help where many rows are asked for
        with self._pools.limit(limits=1):
            return margin_of(self._pipeline, matrix)

    def contributions(self, matrix: np.ndarray) -> None:
        del matrix

    def importance(self) -> np.ndarray | None:
        """A forest's impurity decrease, of all columns made from an input; None for the others."""
        found = getattr(self._pipeline[-1], "feature_importances_", None)
        if found is None:
            return None
        made = self._pipeline[0].get_feature_names_out()
        of_input = [int(re.findall(r"x(\d+)", name)[0]) for name in made]
        return shares(np.bincount(of_input, found, minlength=self._pipeline.n_features_in_))

    def dump(self) -> bytes:
        return self.content

    @classmethod
    def read(cls, content: bytes, inputs: int) -> Sklearn:
        scorer = cls(content)
        try:
            found = scorer._pipeline.n_features_in_
        except ScorerError:
            raise
        except Exception as error:  # skops says nothing of what it may raise
            raise ScorerError(f"skops cannot read it ({type(error).__name__})") from None
        refuse_other_width(found, inputs)
        return scorer


def margin_of(classifier: Any, rows: np.ndarray) -> np.ndarray:
    """The log-odds of class 1 by a fitted classifier of scikit-learn, shape (n,)."""
    if hasattr(classifier, "decision_function"):
        return np.asarray(classifier.decision_function(rows))
    return log_odds(classifier.predict_proba(rows)[:, 1])


def log_odds(probability: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)), p held within `SUREST` of 0 and 1."""
    held = np.clip(probability, SUREST, 1 - SUREST)
    return np.asarray(np.log(held) - np.log1p(-held))


def _refuse_untrusted(content: bytes) -> None:
    """Stricter than skops, which trusts every estimator of scikit-learn; nothing is built yet."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
    found = {
        name
        for node in _nodes(schema)
        for name, known in (
            (f"{node.get('__module__')}.{node.get('__class__')}", TRUSTED),
            (str(node.get("__loader__")), LOADERS),
        )
        if name not in known
    }
    if found:
        raise ScorerError(f"it holds {', '.join(sorted(found))}, which no model of ours is made of")


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Every object that the schema describes, however deep."""
    waiting = [part]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.keys() & {"__loader__", "__class__", "__module__"}:
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
