"""Holding an artifact against the oracle: the step that nothing is published without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy import exporter, parity
from s2mlp_deploy.asking import Asking, answer, as_logits
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.exporter import Session
from s2mlp_deploy.golden import Golden
from s2mlp_deploy.golden_images import Pictures
from s2mlp_deploy.manifest import FLOAT_LOGITS, Interface
from s2mlp_deploy.parity import Array, Distance, Tolerance, Verdict

_OWN = {"fp16": "float16", "bf16": "bfloat16"}
"""What PyTorch itself computes in, for comparison, where that is not float32."""


@dataclass(frozen=True)
class Judgement:
    """Golden tensors, and by case the distance of PyTorch's own logits from them at the artifact's precision."""

    golden: Golden
    own: Mapping[str, Distance]


@dataclass(frozen=True)
class Judges:
    """Images that judge an artifact, PyTorch's logits of them in float32, and labels where known.

    (count, channels, height, width) float32, (count, classes) and (count,). For int8 none of them calibrated.
    ``files`` are what they were read from, where that is known.
    """

    images: Array
    float_logits: Array
    labels: Array | None
    files: tuple[Path, ...] = ()

    def pictures(self) -> Pictures:
        """Those of them that travel in the bundle. int8 is judged on these alone: it is calibrated for them."""
        labels = [None] * len(self.files) if self.labels is None else [int(label) for label in self.labels]
        return Pictures.choose(self.images, self.files, labels)


@dataclass(frozen=True)
class Judged:
    """What the gate measured (None where nothing here can), and what travels in the bundle so that a device can."""

    verdict: Verdict | None
    tolerance: Tolerance
    golden: Golden
    figures: Mapping[str, Any]


def judge(
    session: Session, judgement: Judgement, precision: str, batch: int | None, interface: Interface = FLOAT_LOGITS
) -> Judged:
    """Run every golden case and hold it to the precision's tolerance.

    Raises:
        ParityError: where a check fails.
    """
    tolerance = tolerance_for(precision, judgement)
    verdict = gate(session, judgement.golden, tolerance, batch, interface)
    if not verdict.passed:
        raise ParityError(failure(verdict))
    figures = {
        "distances": {case: vars(d) for case, d in verdict.distances.items()},
        "pytorch_distances": {case: vars(d) for case, d in judgement.own.items()},
    }
    return Judged(verdict, tolerance, judgement.golden, figures)


def pending(judgement: Judgement, precision: str) -> Judged:
    """What a device will hold an artifact to that no runtime here can run."""
    own = {case: vars(d) for case, d in judgement.own.items()}
    return Judged(None, tolerance_for(precision, judgement), judgement.golden, {"pytorch_distances": own})


def gate(
    session: Session, expected: Golden, tolerance: Tolerance, batch: int | None, interface: Interface = FLOAT_LOGITS
) -> Verdict:
    """Run every golden case through ``session`` and hold the logits, or what speaks for them, against the oracle's."""
    outputs = {}
    for case, x in expected.inputs.items():
        logits = expected.logits[case]
        outputs[case] = as_logits(answer(session, x, batch, interface, logits.shape[1]), logits, interface)
    return parity.judge(outputs, expected.logits, tolerance)


def tolerance_for(precision: str, judgement: Judgement) -> Tolerance:
    """The tolerance that follows from how far PyTorch's own run at this precision is from the oracle.

    Raises:
        ParityError: where that run overflows.
    """
    worst = max(d.relative_l2 for d in judgement.own.values())
    if not isfinite(worst):
        raise ParityError(
            f"PyTorch's own run of this checkpoint in {_OWN.get(precision, 'float32')} overflows on the golden "
            f"inputs, so no {precision} export of it can be right: choose a wider --precision, or look for weights of absurd size"
        )
    return parity.RULES[precision].tolerance(worst)


def judge_images(
    session: Session, judges: Judges, tolerance: Tolerance, batch: int | None, asking: Asking
) -> dict[str, Any]:
    """Accuracy where there are labels, beside PyTorch's; every image must keep PyTorch's class.

    Raises:
        ParityError: where one does not.
    """
    actual = asking.logits(session, judges.images, judges.float_logits, batch, judges.files)
    verdict = parity.judge({"images": actual}, {"images": judges.float_logits}, tolerance)
    if not verdict.passed:
        raise ParityError(failure(verdict))
    return {
        "count": len(judges.images),
        "accuracy": _accuracy(actual, judges.labels),
        "accuracy_pytorch": _accuracy(judges.float_logits, judges.labels),
        "top1_agreement": verdict.distances["images"].top1_agreement,
    }


def _accuracy(logits: Array, labels: Array | None) -> float | None:
    return None if labels is None else float((logits.argmax(1) == labels).mean())


def run(session: Session, images: Array, batch: int | None) -> Array:
    """Logits of any number of images, in portions that fit into memory."""
    step = batch or exporter.BATCH
    portions = (images[i : i + step] for i in range(0, len(images), step))
    return np.concatenate([exporter.run_in_batches(session, portion, batch) for portion in portions])


def failure(verdict: Verdict) -> str:
    """What failed, in one paragraph."""
    lines = "; ".join(f"{c.case}: {c.quantity} {c.measured:.3g}, limit {c.limit:.3g}" for c in verdict.failures[:6])
    return (
        f"the artifact does not compute what the checkpoint computes, so nothing was published ({lines}). Please report "
        "this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"
    )
