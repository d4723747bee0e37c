"""The runs, hashes and libraries that made the version."""

from __future__ import annotations

import hashlib
import json

from loan_platform.evaluation.section import Figures, Subject
from loan_platform.model.bundle import TrainingRecord


def figures(subject: Subject) -> Figures:
    record = subject.bundle.record
    return {
        "hashes": {
            "data hash": record.data_hash,
            "contract hash": record.contract_hash,
            "policy hash": subject.bundle.policy.policy_hash,
            "environment hash": environment_hash(record),
        },
        "libraries": dict(record.environment),
    }


def environment_hash(record: TrainingRecord) -> str:
    """12 hex digits over the versions of what computed the probabilities."""
    text = json.dumps(record.environment, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
