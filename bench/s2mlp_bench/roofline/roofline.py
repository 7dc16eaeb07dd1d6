"""The roofline of the machine, with candidates and their layers below it (Williams et al., 2009).

A roof is the lower of two lines: the peak of arithmetic (peaks.py), and arithmetic intensity times the memory rate, measured
by copying. Layers near the slope wait for memory, layers near the level part compute as fast as the machine can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s2mlp_bench.candidate import Candidate, Device, Point
from s2mlp_bench.profile import Profile
from s2mlp_bench.pytorch.place import Cuda
from s2mlp_bench.pytorch.products import copy_rate
from s2mlp_bench.roofline.lower_bound import block_macs
from s2mlp_bench.roofline.peaks import Reached
from s2mlp_deploy.schema.precision import Arithmetic
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.machine import usable_cores
from s2mlp_deploy.system.timing import Clock

COPIED_BYTES = 128 * 2**20
"""Beyond every cache."""

COPYING_SECONDS = 0.6


@dataclass(frozen=True)
class Roof:
    """Measured peaks of a device, for ``threads`` (None: the runtime's own choice) at one precision; the one of arithmetic was
    reached by ``runtime`` on ``products``, with ``reached_on`` threads."""

    threads: int | None
    precision: str
    operations_per_s: float
    bytes_per_s: float
    runtime: str = ""
    products: str = ""
    reached_on: int | None = None
    device: Device = "cpu"

    def at(self, intensity: float) -> float:
        """The most operations a second at ``intensity`` operations a byte."""
        return min(self.operations_per_s, intensity * self.bytes_per_s)


@dataclass(frozen=True)
class Dot:
    """A candidate, or one of its layer kinds: operations a byte that must be moved, and operations a second."""

    name: str
    kind: Literal["candidate", "layer"]
    precision: str
    threads: int | None
    intensity: float
    operations_per_s: float
    device: Device = "cpu"


@dataclass(frozen=True)
class Roofline:
    """Roofs, and what stands below them. Layers without arithmetic, such as the shift, have no place in it."""

    roofs: tuple[Roof, ...]
    dots: tuple[Dot, ...]

    def roof(self, dot: Dot) -> Roof | None:
        """The roof above ``dot``."""
        wanted = (dot.device, dot.threads, dot.precision)
        return next((r for r in self.roofs if (r.device, r.threads, r.precision) == wanted), None)

    def above(self, dot: Dot) -> bool:
        """Whether ``dot`` is faster than the peak of arithmetic that was measured, which is then too low."""
        roof = self.roof(dot)
        return roof is not None and dot.operations_per_s > roof.operations_per_s


def memory_rate(threads: int | None, clock: Clock = time.perf_counter) -> float:
    """Bytes a second, read and written, when ``threads`` threads (one a core, where None) copy large arrays."""
    count = threads or usable_cores()
    pairs = [(np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        fastest_s = _fastest(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)), clock)
    return 2 * count * COPIED_BYTES / fastest_s


def candidate_dot(candidate: Candidate, spec: Spec, arithmetic: Arithmetic, compute_ms: float) -> Dot:
    """A candidate by its blocks' products: their operations, and the least that they must move."""
    point = candidate.point
    operations = 2 * point.batch * block_macs(spec, point)
    moved = product_bytes(spec, point, arithmetic)
    return Dot(
        candidate.name,
        "candidate",
        candidate.precision,
        point.threads,
        operations / moved,
        operations / compute_ms * 1e3,
        candidate.device,
    )


def layer_dots(profile: Profile, precision: str, threads: int | None) -> Iterator[Dot]:
    """The profile's parts that do arithmetic."""
    for part in profile.parts:
        if part.operations and part.moved_bytes and part.time_ms:
            intensity, rate = part.operations / part.moved_bytes, part.operations / part.time_ms * 1e3
            yield Dot(part.kind, "layer", precision, threads, intensity, rate)


def product_bytes(spec: Spec, point: Point, arithmetic: Arithmetic) -> int:
    """Bytes that the blocks' products of one batch must move: what they read, their weights, and what they write."""
    read, weight, written = arithmetic.item_bytes
    return sum(
        point.batch * p.rows * (p.inputs * read + p.outputs * written) + p.inputs * p.outputs * weight
        for p in spec.products(point.size)
    )


def roofs_under(reached: Sequence[Reached], clock: Clock) -> tuple[Roof, ...]:
    """A roof for each device, precision and number of threads in ``reached``, from the best of them; what fewer threads reach,
    more can, too. Memory is measured now."""
    needed = dict.fromkeys((one.device, one.precision, one.threads) for one in reached)
    places = dict.fromkeys((device, threads) for device, _, threads in needed)
    rates = {(device, threads): _memory_rate(device, threads, clock) for device, threads in places}
    roofs = []
    for device, precision, threads in sorted(needed, key=lambda key: (*key[:2], key[2] or 0)):
        alike = [r for r in reached if (r.device, r.precision) == (device, precision)]
        best = max((r for r in alike if (r.threads or 0) <= (threads or 0)), key=lambda r: r.operations_per_s)
        bytes_per_s = rates[device, threads]
        roofs.append(
            Roof(
                threads,
                precision,
                best.operations_per_s,
                bytes_per_s,
                best.runtime,
                best.products,
                best.threads,
                device,
            )
        )
    return tuple(roofs)


def _memory_rate(device: Device, threads: int | None, clock: Clock) -> float:
    return copy_rate(Cuda()) if device == "gpu" else memory_rate(threads, clock)


def _fastest(call: Callable[[], object], clock: Clock) -> float:
    call()
    best, start = float("inf"), clock()
    while clock() - start < COPYING_SECONDS:
        before = clock()
        call()
        best = min(best, clock() - before)
    return best
