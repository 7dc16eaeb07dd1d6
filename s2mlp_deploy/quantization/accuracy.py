"""Measure an int8 graph's accuracy on images that did not calibrate it, and compare it with the user's limits."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate.checks import check_logits
from s2mlp_deploy.gate.distance import leading_class
from s2mlp_deploy.gate.evaluation import EvaluationSet, logits_of
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import INT8
from s2mlp_deploy.schema.report import Trial


@dataclass(frozen=True)
class Evaluator:
    """Measures int8 graphs of a fixed ``batch`` size (None for any) on an evaluation set, by the limits in ``settings``."""

    evaluation: EvaluationSet
    settings: Int8
    batch: int | None

    def trial(self, float_layers: tuple[str, ...], lowered: Lowered) -> Trial:
        """The accuracy of ``lowered``, which has ``float_layers`` in float."""
        with scratch_session(lowered) as session:
            logits = logits_of(session, self.evaluation.images, self.batch)
        return assess(float_layers, logits, self.evaluation, self.settings)


def assess(float_layers: tuple[str, ...], logits: Array, evaluation: EvaluationSet, settings: Int8) -> Trial:
    """Compare an int8 model's ``logits`` of the evaluation images with the limits in ``settings``."""
    classes, expected = leading_class(logits), leading_class(evaluation.float_logits)
    agreement = float((classes == expected).mean())
    # The gate checks these images, so layers are left in float for its sake, too.
    rows = list(evaluation.pictures().rows)
    tolerance = INT8.rule.tolerance(0.0)
    gate = check_logits({"images": logits[rows]}, {"images": evaluation.float_logits[rows]}, tolerance)
    finite = bool(np.isfinite(logits).all())  # a few that are not would be within the limits
    relative_l2 = gate.distances["images"].relative_l2 if finite else inf
    if evaluation.labels is None:
        passed = finite and gate.passed and agreement >= settings.min_agreement
        return Trial(float_layers, agreement, None, None, relative_l2, passed)
    accuracy, float_accuracy = (float((c == evaluation.labels).mean()) for c in (classes, expected))
    drop = round(100 * (float_accuracy - accuracy), 9)  # so that 0.895 - 0.89 is not more than half a point
    passed = finite and gate.passed and drop <= settings.max_accuracy_drop
    return Trial(float_layers, agreement, accuracy, float_accuracy, relative_l2, passed)


def describe(trial: Trial) -> str:
    """One line about ``trial``, for messages."""
    accuracy = "" if trial.accuracy is None else f", accuracy {trial.accuracy:.2%} (float {trial.float_accuracy:.2%})"
    return (
        f"{len(trial.float_layers)} in float: same class {trial.agreement:.2%}{accuracy}, "
        f"relative L2 {trial.relative_l2:.2g}"
    )


def limits(trial: Trial, settings: Int8) -> str:
    """The limits that ``trial`` is held to, by their options."""
    limit = (
        f"--min-agreement {settings.min_agreement}"
        if trial.accuracy is None
        else f"--max-accuracy-drop {settings.max_accuracy_drop}"
    )
    return f"{limit} and a relative L2 of {INT8.rule.floor}"
