"""The operators that only move elements, applied to arrays: of numbers, or of the addresses that elements come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.schema.array import Array

Inputs: TypeAlias = Sequence[Array | None]
Operator: TypeAlias = Callable[[ir.Node, Inputs, int], list[Array]]
"""(node, its inputs, version of the operator set) → its outputs."""


class NotAMoveError(Exception):
    """A node of a moving operator does more than to move elements; the message says what, for a list of such nodes."""


def data_inputs(node: ir.Node) -> tuple[int, ...]:
    """The indices of the inputs whose elements move; the others are shapes, axes, indices or conditions."""
    if node.op_type == "Concat":
        return tuple(range(len(node.inputs)))
    chosen = {"Where": (1, 2), "ScatterND": (0, 2), "ScatterElements": (0, 2), "Scatter": (0, 2), "Pad": (0, 2)}
    return tuple(i for i in chosen.get(node.op_type, (0,)) if i < len(node.inputs) and node.inputs[i] is not None)


def _data(inputs: Inputs) -> Array:
    data = inputs[0]
    if data is None:
        raise NotAMoveError("its data input is missing")
    return data


def _ints(node: ir.Node, inputs: Inputs, index: int, attribute: str) -> list[int] | None:
    """A list of integers that is an input in new operator sets and was an attribute in old ones; None for neither."""
    if index < len(inputs) and (given := inputs[index]) is not None:
        return [int(i) for i in given.reshape(-1)]
    if attribute in node.attributes:
        return [int(i) for i in node.attributes[attribute].as_ints()]
    return None


def _identity(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    return [_data(inputs)]


def _reshape(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, shape = _data(inputs), _ints(node, inputs, 1, "shape") or []
    if not node.attributes.get_int("allowzero", 0):
        shape = [data.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return [data.reshape(shape)]


def _flatten(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, axis = _data(inputs), node.attributes.get_int("axis", 1)
    axis += data.ndim if axis < 0 else 0
    return [data.reshape(int(np.prod(data.shape[:axis], dtype=np.int64)), -1)]


def _squeeze(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    axes = _ints(node, inputs, 1, "axes")
    return [np.squeeze(_data(inputs), None if axes is None else tuple(axes))]


def _unsqueeze(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    return [np.expand_dims(_data(inputs), tuple(_ints(node, inputs, 1, "axes") or ()))]


def _transpose(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
    return [np.transpose(_data(inputs), perm)]


def _expand(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, shape = _data(inputs), _ints(node, inputs, 1, "shape") or []
    return [np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape)))]


def _tile(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    return [np.tile(_data(inputs), _ints(node, inputs, 1, "repeats") or ())]


def _slice(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data = _data(inputs)
    starts, ends = _ints(node, inputs, 1, "starts") or [], _ints(node, inputs, 2, "ends") or []
    axes = _ints(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = _ints(node, inputs, 4, "steps") or [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = _clamped(start, end, step, data.shape[axis])
    return [data[tuple(index)]]


def _clamped(start: int, end: int, step: int, size: int) -> slice:
    """ONNX counts from the end where a bound is negative, and cuts bounds that lie outside."""
    start, end = start + size * (start < 0), end + size * (end < 0)
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    stop = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if stop < 0 else stop, step)


def _split(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, axis, count = _data(inputs), node.attributes.get_int("axis", 0), len(node.outputs)
    sizes = _ints(node, inputs, 1, "split")
    if sizes is None:
        chunk = -(-data.shape[axis] // count)
        sizes = [chunk] * (count - 1) + [data.shape[axis] - chunk * (count - 1)]
    if len(sizes) != count or sum(sizes) != data.shape[axis] or min(sizes) < 0:
        raise NotAMoveError("its sizes do not add up to its input's")
    return np.split(data, np.cumsum(sizes)[:-1].tolist(), axis)


def _split_to_sequence(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    """The tensors of the sequence: of given sizes, of one size but the last, or single entries."""
    data, axis, given = _data(inputs), node.attributes.get_int("axis", 0), inputs[1] if len(inputs) > 1 else None
    count = data.shape[axis]
    if given is not None and given.ndim:
        sizes = [int(n) for n in given]
        if sum(sizes) != count or min(sizes, default=0) < 0:
            raise NotAMoveError("its sizes do not add up to its input's")
        ends = np.cumsum(sizes)[:-1].tolist()
    else:
        ends = list(range(size := int(given) if given is not None else 1, count, size))
    parts = np.split(data, ends, axis)
    squeezed = given is None and not node.attributes.get_int("keepdims", 1)
    return [np.squeeze(part, axis) for part in parts] if squeezed else parts


def _concat(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    return [np.concatenate([array for array in inputs if array is not None], node.attributes["axis"].as_int())]


def _where(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    condition, yes, no = inputs
    if condition is None or yes is None or no is None:
        raise NotAMoveError("an input is missing")
    return [np.where(condition, yes, no)]


def _gather(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, indices = _data(inputs), inputs[1]
    axis = node.attributes.get_int("axis", 0)
    if indices is None:
        raise NotAMoveError("its indices are missing")
    return [np.take(data, indices.astype(np.int64), axis)]


def _gather_elements(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, indices, axis = _data(inputs), inputs[1], node.attributes.get_int("axis", 0)
    if indices is None:
        raise NotAMoveError("its indices are missing")
    return [data[elements(data.shape, indices, axis)]]


def _gather_nd(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, indices = _data(inputs), inputs[1]
    if indices is None or node.attributes.get_int("batch_dims", 0) != 0:
        raise NotAMoveError("it has batch dimensions")
    return [data[tuple(np.moveaxis(indices, -1, 0))]]


def _pad(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, mode = _data(inputs), node.attributes.get_string("mode", "constant")
    pads = _ints(node, inputs, 1, "pads") or []
    axes = [int(i) for i in inputs[3].reshape(-1)] if len(inputs) > 3 and inputs[3] is not None else range(data.ndim)
    before, after = [0] * data.ndim, [0] * data.ndim
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(pads) // 2 + i]
    data = data[tuple(slice(max(-b, 0), n - max(-a, 0)) for b, a, n in zip(before, after, data.shape, strict=True))]
    width = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    if mode != "constant":
        return [np.pad(data, width, {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}[mode])]  # type: ignore[call-overload]
    fill = inputs[2] if len(inputs) > 2 else None
    if fill is None:
        raise NotAMoveError("its border has no value")
    padded = np.empty([n + b + a for n, (b, a) in zip(data.shape, width, strict=True)], data.dtype)
    padded[...] = fill.reshape(())
    padded[tuple(slice(b, b + n) for n, (b, _) in zip(data.shape, width, strict=True))] = data
    return [padded]


def elements(shape: tuple[int, ...], indices: Array, axis: int) -> tuple[Array, ...]:
    """NumPy's index for GatherElements and ScatterElements along ``axis`` of an array of this shape."""
    index: list[Array] = list(np.indices(indices.shape, sparse=True))
    index[axis] = np.where(indices < 0, indices + shape[axis], indices)
    return tuple(np.broadcast_arrays(*index))


def scatter_index(node: ir.Node, inputs: Inputs) -> tuple[Array, ...]:
    """NumPy's index of the elements of the data that a ScatterND or ScatterElements writes.

    Raises:
        NotAMoveError: where it computes with them, or writes one twice.
    """
    data, indices = _data(inputs), inputs[1]
    if indices is None:
        raise NotAMoveError("its indices are missing")
    if node.attributes.get_string("reduction", "none") != "none":
        raise NotAMoveError("it adds to, multiplies or compares the elements that it writes")
    if node.op_type == "ScatterND":
        return tuple(np.moveaxis(indices, -1, 0))
    return elements(data.shape, indices, node.attributes.get_int("axis", 0))


def _scatter(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, updates = _data(inputs), inputs[2]
    if updates is None:
        raise NotAMoveError("its updates are missing")
    index = scatter_index(node, inputs)
    result = data.copy()
    result[index] = updates
    if not np.array_equal(result[index], updates):
        raise NotAMoveError("it writes an element twice, in an order that ONNX leaves open")
    return [result]


def _depth_to_space(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, block = _data(inputs), node.attributes["blocksize"].as_int()
    n, c, h, w = data.shape
    if node.attributes.get_string("mode", "DCR") == "DCR":
        moved = data.reshape(n, block, block, -1, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved = data.reshape(n, -1, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [moved.reshape(n, c // block**2, h * block, w * block)]


def _space_to_depth(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data, block = _data(inputs), node.attributes["blocksize"].as_int()
    n, c, h, w = data.shape
    moved = data.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    return [moved.reshape(n, c * block**2, h // block, w // block)]


OPERATORS: dict[str, Operator] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Scatter": _scatter,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "SplitToSequence": _split_to_sequence,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
