"""The models of the blend with all their settings, the calibrator, and the inputs."""

from __future__ import annotations

from loan_platform.evaluation.section import Figures, Subject
from loan_platform.model.bundle import Bundle, TrainingRecord
from loan_platform.model.calibrator import Calibrator


def figures(subject: Subject) -> Figures:
    bundle = subject.bundle
    return {
        "ingredients": _ingredients(bundle.record),
        "calibrator": _calibrated(bundle.calibrator),
        "class_weight": str(bundle.contract.training.class_weight),
        "seed": bundle.record.seed,
        "inputs": _inputs(bundle),
    }


def _ingredients(record: TrainingRecord) -> list[dict[str, str]]:
    """What each model of the blend is, with all its settings, those left at their default too."""
    told = []
    for number, one in enumerate(record.ingredients, start=1):
        before = f"{number}." if len(record.ingredients) > 1 else ""
        settings = {
            name.removeprefix(before): value
            for name, value in record.parameters.items()
            if name.startswith(before)
        }
        told.append(
            {
                "family": str(one["family"]),
                "weight": f"{one['weight']:.3g}",
                "size": f"{one['size']:,}" if one["size"] else "",
                "settings": ", ".join(
                    f"{name} {value}" for name, value in settings.items() if name not in one
                ),
            }
        )
    return told


def _calibrated(calibrator: Calibrator) -> str:
    if calibrator.kind == "sigmoid":
        return (
            "Platt's sigmoid on the log-odds, with slope "
            f"{calibrator.slope:.4f} and intercept {calibrator.intercept:+.4f}"
        )
    return f"isotonic on the log-odds, with {len(calibrator.points)} points"


def _inputs(bundle: Bundle) -> list[dict[str, str]]:
    """What the model sees, with the direction it is held to."""
    contract = bundle.contract
    directions = dict(zip(contract.model_inputs, contract.monotone_directions, strict=True))
    held = {1: "rises with it", -1: "falls with it", 0: ""}
    columns = [(c.name, c.description or "", c.unit, c.type) for c in contract.feature_columns]
    derived = [
        (name, f.description or f.sql, f.unit, "derived") for name, f in contract.features.items()
    ]
    return [
        {
            "name": name,
            "told": f"{told} ({unit})" if unit else told,
            "type": kind,
            "direction": held[directions[name]],
        }
        for name, told, unit, kind in (*columns, *derived)
    ]
