"""Engines of TensorRT for RTX: the cost of building them, their size, and their kernels for the shift."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from s2mlp_bench.graphs import write
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.system.process_cost import ProcessCost, measure
from s2mlp_deploy.system.timing import Estimate, estimate
from s2mlp_exporters.tensorrt.runtime import TENSORRT_RTX
from s2mlp_studies.engines import build, graphs
from s2mlp_studies.engines.build import FIGURES

LOWERED_AS = ("gather", "slice", "pad", "conv")


@dataclass(frozen=True)
class Figures:
    """The builder's figures of one engine.

    ``kernels`` are those that it lists, ``shift_kernels`` those of them that do nothing but the shift;
    ``moved_bytes`` are the activations that they read and write.
    """

    engine_bytes: int
    kernels: int
    shift_kernels: int
    moved_bytes: int
    shift_moved_bytes: int


@dataclass(frozen=True)
class EngineCost:
    """One graph's engine: what building it took in each round, and what came out in the last."""

    lowering: str
    precision: str
    weight_bytes: int
    builds: tuple[ProcessCost, ...]
    figures: Figures

    @property
    def wall_s(self) -> Estimate:
        """Seconds from start to exit."""
        return estimate([cost.wall_s for cost in self.builds])

    @property
    def cpu_s(self) -> Estimate:
        """Seconds of processor time, over all cores."""
        return estimate([cost.cpu_s for cost in self.builds])

    @property
    def peak_rss_bytes(self) -> Estimate:
        """Largest resident set."""
        return estimate([cost.peak_rss_bytes for cost in self.builds])

    @property
    def size_ratio(self) -> float:
        """The engine in sizes of the weights that its graph holds."""
        return self.figures.engine_bytes / self.weight_bytes


@dataclass(frozen=True)
class Engines:
    """The engines of one model, for every lowering in every precision."""

    model: str
    runtime: str
    costs: tuple[EngineCost, ...]

    def largest(self, precision: str) -> EngineCost:
        """The engine that adds most to its weights."""
        return max((cost for cost in self.costs if cost.precision == precision), key=lambda cost: cost.size_ratio)


def require_tensorrt_rtx() -> str:
    """The name and version of the runtime.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    return f"{TENSORRT_RTX.title} {TENSORRT_RTX.load().__version__}"


def measure_engines(
    preset: str, checkpoint: Path, scratch: Path, *, repeats: int, announce: Callable[[str], None]
) -> Engines:
    """Build an engine, batch 1, of every graph of ``checkpoint`` ``repeats`` times, each time as a whole process."""
    runtime = require_tensorrt_rtx()
    costs = []
    for lowered in _graphs(checkpoint, announce):
        announce(f"engine, {lowered.lowering} in {lowered.precision}")
        costs.append(_cost(lowered, scratch / "engine", repeats))
    return Engines(preset, runtime, tuple(costs))


def _graphs(checkpoint: Path, announce: Callable[[str], None]) -> Iterator[Lowered]:
    """One at a time. No lowering changes what its layers read, so all share one calibration."""
    source = load_checkpoint(checkpoint)
    ranges = None
    for name in LOWERED_AS:
        announce(f"graphs, {name}")
        lowered = graphs.lower(source, LOWERINGS[name])
        ranges = ranges or graphs.ranges(lowered)
        yield lowered
        yield graphs.half(lowered)
        yield graphs.quantized(lowered, ranges, "trt")


def _cost(lowered: Lowered, directory: Path, repeats: int) -> EngineCost:
    """``directory`` is there for as long as the measurement takes."""
    model = write(lowered, directory)
    images = "x".join(map(str, lowered.axes.shape(lowered.spec.in_channels)))
    command = [sys.executable, build.__file__, str(model), images, str(directory)]
    builds = tuple(measure(command) for _ in range(repeats))
    found = json.loads((directory / FIGURES).read_text("utf-8"))
    figures = Figures(**{name: found[name] for name in Figures.__dataclass_fields__})
    shutil.rmtree(directory)
    return EngineCost(lowered.lowering, lowered.precision, writer.weight_bytes(lowered.model), builds, figures)
