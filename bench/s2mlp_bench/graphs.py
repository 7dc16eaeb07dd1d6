"""The graphs that are timed, written as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2mlp_deploy.families.s2mlp.emit import emit
from s2mlp_deploy.formats import registry
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import INPUT, Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import Lowering
from s2mlp_deploy.passes import fold_layernorm
from s2mlp_deploy.passes.float16 import to_float16
from s2mlp_deploy.passes.quantize import RECIPES, Range, block_layers, quantize
from s2mlp_deploy.passes.simplify import simplify
from s2mlp_deploy.quantization.calibration import MINIMUM_IMAGES, calibrate
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:
    from s2mlp_deploy.checkpoint.load import Checkpoint


def lower(source: Checkpoint, lowering: Lowering) -> Lowered:
    """The graph of ``source`` with ``lowering``, batch 1 and static, as the toolkit writes it."""
    spec = source.spec
    axes = Axes(1, spec.image_size)
    graph = fold_layernorm.fold(emit(spec, {n: w.numpy() for n, w in source.weights.items()}, lowering, axes))
    return Lowered(simplify(graph), spec, axes, lowering.name, "fp32")


def half(lowered: Lowered) -> Lowered:
    """The float16 graph, whose values are not looked at: they do not matter for speed."""
    return replace(lowered, model=to_float16(lowered.model), precision="fp16")


def ranges(lowered: Lowered) -> dict[str, Range]:
    """What the layers of the blocks read, calibrated on noise; the same for every lowering."""
    names = tuple(layer.activation for layer in block_layers(lowered.spec))
    with registry.scratch_session(lowered) as session:
        return calibrate(lambda x: session.trace(x, names), noise(lowered.spec), "minmax", batch=1)


def quantized(lowered: Lowered, ranges: Mapping[str, Range], target: str) -> Lowered:
    """The int8 graph for ``target`` (a name of quantize.RECIPES)."""
    layers = block_layers(lowered.spec)
    graph = quantize(lowered.model, ranges, RECIPES[target], layers)
    return replace(lowered, model=graph, precision="int8")


def noise(spec: Spec) -> Array:
    """As few images as a calibration takes: its ranges do not matter for speed."""
    shape = (MINIMUM_IMAGES, spec.in_channels, *spec.image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def write(lowered: Lowered, directory: Path) -> Path:
    """The ONNX file of ``lowered``, in a ``directory`` of its own."""
    directory.mkdir()
    path = directory / "model.onnx"
    writer.write(lowered.model, path)
    return path


def write_quantized_statically(path: Path, images: Array, directory: Path) -> Path:
    """What ``onnxruntime.quantization`` makes of the ONNX file at ``path``, with the defaults of its guide.

    It is pre-processed first, as the library asks for; the shapes in our graphs are known to ONNX's own inference.
    """
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    directory.mkdir()
    prepared, quantized = directory / "prepared.onnx", directory / "model.onnx"
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, quantized, _Images(images))
    prepared.unlink()
    return quantized


class _Images:
    """A ``CalibrationDataReader``: one image at a time."""

    def __init__(self, images: Array) -> None:
        self._feeds = iter([{INPUT: image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)
