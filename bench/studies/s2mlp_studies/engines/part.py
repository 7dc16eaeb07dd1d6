"""The part that measures engines of TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_studies.engines.goals import engine_goals
from s2mlp_studies.engines.measure import measure_engines, require_tensorrt_rtx
from s2mlp_studies.engines.table import document, engine_table
from s2mlp_studies.part import Finding, Part, Run, announce


def measure(run: Run) -> Iterator[Finding]:
    """Every model in turn."""
    for model in run.models_of("engines"):
        announce(f"{model.name}: engines")
        with TemporaryDirectory() as directory:
            built = measure_engines(
                model.name, run.checkpoint(model), Path(directory), repeats=run.repeats or 1, announce=announce
            )
        yield Finding(model.name, model.title, engine_table(built), document(built), engine_goals(built))


PART = Part(
    "engines",
    "Engines of TensorRT for RTX, built on a CPU",
    "build time, size and kernels of engines, by lowering and precision",
    measure,
    require_tensorrt_rtx,
    why={
        "size of int8 engine": "**deep, size of int8 engines.** TensorRT for RTX adds about 70 kB a kernel, whatever the "
        "weights take and however many GPUs it builds for; deep has 292 kernels, and int8 makes the weights small.",
    },
)
