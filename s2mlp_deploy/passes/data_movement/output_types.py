"""Shapes and element types of computed values, by ONNX's shape inference, one node at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from s2mlp_deploy.schema.array import Array


@dataclass(frozen=True)
class TensorType:
    """Shape and element type; None for what is not known."""

    shape: tuple[int, ...] | None
    dtype: ir.DataType | None


UNKNOWN = TensorType(None, None)


class InconsistentShapesError(Exception):
    """The shapes of a node's inputs do not go together."""


def output_types(
    node: ir.Node, inputs: Sequence[TensorType | None], known: Mapping[int, Array], opset: int
) -> list[TensorType]:
    """The type of each output of ``node`` from those of its inputs; ``known`` holds the inputs whose numbers are known.

    Raises:
        InconsistentShapesError: where the inputs cannot belong to one node.
    """
    if any(t is not None and t.dtype is None for t in inputs) or not onnx.defs.has(node.op_type, opset, ""):
        return [UNKNOWN for _ in node.outputs]
    names = [f"i{i}" if t is not None else "" for i, t in enumerate(inputs)]
    proto = onnx.NodeProto(
        op_type=node.op_type,
        input=names,
        output=[f"o{i}" if v.name else "" for i, v in enumerate(node.outputs)],
        attribute=[ir.to_proto(a) for a in node.attributes.values() if isinstance(a, ir.Attr)],
    )
    types = {n: onnx.helper.make_tensor_type_proto(int(t.dtype or 0), t.shape) for n, t in zip(names, inputs) if t}  # noqa: B905
    data = {f"i{i}": onnx.numpy_helper.from_array(np.ascontiguousarray(array)) for i, array in known.items()}
    try:
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset, ""),
            proto,
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
    except onnx.shape_inference.InferenceError as error:
        raise InconsistentShapesError(str(error)) from error
    except (onnx.checker.ValidationError, RuntimeError):  # the node is not one that ONNX describes
        return [UNKNOWN for _ in node.outputs]
    return [_tensor_type(found.get(f"o{i}")) for i in range(len(node.outputs))]


def _tensor_type(proto: onnx.TypeProto | None) -> TensorType:
    if proto is None or not proto.HasField("tensor_type"):
        return UNKNOWN
    tensor = proto.tensor_type
    whole = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
    shape = tuple(int(d.dim_value) for d in tensor.shape.dim) if whole else None
    return TensorType(shape, ir.DataType(tensor.elem_type) if tensor.elem_type else None)
