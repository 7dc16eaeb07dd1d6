"""A network with a shift and, behind it, a loop: the form of a detector that suppresses boxes one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FOR_EVER = 2**62
"""Trips that no machine lives to see."""


def save(path: Path, trips: int, *, data: str = "Neg") -> Path:
    """A network (batch, 32) to (batch, 32) at ``path``.

    ``input`` is transposed and shifted by a ScatterND along its second axis; ``data`` reads that. The loop adds weights, which
    lies outside of it, ``trips`` times.
    """
    info, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [node("Identity", ["going"], ["goes"]), node("Add", ["carried", "step"], ["added"], "inner")],
        "body",
        [
            info("trip", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("carried", TensorProto.FLOAT, None),
        ],
        [info("goes", TensorProto.BOOL, []), info("added", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Transpose", ["input"], ["columns"], "turn", perm=[1, 0]),
        node("Slice", ["columns", "zero", "three"], ["first"], "cut"),
        node("ScatterND", ["columns", "places", "first"], ["moved"], "scatter"),
        node("Transpose", ["moved"], ["back"], "turn_back", perm=[1, 0]),
        node(data, ["back"], ["features"], "data"),
        node("Loop", ["trips", "true", "features"], ["logits"], "loop", body=body),
    ]
    constants = {
        "zero": np.array([0]),
        "three": np.array([3]),
        "places": np.array([[1], [2], [3]]),
        "step": np.full(32, 0.5, np.float32),
        "trips": np.int64(trips),
        "true": np.bool_(True),
    }
    x, y = (info(name, TensorProto.FLOAT, ["batch", 32]) for name in ("input", "logits"))
    weights = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
