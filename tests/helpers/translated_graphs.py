"""Graphs on which translators of ONNX are tested: networks of every family, and other operators that people's networks have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from helpers.support import pyramid_spec, small_spec, v2_spec, with_stem_norms
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import Embedding, Spec

SPECS: dict[str, Spec] = {
    "a pyramid": pyramid_spec(),
    "norms behind the embeddings": with_stem_norms(small_spec(classes=1)),
    "S²-MLPv2": v2_spec(),
    "MLP-Mixer": MixerSpec(Embedding((4, 4), (4, 4)), 14, 6, 26, 2, classes=7, image_size=(20, 28)),
}

Nodes: TypeAlias = list[tuple[str, list[str], dict[str, Any]]]
"""Operators, inputs and attributes of a chain. A node's output is called by its number; the last is ``y``."""

CHAINS: list[Nodes] = [
    [("MatMul", ["input", "w"], {}), ("Softmax", ["0"], {"axis": 1})],
    [("Transpose", ["input"], {"perm": [0, 2, 1]}), ("MatMul", ["input", "0"], {})],
    [("Split", ["input"], {"axis": 1, "num_outputs": 1}), ("Mul", ["0", "input"], {})],
    [("ReduceSum", ["input", "axis"], {"keepdims": 1}), ("Sub", ["input", "0"], {})],
    [("ReduceSum", ["input", "axis"], {"keepdims": 0}), ("Gemm", ["0", "w", "bias"], {})],
    [("LayerNormalization", ["input", "bias", "bias"], {"axis": 2}), ("Gelu", ["0"], {"approximate": "tanh"})],
    [("Pad", ["input", "pads"], {}), ("Sigmoid", ["0"], {})],
    [("Slice", ["input", "start", "end", "axis"], {}), ("Add", ["0", "bias"], {})],
    [("Reshape", ["input", "copying"], {}), ("Div", ["0", "bias2"], {})],
]

REFUSED: dict[str, Nodes] = {
    "no translation for the operator Erf of y": [("Erf", ["input"], {})],
    r"y \(ReduceMean\): it mixes the images": [("ReduceMean", ["input", "zero"], {})],
    r"y \(Concat\): it mixes the images": [("Concat", ["input", "input"], {"axis": 0})],
    r"y \(Gather\): it mixes the images": [("Gather", ["input", "zero"], {})],
    r"y \(Reshape\): its shape leaves no room for a batch": [("Reshape", ["input", "fixed"], {})],
    r"y \(Slice\): it skips values": [("Slice", ["input", "zero", "fixed1", "zero", "two"], {})],
    r"y \(Pad\): its mode is reflect": [("Pad", ["input", "pads"], {"mode": "reflect"})],
    r"y \(Gemm\): it has factors": [("Gemm", ["input", "input"], {"alpha": 2.0})],
    r"y \(Gemm\): neither of its matrices is a constant": [("Gemm", ["input", "input"], {})],
    r"y \(Reshape\): its input input is not a constant": [("Reshape", ["fixed", "input"], {})],
}
"""Chains that cannot be translated, by what is said of them."""

_ROWS = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)

_CONSTANTS: dict[str, Array] = {
    "w": _ROWS,
    "bias": _ROWS[0],
    "column": _ROWS[0][:, None],
    "bias2": np.float32([1, -2, 3]),
    "axis": np.int64([1]),
    "pads": np.int64([0, 1, 2, 0, 0, 3]),
    "start": np.int64([-3]),
    "end": np.int64([2**62]),
    "copying": np.int64([0, -1, 3]),
    "rows": np.int64([1, 5, 1]),
    "zero": np.int64([0]),
    "fixed1": np.int64([1]),
    "two": np.int64([2]),
    "fixed": np.int64([4, 6]),
}


def save_network(spec: Spec, lowering: str, path: Path) -> Array:
    """Write the graph of ``spec`` with random weights to ``path``; images for it."""
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(shape).astype(np.float32) / 4 for n, shape in spec.parameter_shapes().items()}
    ir.save(lower(spec, weights, LOWERINGS[lowering], Axes(None, spec.image_size)).model, path)
    return rng.standard_normal((3, 3, *spec.image_size)).astype(np.float32)


def save_chain(nodes: Nodes, path: Path) -> Array:
    """Write ``nodes`` as a model from ``input`` (batch, 4, 6) to ``path``; values for it."""
    made = [
        helper.make_node(operator, inputs, ["y" if i == len(nodes) - 1 else str(i)], **attributes)
        for i, (operator, inputs, attributes) in enumerate(nodes)
    ]
    used = {name for _, inputs, _ in nodes for name in inputs}
    onnx.save(graph_of(*made, **{name: array for name, array in _CONSTANTS.items() if name in used}), path)
    return np.random.default_rng(1).standard_normal((2, 4, 6)).astype(np.float32)


def graph_of(*nodes: onnx.NodeProto, shape: tuple[Any, ...] = ("batch", 4, 6), **constants: Array) -> onnx.ModelProto:
    """A model from ``input`` (shape) to ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
