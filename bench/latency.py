"""Latency of one image on the CPU: each lowering, int8 and the naive export, and what they are held against."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import graphs
from bench.baselines import NoShift
from bench.products import products
from bench.runtimes import onnxruntime_call, openvino_call, operators, products_call
from s2mlp_deploy import checkpoint as checkpoints
from s2mlp_deploy.checkpoint import Checkpoint
from s2mlp_deploy.lowering import LOWERINGS
from s2mlp_deploy.parity import Array, compare
from s2mlp_deploy.timing import Clock, Estimate, estimate, interleave, ratio, timed_ms

NO_SHIFT, NAIVE, FLOAT, INT8 = "no shift", "torch.onnx.export", "gather", "int8, gather"
FLOAT_PRODUCTS, INT8_PRODUCTS = "products alone", "int8, products alone"
OPENVINO_STATIC, OPENVINO_OWN = "quantize_static, OpenVINO", "int8, gather, OpenVINO"
FLOAT_2_THREADS, INT8_2_THREADS = "gather, 2 threads", "int8, gather, 2 threads"
"""The contestants: ONNX Runtime on one thread, where the name says nothing else. ``FLOAT`` is a lowering."""

ROUNDED = (INT8, INT8_2_THREADS, OPENVINO_STATIC, OPENVINO_OWN)
"""The contestants that compute logits in int8."""

WARMUP_ROUNDS = 3
AGREEMENT = 1e-4
"""Relative L2 distance beyond which two contestants do not compute the same network."""

INT8_AGREEMENT = 0.1
"""The same, where one of them rounds to 8 bits: that costs about 0.02, and a wrong graph 1."""


@dataclass(frozen=True)
class Latency:
    """Raw samples of one model: by contestant, milliseconds of one image in each round."""

    model: str
    samples_ms: Mapping[str, tuple[float, ...]]

    def latency_ms(self, contestant: str) -> Estimate:
        """Milliseconds an image."""
        return estimate(self.samples_ms[contestant])

    def over(self, contestant: str, other: str) -> Estimate:
        """Its time in units of the ``other``'s."""
        return ratio(self.samples_ms[contestant], self.samples_ms[other])

    def second_thread_for_int8(self) -> Estimate:
        """How much more a second thread does for int8 than for float32: the one gain over the other."""
        int8 = self._gains(INT8, INT8_2_THREADS)
        return ratio(int8, self._gains(FLOAT, FLOAT_2_THREADS))

    def _gains(self, one_thread: str, two_threads: str) -> list[float]:
        return [a / b for a, b in zip(self.samples_ms[one_thread], self.samples_ms[two_threads], strict=True)]

    @property
    def best(self) -> str:
        """The lowering closest to no shift at all."""
        return min(
            (name for name in self.samples_ms if name in LOWERINGS), key=lambda name: self.over(name, NO_SHIFT).median
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
    """Time ``naive``, the naive export of ``checkpoint``, and all others, whose graphs go to ``scratch``, on one image.

    Raises:
        RuntimeError: where a contestant does not compute what it is timed for.
        RuntimeMissingError: without OpenVINO.
    """
    source = checkpoints.load(checkpoint)
    files = {**_write(source, scratch, announce), NAIVE: naive}
    announce("loading the graphs")
    numbers = np.random.default_rng(rng.getrandbits(32))
    images = numbers.standard_normal((1, source.spec.in_channels, *source.spec.image_size), np.float32)
    networks = _networks(files, images)
    logits = {name: call() for name, call in networks.items()}
    check_agreement({name: x for name, x in logits.items() if name not in ROUNDED}, AGREEMENT)
    check_agreement({name: logits[name] for name in (FLOAT, *ROUNDED)}, INT8_AGREEMENT)
    calls: dict[str, Callable[[], object]] = {**networks, NO_SHIFT: onnxruntime_call(files[NO_SHIFT], images)}
    for alone, whole in {FLOAT_PRODUCTS: FLOAT, INT8_PRODUCTS: INT8}.items():
        check_products(*(operators(files[name], scratch / "optimized.onnx") for name in (alone, whole)))
        calls[alone] = products_call(files[alone], numbers)
    contestants = {name: timed_ms(call, clock) for name, call in calls.items()}
    return Latency(preset, interleave(contestants, rounds=rounds, rng=rng, warmup=WARMUP_ROUNDS, announce=announce))


def _write(source: Checkpoint, scratch: Path, announce: Callable[[str], None]) -> dict[str, Path]:
    """The contestants' ONNX files."""
    files = {}
    for name, lowering in {NO_SHIFT: NoShift(), **LOWERINGS}.items():
        announce(f"writing the graph: {name}")
        files[name] = graphs.write(graphs.lower(source, lowering), scratch / lowering.name)
    announce("calibrating int8 on noise, for its speed alone")
    lowered = graphs.lower(source, LOWERINGS[FLOAT])
    int8 = graphs.quantized(lowered, graphs.ranges(lowered), "x86")
    files[INT8] = graphs.write(int8, scratch / "int8")
    files[FLOAT_PRODUCTS] = graphs.write(products(lowered), scratch / "products")
    files[INT8_PRODUCTS] = graphs.write(products(int8), scratch / "int8_products")
    announce("onnxruntime's own static quantization")
    noise = graphs.noise(source.spec)
    files[OPENVINO_STATIC] = graphs.write_quantized_statically(files[FLOAT], noise, scratch / "static")
    return files


def _networks(files: Mapping[str, Path], images: Array) -> dict[str, Callable[[], Array]]:
    """The contestants that compute the same logits (batch, classes)."""
    return {
        **{name: onnxruntime_call(files[name], images) for name in (FLOAT, NAIVE, *LOWERINGS, INT8)},
        FLOAT_2_THREADS: onnxruntime_call(files[FLOAT], images, threads=2),
        INT8_2_THREADS: onnxruntime_call(files[INT8], images, threads=2),
        OPENVINO_STATIC: openvino_call(files[OPENVINO_STATIC], images),
        OPENVINO_OWN: openvino_call(files[INT8], images),
    }


def check_agreement(logits: Mapping[str, Array], limit: float) -> None:
    """That all contestants compute the same network, from their ``logits`` of the same images.

    Raises:
        RuntimeError: where one's relative L2 distance to the first is beyond ``limit``; its time would say nothing.
    """
    reference, *others = logits
    for name in others:
        distance = compare(logits[name], logits[reference]).relative_l2
        if not distance <= limit:
            raise RuntimeError(f"{name} and {reference} compute different logits: relative L2 distance {distance:.2g}")


def check_products(alone: Mapping[str, int], whole: Mapping[str, int]) -> None:
    """That matrix products ``alone`` are one operator, as often as in the ``whole`` graph they are taken from.

    Raises:
        RuntimeError: where the runtime made something else of them; their time would be no bound.
    """
    if len(alone) != 1 or any(count > whole.get(operator, 0) for operator, count in alone.items()):
        raise RuntimeError(
            f"the products alone run as {dict(alone)}, and the graph they are taken from as {dict(whole)}"
        )
