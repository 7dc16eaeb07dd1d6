"""Read the accuracy on labelled images that a bundle's report records. Reports are not under the manifest's hashes: their
figures are there to be shown, not to be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from s2mlp_deploy.bundle.contents import REPORT, Bundle
from s2mlp_deploy.bundle.read import read_beside

BUILT_FROM = "built_from"
"""Where the report of an engine has the figures of the ONNX bundle that it was built from."""


@dataclass(frozen=True)
class RecordedAccuracy:
    """The share of images that were classified right; ``inherited`` where it was measured on the bundle that this engine was
    built from."""

    accuracy: float
    inherited: bool


def read(bundle: Bundle) -> RecordedAccuracy | None:
    """The accuracy in the report beside ``bundle``; None where it records none, or cannot be read."""
    try:
        report = json.loads(read_beside(bundle.directory / REPORT))
    except (OSError, ValueError, RecursionError):
        return None
    own = _of(report)
    if own is not None:
        return RecordedAccuracy(own, inherited=False)
    source = _of(report.get(BUILT_FROM)) if isinstance(report, dict) else None
    return None if source is None else RecordedAccuracy(source, inherited=True)


def as_source(bundle: Bundle) -> dict[str, Any]:
    """The entry for ``bundle`` in the report of an engine that is built from it: its identity and its accuracy."""
    recorded = read(bundle)
    accuracy = {"images": {"accuracy": recorded.accuracy}} if recorded else {}
    return {"sha256": bundle.manifest.files[bundle.manifest.artifact], **accuracy}


def _of(report: Any) -> float | None:
    try:
        accuracy = (report["trials"][-1] if report.get("trials") else report["images"])["accuracy"]
        return float(accuracy) if 0 <= accuracy <= 1 else None
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
