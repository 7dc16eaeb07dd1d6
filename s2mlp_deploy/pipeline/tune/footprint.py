"""Measure the memory of a process that loads a bundle and runs it.

    python -m s2mlp_deploy.pipeline.tune.footprint BUNDLE

does that and ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.latency import images_for
from s2mlp_deploy.pipeline.tune.workspace import Made
from s2mlp_deploy.system.process_cost import measure


def peak_bytes(made: Made) -> int:
    """The largest resident set of a new Python process that loads ``made`` and runs an image, runtime included.

    Raises:
        BundleError: where that process fails.
    """
    try:
        cost = measure([sys.executable, "-m", __name__, str(made.bundle.directory)])
    except RuntimeError as error:
        raise BundleError(f"{made.build.name} does not start in a process of its own: {error}") from error
    return cost.peak_rss_bytes


def main() -> None:
    """Load the bundle and run an image twice: some runtimes prepare at the first run."""
    bundle = read_bundle(Path(sys.argv[1]))
    images, _ = images_for([bundle], 1)
    session = registry.find(bundle.manifest.format).open(bundle.artifact)
    for _ in range(2):
        session.run(images)


if __name__ == "__main__":
    main()
