"""The accuracy of a bundle on the machine at hand, beside that which its report records."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_report
from s2mlp_deploy.pipeline.sweep.evaluation import LabelledFolder, evaluate
from s2mlp_deploy.runtime.session import HERE, Placement

__all__ = ["LabelledFolder", "VerifiedAccuracy", "measure"]


@dataclass(frozen=True)
class VerifiedAccuracy:
    """Labelled images, those of them that the artifact named rightly, and their share; ``recorded`` is the share that was measured
    where the bundle was made, on images that may be others."""

    images: int
    right: int
    accuracy: float
    recorded: float | None


def measure(bundle: Bundle, images: LabelledFolder, workers: int, placement: Placement = HERE) -> VerifiedAccuracy:
    """Run ``images`` through the checked ``bundle``, over so many processes, on the device of ``placement``.

    Raises:
        DataError, BundleError, RuntimeMissingError: as :func:`s2mlp_deploy.pipeline.sweep.evaluation.evaluate`.
    """
    found = evaluate(bundle.directory, images, workers, placement)
    report = read_report(bundle)
    return VerifiedAccuracy(found.images, found.right, found.right / found.images, report.accuracy if report else None)
