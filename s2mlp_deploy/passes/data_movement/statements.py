"""Assignments between overlapping slices of a buffer: find them, and replay them as PyTorch copies on one CPU thread.

``x[:, 1:] = x[:, :-1]`` is exported as a ScatterND that reads all of its sources before it writes. PyTorch copies the elements one
after another, in ascending order of their addresses, and so reads elements that it has just written.
"""

from __future__ import annotations

import ast

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.repair_result import Statement
from s2mlp_deploy.passes.data_movement.values import AddressSpace
from s2mlp_deploy.schema.array import Array

_VECTOR_BYTES = 64
"""What a copy of neighbouring elements may read before it writes: a vector register of AVX-512."""


def overlaps(written: Array, read: Array) -> bool:
    """Whether an assignment reads memory that it also writes, at other places than in the same element."""
    if not written.size or written.shape != read.shape:
        return False
    low, high = int(written.min()), int(written.max())
    inside = read[(read >= low) & (read <= high)]
    if not inside.size or np.array_equal(written, read):
        return False
    marked = np.zeros(high - low + 1, bool)
    marked[written - low] = True
    return bool(marked[inside - low].any())


def statement(node: ir.Node, written: Array, read: Array, space: AddressSpace) -> Statement:
    """The statement that ``node`` stands for; ``written`` and ``read`` are the addresses of its elements."""
    root = space.root_at(int(written.flat[0]))
    steps = [
        to - origin
        for to, origin in zip(
            *(np.unravel_index(int(a.flat[0]) - root.base, root.shape) for a in (written, read)), strict=True
        )
    ]
    axis = next(i for i, step in enumerate(steps) if step) if any(steps) else 0
    return Statement(
        str(node.name or node.outputs[0].name),
        _scope(node),
        root.shape,
        axis,
        int(steps[axis]),
        _doubt(written, read, root.dtype.itemsize),
    )


def replay(written: Array, read: Array, sources: Array) -> Array:
    """The sources of the written elements, if they are copied in ascending order of their addresses.

    An element that was written before it is read passes on its own source.
    """
    order = np.argsort(written, axis=None, kind="stable")
    targets = written.reshape(-1)[order]
    place = np.minimum(np.searchsorted(targets, read.reshape(-1)), targets.size - 1)
    earlier = (targets[place] == read.reshape(-1)) & (read.reshape(-1) < written.reshape(-1))
    origin = np.where(earlier, order[place], np.arange(written.size))
    while not np.array_equal(further := origin[origin], origin):
        origin = further
    return sources.reshape(-1)[origin].reshape(sources.shape)


def _doubt(written: Array, read: Array, itemsize: float) -> str | None:
    """Why elements are perhaps not copied one after another; None where they are."""
    order = np.argsort(written, axis=None, kind="stable")
    to, origin = written.reshape(-1)[order], read.reshape(-1)[order]
    ends = np.flatnonzero((np.diff(to) != 1) | (np.diff(origin) != 1))
    longest = int(np.diff(np.concatenate([[-1], ends, [to.size - 1]])).max())
    behind = (to - origin)[to > origin]
    if behind.size and int(behind.min()) < min(longest, _VECTOR_BYTES / itemsize):
        return f"it moves runs of {longest} neighbouring elements by {int(behind.min())}, which a processor copies several at a time"
    return None


def _scope(node: ir.Node) -> str:
    """The path of modules: dynamo records it in the metadata, where each scope repeats those around it, TorchScript in the node's name."""
    recorded = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if recorded is None:
        return ".".join(str(node.name or "").split("/")[1:-1])
    try:
        scopes = ast.literal_eval(recorded)
    except (ValueError, SyntaxError):
        return ""
    path = ""
    for part in map(str, scopes[:-1] if isinstance(scopes, list) else ()):
        joined = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
        path = joined if part else path
    return path
