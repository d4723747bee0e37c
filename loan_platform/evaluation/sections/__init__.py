"""The sections of the model card, in the order in which people read them.

A section is a module of this folder with a function `figures(subject)`, a template of its name in
`evaluation/templates`, a line here and a line of the list in docs/model_card.md.
"""

from loan_platform.evaluation.section import Section, Subject
from loan_platform.evaluation.sections import (
    data,
    fairness,
    limits,
    model,
    months,
    origin,
    pictures,
    policy,
    purpose,
    quality,
    reasons,
    segments,
)

SECTIONS = (
    Section("purpose", "What it is for", purpose.figures),
    Section("quality", "How good it is", quality.figures),
    Section("pictures", "Pictures", pictures.figures),
    Section("months", "By month of application", months.figures),
    Section("segments", "By segment", segments.figures),
    Section("policy", "Policy", policy.figures),
    Section("fairness", "Fairness", fairness.figures),
    Section("reasons", "Reasons", reasons.figures),
    Section("model", "Model", model.figures),
    Section("data", "Data", data.figures),
    Section("limits", "What it does not do", limits.figures),
    Section("origin", "Where it comes from", origin.figures),
)

__all__ = ["SECTIONS", "Section", "Subject"]
