"""A cold start, as an app has it: a new process loads a model and answers once.

    python -m s2mlp_bench.cold_start CONTESTANT OUT.json

writes how long that took; CONTESTANT is a pickled contestant, which only :func:`start` writes.
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
from s2mlp_bench.candidate import Contestant
from s2mlp_bench.process import measure
from s2mlp_deploy import errors
from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.errors import BundleError, Error
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter


@dataclass(frozen=True)
class Cold:
    """Milliseconds to load, once the runtime is imported, and of the first batch; peak memory of the process."""

    load_ms: float
    first_ms: float
    peak_rss_bytes: int


def start(contestant: Contestant, scratch: Path) -> Cold:
    """A cold start of ``contestant`` in a process of its own; ``scratch`` is a directory for what it is told.

    Raises:
        Error: what loading or running it raises there.
        BundleError: where that process fails otherwise.
    """
    told, out = scratch / "contestant.pickle", scratch / "cold.json"
    told.write_bytes(pickle.dumps(contestant))
    try:
        cost = measure([sys.executable, "-m", "s2mlp_bench.cold_start", str(told), str(out)])
    except RuntimeError as error:
        raise BundleError(f"{contestant.name} does not start in a process of its own: {error}") from error
    found = json.loads(out.read_text("utf-8"))
    if "error" in found:
        raise getattr(errors, found["error"], BundleError)(found["text"])
    return Cold(**found, peak_rss_bytes=cost.peak_rss_bytes)


def main() -> None:
    told, out = map(Path, sys.argv[1:])
    try:
        found: dict[str, Any] = _measure(pickle.loads(told.read_bytes()))
    except Error as error:
        found = {"error": type(error).__name__, "text": str(error)}
    out.write_text(json.dumps(found), "utf-8")


def _measure(contestant: Contestant) -> dict[str, Any]:
    assert contestant.asks is not None
    manifest = read_manifest(contestant.asks)
    import_runtimes(contestant.way.modules)
    size = contestant.point.size or manifest.spec.image_size
    prepared = np.zeros((contestant.point.batch, manifest.spec.in_channels, *size), np.float32)
    images = IoAdapter(manifest.preprocessing, size, ArtifactIo(interface=contestant.interface)).raw(prepared)
    start = time.perf_counter()
    session = contestant.way.open(contestant.point)
    loaded = time.perf_counter()
    session.run(images)
    done = time.perf_counter()
    return {"load_ms": (loaded - start) * 1e3, "first_ms": (done - loaded) * 1e3}


if __name__ == "__main__":
    main()
