"""A cold start, as an app has it: a new process loads a bundle and answers once.

    python -m bench.cold BUNDLE OUT.json

writes how long that took.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.process import measure
from s2mlp_deploy import artifact, exporter
from s2mlp_deploy.artifact import Bundle
from s2mlp_deploy.asking import Asking
from s2mlp_deploy.errors import BundleError


@dataclass(frozen=True)
class Cold:
    """Milliseconds to load a bundle, once its runtime is imported, and of its first batch; peak memory of the process."""

    load_ms: float
    first_ms: float
    peak_rss_bytes: int


def start(bundle: Bundle) -> Cold:
    """A cold start of ``bundle`` in a process of its own.

    Raises:
        BundleError: where that process fails.
    """
    with TemporaryDirectory(prefix="s2mlp-") as directory:
        out = Path(directory) / "cold.json"
        try:
            cost = measure([sys.executable, "-m", "bench.cold", str(bundle.directory.resolve()), str(out)])
        except RuntimeError as error:
            raise BundleError(f"{bundle.directory} does not start in a process of its own: {error}") from error
        return Cold(**json.loads(out.read_text("utf-8")), peak_rss_bytes=cost.peak_rss_bytes)


def main() -> None:
    directory, out = map(Path, sys.argv[1:])
    bundle = artifact.read(directory)
    spec = bundle.manifest.spec
    target = exporter.find(bundle.manifest.format)
    for module in target.modules:
        import_module(module)
    prepared = np.zeros((bundle.manifest.batch or 1, spec.in_channels, *spec.image_size), np.float32)
    images = Asking.of(bundle.manifest).raw(prepared)
    start = time.perf_counter()
    session = target.open(bundle.artifact)
    loaded = time.perf_counter()
    session.run(images)
    done = time.perf_counter()
    out.write_text(json.dumps({"load_ms": (loaded - start) * 1e3, "first_ms": (done - loaded) * 1e3}), "utf-8")


if __name__ == "__main__":
    main()
