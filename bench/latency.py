"""ONNX Runtime's latency on one CPU thread: each lowering, no shift at all, and the naive export."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.baselines import NoShift
from bench.interleaving import Clock, Estimate, estimate, interleave, ratio, timed_ms
from s2mlp_deploy import checkpoint as checkpoints
from s2mlp_deploy import exporter, rewrites
from s2mlp_deploy.calibration import MINIMUM_IMAGES, calibrate
from s2mlp_deploy.checkpoint import Checkpoint
from s2mlp_deploy.exporter import Lowered
from s2mlp_deploy.graph import Axes, emit
from s2mlp_deploy.lowering import LOWERINGS, Lowering
from s2mlp_deploy.parity import compare
from s2mlp_deploy.quantize import RECIPES, block_layers, quantize
from s2mlp_deploy.simplify import simplify

if TYPE_CHECKING:
    import onnxruntime

NO_SHIFT, NAIVE, INT8 = "no shift", "torch.onnx.export", "int8, gather"
WARMUP_ROUNDS = 3
AGREEMENT = 1e-4
"""Relative L2 distance beyond which two contestants do not compute the same network."""


@dataclass(frozen=True)
class Latency:
    """Raw samples of one model: by contestant, milliseconds of one image in each round."""

    model: str
    samples_ms: Mapping[str, tuple[float, ...]]

    def latency_ms(self, contestant: str) -> Estimate:
        """Milliseconds an image."""
        return estimate(self.samples_ms[contestant])

    def over_no_shift(self, contestant: str) -> Estimate:
        """Its time in units of the same graph's without any shift."""
        return ratio(self.samples_ms[contestant], self.samples_ms[NO_SHIFT])

    def speedup(self, contestant: str) -> Estimate:
        """How many times faster than the naive export it is."""
        return ratio(self.samples_ms[NAIVE], self.samples_ms[contestant])

    def gain_of_int8(self) -> Estimate:
        """How many times faster int8 is than the same graph in float32."""
        return ratio(self.samples_ms["gather"], self.samples_ms[INT8])

    @property
    def best(self) -> str:
        """The lowering closest to no shift at all."""
        return min(
            (name for name in self.samples_ms if name in LOWERINGS), key=lambda name: self.over_no_shift(name).median
        )


def measure_latency(
    preset: str,
    checkpoint: Path,
    naive: Path,
    scratch: Path,
    *,
    rounds: int,
    rng: random.Random,
    announce: Callable[[str], None],
    clock: Clock = time.perf_counter,
) -> Latency:
    """Time ``naive``, the naive export of ``checkpoint``, and all others, whose graphs go to ``scratch``, on one image."""
    source = checkpoints.load(checkpoint)
    spec = source.spec
    files = {NAIVE: naive}
    for name, lowering in {NO_SHIFT: NoShift(), **LOWERINGS}.items():
        announce(f"writing the graph: {name}")
        files[name] = write(lower(source, lowering), scratch / lowering.name)
    announce("calibrating int8 on noise, for its speed alone")
    files[INT8] = write(quantized(lower(source, LOWERINGS["gather"])), scratch / "int8")
    announce("loading the graphs")
    images = np.random.default_rng(rng.getrandbits(32)).standard_normal((1, spec.in_channels, *spec.image_size))
    calls = {name: session_call(path, images.astype(np.float32)) for name, path in files.items()}
    check_agreement({name: call() for name, call in calls.items() if name not in (NO_SHIFT, INT8)})
    contestants = {name: timed_ms(call, clock) for name, call in calls.items()}
    return Latency(preset, interleave(contestants, rounds=rounds, rng=rng, warmup=WARMUP_ROUNDS, announce=announce))


def lower(source: Checkpoint, lowering: Lowering) -> Lowered:
    """The graph of ``source`` with ``lowering``, batch 1 and static, as the toolkit writes it."""
    spec = source.spec
    axes = Axes(1, spec.image_size)
    graph = rewrites.fold(emit(spec, {n: w.numpy() for n, w in source.weights.items()}, lowering, axes))
    return Lowered(simplify(graph), spec, axes, lowering.name, "fp32")


def quantized(lowered: Lowered) -> Lowered:
    """The int8 graph for x86, calibrated on noise."""
    spec = lowered.spec
    layers = block_layers(spec)
    names = tuple(layer.activation for layer in layers)
    noise = np.random.default_rng(0).standard_normal((MINIMUM_IMAGES, spec.in_channels, *spec.image_size))
    with exporter.scratch_session(lowered) as session:
        ranges = calibrate(lambda x: session.trace(x, names), noise.astype(np.float32), "minmax", batch=1)
    graph = quantize(lowered.model, ranges, RECIPES["x86"], layers, lowering=lowered.lowering)
    return replace(lowered, model=graph, precision="int8")


def write(lowered: Lowered, directory: Path) -> Path:
    """The ONNX file of ``lowered``."""
    directory.mkdir()
    return exporter.find("onnx").export(lowered, directory).path


def check_agreement(logits: Mapping[str, np.ndarray]) -> None:
    """That all contestants compute the same network, from their ``logits`` of one image.

    Raises:
        RuntimeError: where one does not; its time would say nothing.
    """
    reference, *others = logits
    for name in others:
        distance = compare(logits[name], logits[reference]).relative_l2
        if not distance <= AGREEMENT:
            raise RuntimeError(f"{name} and {reference} compute different logits: relative L2 distance {distance:.2g}")


def session_call(path: Path, images: np.ndarray) -> Callable[[], np.ndarray]:
    """A call that runs the ONNX file at ``path`` on ``images`` (batch, channels, height, width): logits."""
    session = _session(path)
    feed = {session.get_inputs()[0].name: images}

    def call() -> np.ndarray:
        outputs: list[Any] = session.run(None, feed)
        logits: np.ndarray = outputs[0]
        return logits

    return call


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
