"""ONNX Runtime's latency on one CPU thread: each lowering, no shift at all, and the naive export."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.baselines import NoShift
from bench.interleaving import Clock, Estimate, estimate, interleave, ratio, timed_ms
from s2mlp_deploy import checkpoint as checkpoints
from s2mlp_deploy import exporter, rewrites
from s2mlp_deploy.checkpoint import Checkpoint
from s2mlp_deploy.exporter import Lowered
from s2mlp_deploy.graph import Axes, emit
from s2mlp_deploy.lowering import LOWERINGS, Lowering
from s2mlp_deploy.parity import compare
from s2mlp_deploy.simplify import simplify

if TYPE_CHECKING:
    import onnxruntime

NO_SHIFT, NAIVE = "no shift", "torch.onnx.export"
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
        files[name] = write(source, lowering, scratch / lowering.name)
    announce("loading the graphs")
    images = np.random.default_rng(rng.getrandbits(32)).standard_normal((1, spec.in_channels, *spec.image_size))
    calls = {name: session_call(path, images.astype(np.float32)) for name, path in files.items()}
    check_agreement({name: call() for name, call in calls.items() if name != NO_SHIFT})
    contestants = {name: timed_ms(call, clock) for name, call in calls.items()}
    return Latency(preset, interleave(contestants, rounds=rounds, rng=rng, warmup=WARMUP_ROUNDS, announce=announce))


def write(source: Checkpoint, lowering: Lowering, directory: Path) -> Path:
    """The ONNX file of ``source`` with ``lowering``, batch 1 and static, as the toolkit writes it."""
    spec = source.spec
    axes = Axes(1, spec.image_size)
    graph = rewrites.fold(emit(spec, {n: w.numpy() for n, w in source.weights.items()}, lowering, axes))
    directory.mkdir()
    lowered = Lowered(simplify(graph), spec, axes, lowering.name, "fp32")
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
