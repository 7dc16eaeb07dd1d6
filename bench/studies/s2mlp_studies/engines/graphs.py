"""The graphs that engines are built of: every lowering in every precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from s2mlp_deploy.checkpoint.load import Checkpoint
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import Lowering
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.passes.recipe import RECIPES, Range
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline import lower as pipeline
from s2mlp_deploy.quantization.calibration import calibrate, noise
from s2mlp_deploy.schema.precision import FP16, INT8


def lower(source: Checkpoint, lowering: Lowering) -> Lowered:
    """The graph of ``source`` with ``lowering``, batch 1 and static, as the toolkit writes it."""
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    return pipeline.lower(source.spec, weights, lowering, Axes(1, source.spec.image_size))


def half(lowered: Lowered) -> Lowered:
    """The float16 graph, whose values are not looked at: they do not matter for speed."""
    model = run_passes(lowered.model, ToFloat16(), CastIo(ir.DataType.FLOAT))
    return replace(lowered, model=model, precision=FP16.name)


def ranges(lowered: Lowered) -> dict[str, Range]:
    """Ranges of the inputs of the blocks' layers, calibrated on noise; the same for every lowering."""
    names = tuple(layer.activation for layer in family_of(lowered.spec).block_layers(lowered.spec))
    with scratch_session(lowered) as session:
        return calibrate(lambda x: session.trace(x, names), noise(lowered.spec), "minmax", batch=1)


def quantized(lowered: Lowered, ranges: Mapping[str, Range], target: str) -> Lowered:
    """The int8 graph for ``target`` (a name of quantize.RECIPES)."""
    layers = family_of(lowered.spec).block_layers(lowered.spec)
    graph = run_passes(lowered.model, Quantize(ranges, RECIPES[target], layers))
    return replace(lowered, model=graph, precision=INT8.name)
