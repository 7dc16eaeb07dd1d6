"""Measuring repairs: the file before and after, and the repair as a whole process."""

from __future__ import annotations

import json
import random
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, load
from s2mlp_deploy.system.process_cost import ProcessCost, measure
from s2mlp_deploy.system.timing import Estimate, estimate, interleave, ratio, timed_ms
from s2mlp_studies.engines import build

if TYPE_CHECKING:  # needs torch
    from s2mlp_studies.repair.nets import Net

IMPORTS = "import numpy, onnx, onnx_ir, onnxruntime"
"""The packages that a repair has in memory before it has read a byte of the model."""

BEFORE, AFTER = "exported", "repaired"


@dataclass(frozen=True)
class GraphCount:
    """The size of one graph. ``kernels`` are those that TensorRT for RTX lists for its engine; None where it is not here."""

    nodes: int
    scatter_nds: int
    kernels: int | None


@dataclass(frozen=True)
class Repaired:
    """One network: the file before and after, samples of both, and of the repair.

    ``samples_ms`` are milliseconds of one image (or clip) by file, the i-th of both from one round. ``imports`` is a
    process that imports the packages and ends.
    """

    model: str
    file_bytes: int
    before: GraphCount
    after: GraphCount
    samples_ms: Mapping[str, tuple[float, ...]]
    repairs: tuple[ProcessCost, ...]
    imports: ProcessCost

    @property
    def latency_ratio(self) -> Estimate:
        """Time of the repaired file in units of the exported one's."""
        return ratio(self.samples_ms[AFTER], self.samples_ms[BEFORE])

    @property
    def wall_s(self) -> Estimate:
        """Seconds of the repair, from start to exit."""
        return estimate([cost.wall_s for cost in self.repairs])

    @property
    def memory_ratio(self) -> Estimate:
        """Peak memory of the repair beyond the imports', in sizes of the file."""
        beyond = [cost.peak_rss_bytes - self.imports.peak_rss_bytes for cost in self.repairs]
        return estimate([each / self.file_bytes for each in beyond])

    @property
    def kernel_ratio(self) -> float | None:
        """Kernels after in units of those before; None where they are not known."""
        if self.before.kernels is None or self.after.kernels is None:
            return None
        return self.after.kernels / self.before.kernels


@dataclass(frozen=True)
class Plan:
    """``rounds`` of latency, ``repeats`` of whole processes; with ``engines``, kernels are counted, too."""

    rounds: int
    repeats: int
    engines: bool
    rng: random.Random


def repair_command(model: Path, bundle: Path) -> list[str]:
    """The command that repairs ``model`` into ``bundle``.

    Raises:
        RuntimeError: where it is not installed.
    """
    script = shutil.which("s2mlp-repair", path=sysconfig.get_path("scripts"))
    if script is None:
        raise RuntimeError("the command s2mlp-repair is not installed beside this Python: pip install -e .")
    return [script, str(model), "-o", str(bundle)]


def measure_repair(net: Net, scratch: Path, plan: Plan, announce: Callable[[str], None]) -> Repaired:
    """Export ``net``, repair it, and measure both files, in the empty directory ``scratch``."""
    announce(f"{net.name}: torch.onnx.export")
    model, bundle = net.export(scratch / "exported.onnx"), scratch / "repaired"
    repairs = []
    for i in range(plan.repeats):
        announce(f"{net.name}: s2mlp-repair, round {i + 1} of {plan.repeats}")
        shutil.rmtree(bundle, ignore_errors=True)
        repairs.append(measure(repair_command(model, bundle)))
    repaired = bundle / "model.onnx"
    announce(f"{net.name}: kernels and latency")
    engine = scratch / "engine" if plan.engines else None
    return Repaired(
        net.name,
        _file_bytes(model),
        count(model, net.shape, engine),
        count(repaired, net.shape, engine),
        latencies({BEFORE: model, AFTER: repaired}, net.shape, plan),
        tuple(repairs),
        measure([sys.executable, "-c", IMPORTS]),
    )


def latencies(files: Mapping[str, Path], shape: tuple[int, ...], plan: Plan) -> dict[str, tuple[float, ...]]:
    """Milliseconds of a run of each file on noise of ``shape``, on one thread, interleaved.

    Each runs twice in its turn, and the second time counts, so that none finds its weights in caches where another does not.
    """
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    sessions = {name: load(path, Loading(threads=1, config=RESTING)) for name, path in files.items()}
    calls = {
        name: timed_ms(partial(session.run, None, {INPUT: images}), time.perf_counter)
        for name, session in sessions.items()
    }
    return interleave({name: partial(_second, call) for name, call in calls.items()}, rounds=plan.rounds, rng=plan.rng)


def _second(call: Callable[[], float]) -> float:
    call()
    return call()


def _file_bytes(model: Path) -> int:
    """The ONNX file, with its weights where they lie beside it."""
    return sum(file.stat().st_size for file in model.parent.glob(f"{model.name}*"))


def count(model: Path, shape: tuple[int, ...], directory: Path | None) -> GraphCount:
    """Nodes of ``model``, and kernels of an engine that is built for inputs of ``shape`` in ``directory``; None for none.

    ``directory`` is there for as long as that takes.
    """
    nodes = onnx.load(model, load_external_data=False).graph.node
    kernels = None
    if directory:
        directory.mkdir()
        images = "x".join(map(str, shape))
        measure([sys.executable, build.__file__, str(model), images, str(directory)])
        kernels = json.loads((directory / build.FIGURES).read_text("utf-8"))["kernels"]
        shutil.rmtree(directory)
    return GraphCount(len(nodes), sum(node.op_type == "ScatterND" for node in nodes), kernels)
