from __future__ import annotations

import dataclasses
import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from loan_platform.model.bundle import Bundle
from loan_platform.training.evaluate import Evaluation
from loan_platform.training.pictures import _flagged, draw


class Mute:
    """A scorer that cannot say what it uses."""

    def importance(self) -> None:
        return None


def test_every_picture_is_a_small_png(judged: tuple[Bundle, Evaluation]) -> None:
    before = dict(mpl.rcParams)
    drawn = draw(*judged)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
    assert list(drawn) == [
        "roc.png",
        "precision_recall.png",
        "calibration.png",
        "score_distribution.png",
        "confusion_matrix.png",
        "lift.png",
        "feature_importance.png",
        "fairness.png",
    ]
    for name, png in drawn.items():
        assert len(png) < 60_000, name
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.format == "PNG"
            assert picture.width == 600
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50, f"{name} is empty"


def test_what_cannot_be_drawn_is_left_out(judged: tuple[Bundle, Evaluation]) -> None:
    bundle, evaluation = judged
    mute = dataclasses.replace(bundle, scorer=Mute())  # type: ignore[arg-type]
    drawn = draw(mute, dataclasses.replace(evaluation, fairness=[]))
    assert not {"feature_importance.png", "fairness.png"} & set(drawn)
    assert len(drawn) == 6


def test_the_curves_are_those_of_scikit_learn(judged: tuple[Bundle, Evaluation]) -> None:
    _, evaluation = judged
    rounded = dataclasses.replace(evaluation, probability=evaluation.probability.round(2))
    found, alarmed = _flagged(rounded)
    theirs = roc_curve(rounded.outcome, rounded.probability, drop_intermediate=False)
    np.testing.assert_allclose(alarmed, theirs[0])
    np.testing.assert_allclose(found, theirs[1])
    bad = rounded.outcome.sum()
    hit, missed = found[1:] * bad, alarmed[1:] * (len(rounded.outcome) - bad)
    precision, recall, _ = precision_recall_curve(rounded.outcome, rounded.probability)
    np.testing.assert_allclose(hit / (hit + missed), precision[-2::-1])
    np.testing.assert_allclose(found[1:], recall[-2::-1])
