"""Forward and backward of a shift, as popular code writes it and as ``s2mlp_deploy.shift`` does, interleaved on one thread."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from s2mlp_bench.baselines.naive import slice_assignment_shift
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.shift import spatial_shift
from s2mlp_deploy.system.timing import Clock, Estimate, estimate, interleave, ratio

IN_PLACE, EAGER, COMPILED, COMPILED_INPLACE = "in place", "spatial_shift", "compiled", "compiled, inplace semantics"

MapShape: TypeAlias = tuple[int, int, int, int]
"""(batch, height, width, channels)."""

SHAPES: dict[str, MapShape] = {"S²-MLP-wide": (32, 14, 14, 768), "S²-MLP-deep": (32, 14, 14, 384)}
"""Maps of both models, in a small batch for training."""


@dataclass(frozen=True)
class ShiftCost:
    """Processor time of a forward and backward pass, by candidate; the i-th samples are from one round."""

    model: str
    shape: MapShape
    samples_ms: Mapping[str, tuple[float, ...]]

    def time_ms(self, candidate: str) -> Estimate:
        """The time of ``candidate``."""
        return estimate(self.samples_ms[candidate])

    def share(self, candidate: str) -> Estimate:
        """The time of ``candidate`` in units of that of the statements in place."""
        return ratio(self.samples_ms[candidate], self.samples_ms[IN_PLACE])


class Copied(torch.autograd.Function):
    """A copy whose gradient passes through unchanged, at no cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """A copy of ``x``, which an assignment in place may change."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient as it came."""
        return gradients[0]


def require_compiler() -> None:
    """That ``torch.compile`` finds a C++ compiler.

    Raises:
        RuntimeMissingError: where it does not.
    """
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise RuntimeMissingError("torch.compile needs a C++ compiler, and neither g++ nor clang++ is on the PATH")


def candidates() -> dict[str, Callable[[Tensor], Tensor]]:
    """Shifts by name."""
    return {
        IN_PLACE: lambda x: slice_assignment_shift(x, Shift()),
        EAGER: spatial_shift,
        COMPILED: torch.compile(spatial_shift, fullgraph=True),
        COMPILED_INPLACE: torch.compile(partial(spatial_shift, semantics="inplace"), fullgraph=True),
    }


def measure(
    model: str, shape: MapShape, shifts: Mapping[str, Callable[[Tensor], Tensor]], rounds: int, rng: random.Random
) -> ShiftCost:
    """Time every shift on random maps of ``shape``.

    Processor time is measured, which other work on the machine changes less than wall time.
    """
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    leaf = torch.randn(shape, generator=generator, requires_grad=True)
    gradient = torch.randn(shape, generator=generator)
    calls = {name: partial(timed_step, shift, leaf, gradient, time.process_time) for name, shift in shifts.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.compiler.reset()
    try:
        return ShiftCost(model, shape, interleave(calls, rounds=rounds, rng=rng, warmup=5))
    finally:
        torch.set_num_threads(threads)


def timed_step(shift: Callable[[Tensor], Tensor], leaf: Tensor, gradient: Tensor, clock: Clock) -> float:
    """Milliseconds of ``shift`` and its gradient, on a copy of ``leaf`` that is not timed."""
    x: Tensor = Copied.apply(leaf)  # type: ignore[no-untyped-call]
    start = clock()
    torch.autograd.grad(shift(x), leaf, gradient)
    return (clock() - start) * 1e3
