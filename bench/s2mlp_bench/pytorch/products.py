"""Matrix products alone in PyTorch: on a GPU those of cuBLAS, as one CUDA graph; and the rate of copies on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from s2mlp_bench.pytorch.backend import TORCH
from s2mlp_bench.pytorch.place import Place, between_ms, place_of
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.schema.precision import Arithmetic

if TYPE_CHECKING:
    from torch import Tensor

    from s2mlp_bench.candidate import Point
    from s2mlp_deploy.schema.array import Array
    from s2mlp_deploy.schema.precision import FloatType
    from s2mlp_deploy.schema.spec import Spec

Shape: TypeAlias = tuple[int, int, int]
"""Rows, inputs and outputs of a product."""

COPIED_BYTES, COPIES = 2**30, 5


@dataclass(frozen=True)
class TorchProducts:
    """Matrix products of ``shapes``, one after another, on noise of type ``dtype``."""

    shapes: tuple[Shape, ...]
    dtype: FloatType
    modules: tuple[str, ...] = TORCH

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(inputs * outputs for _, inputs, outputs in self.shapes) * (4 if self.dtype == "float32" else 2)

    @property
    def operations(self) -> int:
        """Operations of all products."""
        return 2 * sum(rows * inputs * outputs for rows, inputs, outputs in self.shapes)

    def open(self, point: Point) -> TorchProductsSession:
        """As :meth:`Backend.open`."""
        return TorchProductsSession(self, place_of(point))


def float_type(arithmetic: Arithmetic) -> FloatType | None:
    """The type of products whose inputs and weights have the same float type; None for others, which PyTorch does not multiply."""
    if arithmetic.inputs == "int8":
        return None
    return arithmetic.inputs if arithmetic.widens_weights or arithmetic.inputs == arithmetic.weights else None


def shapes_of(spec: Spec, point: Point) -> tuple[Shape, ...]:
    """The shapes of the products of the blocks of ``spec``, in the order of computation."""
    return tuple((point.batch * p.rows, p.inputs, p.outputs) for p in spec.products(point.size))


class TorchProductsSession:
    """Runs products, each with its own weights; those of one shape share their input and their output.

    It ignores its images and returns no logits.
    """

    def __init__(self, products: TorchProducts, place: Place) -> None:
        import torch

        self._place, dtype = place, getattr(torch, products.dtype)
        generator = torch.Generator(place.name).manual_seed(0)

        def noise(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, generator=generator, device=place.name).to(dtype)

        inputs = {(rows, k): noise(rows, k) for rows, k, _ in products.shapes}
        outputs = {(rows, n): torch.empty(rows, n, dtype=dtype, device=place.name) for rows, _, n in products.shapes}
        each = [(inputs[rows, k], noise(k, n), outputs[rows, n]) for rows, k, n in products.shapes]

        def multiply() -> Tensor:
            for x, weight, out in each:
                torch.mm(x, weight, out=out)
            return each[-1][2]

        with torch.inference_mode():
            place.settle()
            self._run = place.capture(multiply)

    def run(self, images: Array) -> Array:
        """No logits."""
        self.time(images)
        return np.empty((0, 0), np.float32)

    def time(self, images: Array) -> Times:
        """The time of all products, for which the host waits."""
        import torch

        self._place.settle()
        with torch.inference_mode():
            marks = [self._place.mark()]
            self._run()
            marks.append(self._place.mark())
        (compute_ms,) = between_ms(marks)
        return Times(0.0, compute_ms, 0.0)


def copy_rate(place: Place, count: int = COPIED_BYTES) -> float:
    """Bytes a second, read and written, of the fastest of several copies of ``count`` bytes from one place on the device to another."""
    import torch

    source = torch.ones(count, dtype=torch.uint8, device=place.name)
    target = torch.empty_like(source)
    marks = []
    for _ in range(COPIES + 1):
        marks.append(place.mark())
        target.copy_(source)
    marks.append(place.mark())
    return 2 * count / (min(between_ms(marks)[1:]) / 1e3)
