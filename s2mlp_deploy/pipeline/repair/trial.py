"""Run a network on random inputs of several sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.bundle.network_golden import Tensors
from s2mlp_deploy.errors import BundleError, ModelError, TimeLimitError
from s2mlp_deploy.passes.data_movement.sizes import fed_inputs, trials
from s2mlp_deploy.runtime.session import TensorSession
from s2mlp_deploy.schema.array import Array

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of the inputs, by name."""

SEED = 20210614


@dataclass(frozen=True)
class Trial:
    """Inputs, and the outputs that a network gave for them."""

    inputs: Tensors
    outputs: Tensors

    @property
    def shapes(self) -> Shapes:
        """The inputs' shapes."""
        return {name: array.shape for name, array in self.inputs.items()}


def run(model: ir.Model, session: TensorSession) -> tuple[Trial, ...]:
    """Trials of ``model``, which is loaded in ``session``: at its own size, or at three batch sizes (and sizes) where they are
    free.

    Raises:
        ModelError: where it runs at no size that is tried, or on and on.
    """
    failure: BundleError | None = None
    for group in _groups(model):
        try:
            return tuple(Trial(x, session.compute(x)) for x in (_inputs(model, shapes) for shapes in group))
        except TimeLimitError as error:
            raise ModelError(str(error)) from error
        except BundleError as error:
            failure = failure or error
    raise ModelError(f"the model runs at none of the sizes that were tried: {failure}") from failure


def moved_by_rounding(inputs: Tensors) -> Tensors:
    """``inputs`` of floating point, each moved to the next number up or down."""
    rng = np.random.default_rng(SEED + 1)

    def moved(x: Array) -> Array:
        if x.dtype.kind != "f":
            return x
        towards = np.where(rng.random(x.shape) < 0.5, -np.inf, np.inf).astype(x.dtype)
        found: Array = np.nextafter(x, towards)
        return found

    return {name: moved(array) for name, array in inputs.items()}


def _groups(model: ir.Model) -> Iterator[Sequence[Shapes]]:
    """Shapes to try together, with three batch sizes where the batch is free."""
    batches = {str(v.name) for v in fed_inputs(model.graph) if v.shape is not None and not isinstance(v.shape[0], int)}
    for group in trials(model.graph):
        shapes = [{str(v.name): tuple(shape or ()) for v, shape in one.items()} for one in group]
        if batches:
            least = {n: (s[0] // 2, *s[1:]) if n in batches else s for n, s in shapes[0].items()}
            shapes = [*shapes[:2], {n: (least[n][0], *s[1:]) if n in batches else s for n, s in shapes[-1].items()}]
        yield shapes


def _inputs(model: ir.Model, shapes: Shapes) -> Tensors:
    rng = np.random.default_rng([SEED, *(n for shape in shapes.values() for n in shape)])
    return {str(v.name): _noise(rng, v, shapes[str(v.name)]) for v in fed_inputs(model.graph)}


def _noise(rng: np.random.Generator, value: ir.Value, shape: tuple[int, ...]) -> Array:
    """Numbers of the scale of normalized images, and of integers zeros and ones."""
    dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    whole: Array = rng.integers(0, 2, shape).astype(dtype)
    return whole
