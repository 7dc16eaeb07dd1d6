"""What quantization costs on images that took no part in calibration, and whether that is too much."""

from __future__ import annotations

from s2mlp_deploy.gate.checks import check_logits
from s2mlp_deploy.gate.distance import leading_class
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import INT8
from s2mlp_deploy.schema.report import Trial


def assess(float_layers: tuple[str, ...], logits: Array, evaluation: EvaluationSet, settings: Int8) -> Trial:
    """Hold an int8 model's ``logits`` of the judging images to the limits that ``settings`` set."""
    classes, expected = leading_class(logits), leading_class(evaluation.float_logits)
    agreement = float((classes == expected).mean())
    # What the gate will ask for, so that layers are kept for its sake, too.
    rows = list(evaluation.pictures().rows)
    tolerance = INT8.rule.tolerance(0.0)
    gate = check_logits({"images": logits[rows]}, {"images": evaluation.float_logits[rows]}, tolerance)
    relative_l2 = gate.distances["images"].relative_l2
    if evaluation.labels is None:
        passed = gate.passed and agreement >= settings.min_agreement
        return Trial(float_layers, agreement, None, None, relative_l2, passed)
    accuracy, float_accuracy = (float((c == evaluation.labels).mean()) for c in (classes, expected))
    drop = round(100 * (float_accuracy - accuracy), 9)  # so that 0.895 - 0.89 is not more than half a point
    passed = gate.passed and drop <= settings.max_accuracy_drop
    return Trial(float_layers, agreement, accuracy, float_accuracy, relative_l2, passed)


def describe(trial: Trial) -> str:
    """``trial`` in a line."""
    accuracy = "" if trial.accuracy is None else f", accuracy {trial.accuracy:.2%} (float {trial.float_accuracy:.2%})"
    return (
        f"{len(trial.float_layers)} in float: same class {trial.agreement:.2%}{accuracy}, "
        f"relative L2 {trial.relative_l2:.2g}"
    )


def limits(trial: Trial, settings: Int8) -> str:
    """The limits that ``trial`` is held to, by their options."""
    asked = (
        f"--min-agreement {settings.min_agreement}"
        if trial.accuracy is None
        else f"--max-accuracy-drop {settings.max_accuracy_drop}"
    )
    return f"{asked} and a relative L2 of {INT8.rule.floor}"
