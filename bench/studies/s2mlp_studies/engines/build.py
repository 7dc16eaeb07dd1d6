"""One engine of TensorRT for RTX, built in a process of its own so that it can be measured as a whole.

    python build.py MODEL.onnx 1x3x224x224 DIRECTORY

writes the engine and its figures from the builder's log into DIRECTORY, which must exist.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from s2mlp_deploy.graph.layer import INPUT
from s2mlp_exporters.tensorrt.build import build
from s2mlp_exporters.tensorrt.log import Log, summary
from s2mlp_exporters.tensorrt.profile import Profile, Shape
from s2mlp_exporters.tensorrt.runtime import TENSORRT_RTX

PLAN, FIGURES = "model.plan", "figures.json"


def write_engine(model: Path, images: Shape, directory: Path) -> None:
    """Build an engine for inputs of the one shape ``images`` (batch, channels, height, width)."""
    log = Log()
    plan = build(TENSORRT_RTX.load(), model, {INPUT: Profile(images, images, images)}, {}, log)
    (directory / PLAN).write_bytes(plan)
    figures = {"engine_bytes": plan.nbytes, **summary(log.kernels())}
    (directory / FIGURES).write_text(json.dumps(figures), "utf-8")


def main() -> None:
    model, images, directory = sys.argv[1:]
    write_engine(Path(model), tuple(map(int, images.split("x"))), Path(directory))


if __name__ == "__main__":
    main()
