"""Measure a cold start: a new process loads a model and runs one batch.

    python -m s2mlp_bench.cold_start CONTESTANT OUT.json

writes how long that took; CONTESTANT is a pickled candidate, which only :func:`start` writes.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_bench.backends import import_runtimes
from s2mlp_bench.candidate import Candidate
from s2mlp_deploy import errors
from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.errors import BundleError, Error
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.system.process_cost import measure


@dataclass(frozen=True)
class ColdStart:
    """Milliseconds to load, once the runtime is imported, and of the first batch; peak memory of the process."""

    load_ms: float
    first_ms: float
    peak_rss_bytes: int


def start(candidate: Candidate, scratch: Path) -> ColdStart:
    """A cold start of ``candidate`` in a process of its own; ``scratch`` is a directory for its input and output files.

    Raises:
        Error: what loading or running it raises there.
        BundleError: where that process fails otherwise.
    """
    request, out = scratch / "candidate.pickle", scratch / "cold.json"
    request.write_bytes(pickle.dumps(candidate))
    try:
        cost = measure([sys.executable, "-m", "s2mlp_bench.cold_start", str(request), str(out)])
    except RuntimeError as error:
        raise BundleError(f"{candidate.name} does not start in a process of its own: {error}") from error
    found = json.loads(out.read_text("utf-8"))
    if "error" in found:
        raise getattr(errors, found["error"], BundleError)(found["text"])
    return ColdStart(**found, peak_rss_bytes=cost.peak_rss_bytes)


def main() -> None:
    request, out = map(Path, sys.argv[1:])
    try:
        found: dict[str, Any] = _measure(pickle.loads(request.read_bytes()))
    except Error as error:
        found = {"error": type(error).__name__, "text": str(error)}
    out.write_text(json.dumps(found), "utf-8")


def _measure(candidate: Candidate) -> dict[str, Any]:
    assert candidate.golden_bundle is not None
    manifest = read_manifest(candidate.golden_bundle)
    import_runtimes(candidate.backend.modules)
    images = _images(candidate, manifest)
    start = time.perf_counter()
    session = candidate.backend.open(candidate.point)
    loaded = time.perf_counter()
    session.run(images)
    done = time.perf_counter()
    return {"load_ms": (loaded - start) * 1e3, "first_ms": (done - loaded) * 1e3}


def _images(candidate: Candidate, manifest: Manifest) -> Array:
    """A batch of any content; of a network that no family describes, of its first sample."""
    if isinstance(manifest.spec, OnnxNetwork):
        return np.zeros(candidate.point.batch, np.int64)
    size = candidate.point.size or manifest.classifier.image_size
    prepared = np.zeros((candidate.point.batch, manifest.classifier.in_channels, *size), np.float32)
    return IoAdapter(manifest.images, size, ArtifactIo(interface=candidate.interface)).raw(prepared)


if __name__ == "__main__":
    main()
