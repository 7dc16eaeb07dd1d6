"""Real images that an artifact is checked on, besides the golden tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_deploy.data.image_stream import Images
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.checks import check_logits, failure
from s2mlp_deploy.gate.distance import leading_class
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.runtime.session import BATCH, Session, run_in_batches
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import ImageAccuracy
from s2mlp_deploy.schema.tolerance import Tolerance


@dataclass(frozen=True)
class EvaluationSet:
    """Images, PyTorch's float32 logits of them, and labels where known.

    (count, channels, height, width) float32, (count, classes) and (count,). For int8 none of them calibrated.
    ``files`` are their image files, where known.
    """

    images: Images
    float_logits: Array
    labels: Array | None
    files: tuple[Path, ...] = ()

    def pictures(self) -> Pictures:
        """Those of them that travel in the bundle. The gate checks int8 on these alone: it is calibrated for them."""
        labels = [None] * len(self.files) if self.labels is None else [int(label) for label in self.labels]
        return Pictures.choose(self.images, self.files, labels)


def check_images(
    session: Session, evaluation: EvaluationSet, tolerance: Tolerance, adapter: IoAdapter
) -> ImageAccuracy:
    """Check that every image keeps PyTorch's class, and measure accuracy beside PyTorch's where there are labels.

    Raises:
        ParityError: where an image changes its class.
    """
    actual = adapter.logits(session, evaluation.images, evaluation.float_logits, evaluation.files)
    verdict = check_logits({"images": actual}, {"images": evaluation.float_logits}, tolerance)
    if not verdict.passed:
        raise ParityError(failure(verdict))
    return ImageAccuracy(
        count=len(evaluation.images),
        accuracy=_accuracy(actual, evaluation.labels),
        accuracy_pytorch=_accuracy(evaluation.float_logits, evaluation.labels),
        top1_agreement=verdict.distances["images"].top1_agreement,
    )


def _accuracy(logits: Array, labels: Array | None) -> float | None:
    return None if labels is None else float((leading_class(logits) == labels).mean())


def logits_of(session: Session, images: Images, batch: int | None) -> Array:
    """Logits of any number of prepared ``images``, in portions that fit into memory."""
    step = batch or BATCH
    portions = (images[i : i + step] for i in range(0, len(images), step))
    return np.concatenate([run_in_batches(session, portion, batch) for portion in portions])
