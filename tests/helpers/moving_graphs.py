"""Small graphs that move data: built node by node, drawn at random, run before and after a repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from s2mlp_deploy.schema.array import Array


class Moving:
    """A graph under construction, whose nodes mostly move the elements of its inputs."""

    def __init__(self, opset: int = 17, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.opset, self.dtype = opset, dtype
        self.inputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def input(self, shape: Sequence[int | str | None], name: str = "x") -> ir.Value:
        """An input; names stand for free sizes."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(self.dtype))
        self.inputs.append(value)
        return value

    def constant(self, array: Array) -> ir.Value:
        """An initializer."""
        value = ir.Value(name=f"c{len(self.constants)}", const_value=ir.Tensor(array))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
        self.constants.append(value)
        return value

    def ints(self, *numbers: int) -> ir.Value:
        """An initializer of int64 numbers."""
        return self.constant(np.array(numbers, np.int64))

    def add(self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add a node; returns its output, or its outputs."""
        number = len(self.nodes)
        values = [ir.Value(name=f"v{number}" if outputs == 1 else f"v{number}_{i}") for i in range(outputs)]
        self.nodes.append(ir.node(op_type, inputs, attributes, outputs=values, name=f"n{number}", domain=domain))
        return values[0] if outputs == 1 else values

    def model(self, *results: ir.Value, dtypes: Mapping[ir.Value, ir.DataType] | None = None) -> ir.Model:
        """The model with these outputs."""
        for value in results:
            value.type = ir.TensorType((dtypes or {}).get(value, self.dtype))
        graph = ir.Graph(
            self.inputs,
            results,
            nodes=self.nodes,
            initializers=self.constants,
            opset_imports={"": self.opset},
            name="moves",
        )
        return ir.Model(graph, ir_version=8 if self.opset < 19 else 10)


def operators(model: ir.Model) -> Counter[str]:
    """The operators of a model, counted."""
    return Counter(node.op_type for node in model.graph)


def outputs(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in ONNX Runtime with its graph optimizations off, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: list[Array] = session.run(None, dict(feeds))
    return result


def same_bits(first: Iterable[Array], second: Iterable[Array]) -> bool:
    """Whether arrays have the same shapes, types and bits."""
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second, strict=True)
    )


def numbered(shape: Sequence[int], dtype: Any = np.float32, start: int = 1) -> Array:
    """An array all of whose elements differ, as far as the type has so many."""
    return np.arange(start, start + int(np.prod(shape))).reshape(shape).astype(dtype)


class RandomChain:
    """Draws moving operators one after another; the shape is known for the batch that the chain is drawn at.

    With a free batch, axis 0 stays the batch's.
    """

    def __init__(self, draw: st.DrawFn, graph: Moving, free_batch: bool) -> None:
        self.draw, self.graph, self.first = draw, graph, int(free_batch)

    def pick(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``."""
        return self.draw(st.integers(low, high))

    def axis(self, shape: Sequence[int]) -> int:
        """An axis that may change."""
        return self.pick(self.first, len(shape) - 1)

    def step(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """One operator behind ``value``."""
        kinds = [self.slice, self.transpose, self.reshape, self.pad, self.concat, self.gather, self.split, self.scatter]
        kinds += [self.unsqueeze, self.tile, self.roll, self.scatter_nd]
        return self.draw(st.sampled_from(kinds))(value, shape)

    def slice(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Slice with any start, end and step, also from the end."""
        axis = self.axis(shape)
        n = shape[axis]
        start, step = self.pick(0, n - 1), self.draw(st.sampled_from([1, 1, 2, -1]))
        end = self.pick(start + 1, n) if step > 0 else self.pick(-1, start - 1) if start else -1
        kept = range(start, end, step)
        g = self.graph
        stop = -n - 1 if end < 0 else end - n if self.draw(st.booleans()) and end < n else end
        return g.add("Slice", value, g.ints(start), g.ints(stop), g.ints(axis), g.ints(step)), _with(
            shape, axis, len(kept)
        )

    def transpose(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Transpose."""
        perm = [*range(self.first), *self.draw(st.permutations(range(self.first, len(shape))))]
        return self.graph.add("Transpose", value, perm=perm), tuple(shape[i] for i in perm)

    def reshape(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Reshape that joins two axes, or splits one."""
        axis = self.axis(shape)
        divisors = [d for d in range(1, shape[axis] + 1) if shape[axis] % d == 0]
        if self.draw(st.booleans()) and axis + 1 < len(shape):
            new = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        else:
            d = self.draw(st.sampled_from(divisors))
            new = (*shape[:axis], d, shape[axis] // d, *shape[axis + 1 :])
        if len(new) > 6:
            return value, shape
        target = (-1, *new[1:]) if self.first else new
        return self.graph.add("Reshape", value, self.graph.ints(*target)), new

    def pad(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Pad of any mode."""
        axis, mode = self.axis(shape), self.draw(st.sampled_from(["constant", "edge", "reflect"]))
        most = min(shape[axis] - 1, 2) if mode == "reflect" else 2
        before, after = self.pick(0, most), self.pick(0, most)
        pads = [0] * (2 * len(shape))
        pads[axis], pads[axis + len(shape)] = before, after
        return self.graph.add("Pad", value, self.graph.ints(*pads), mode=mode), _with(
            shape, axis, shape[axis] + before + after
        )

    def concat(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Concat with itself, or with a part of itself."""
        axis, end = self.axis(shape), self.pick(1, 2)
        if shape[axis] < end or shape[axis] > 12:
            return value, shape
        g = self.graph
        part = g.add("Slice", value, g.ints(0), g.ints(end), g.ints(axis))
        order = [part, value] if self.draw(st.booleans()) else [value, part]
        return g.add("Concat", *order, axis=axis), _with(shape, axis, shape[axis] + end)

    def gather(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Gather of some entries in any order."""
        axis = self.axis(shape)
        indices = self.draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=5))
        return self.graph.add("Gather", value, self.graph.ints(*indices), axis=axis), _with(shape, axis, len(indices))

    def split(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Split into two, joined the other way round."""
        axis = self.axis(shape)
        if shape[axis] < 2:
            return value, shape
        at = self.pick(1, shape[axis] - 1)
        g = self.graph
        first, second = g.add("Split", value, g.ints(at, shape[axis] - at), axis=axis, outputs=2)
        return g.add("Concat", second, first, axis=axis), shape

    def roll(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """A roll by one, as exporters write it."""
        axis = self.axis(shape)
        if shape[axis] < 2:
            return value, shape
        g = self.graph
        last = g.add("Slice", value, g.ints(-1), g.ints(2**63 - 1), g.ints(axis))
        rest = g.add("Slice", value, g.ints(0), g.ints(-1), g.ints(axis))
        return g.add("Concat", last, rest, axis=axis), shape

    def scatter(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """An assignment to a slice along one axis, from the slice beside it, as dynamo writes it."""
        axis = self.axis(shape)
        if shape[axis] < 2:
            return value, shape
        g, n = self.graph, shape[axis]
        perm = [axis, *(i for i in range(len(shape)) if i != axis)]
        back = [perm.index(i) for i in range(len(shape))]
        up = self.draw(st.booleans())
        source = g.add("Slice", value, g.ints(0 if up else 1), g.ints(n - 1 if up else n), g.ints(axis))
        indices = g.constant(np.arange(1 if up else 0, n if up else n - 1)[:, None])
        moved = g.add("ScatterND", g.add("Transpose", value, perm=perm), indices, g.add("Transpose", source, perm=perm))
        return g.add("Transpose", moved, perm=back), shape

    def scatter_nd(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Zeros, with some entries of one axis of the value, where the batch is not free."""
        if self.first:
            return value, shape
        g, n = self.graph, shape[0]
        kept = sorted(self.draw(st.sets(st.integers(0, n - 1), min_size=1)))
        zeros = g.constant(np.zeros(shape, g.dtype.numpy()))
        part = g.add("Gather", value, g.ints(*kept), axis=0)
        return g.add("ScatterND", zeros, g.constant(np.array(kept, np.int64)[:, None]), part), shape

    def unsqueeze(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Unsqueeze."""
        if len(shape) > 4:
            return value, shape
        axis = self.pick(self.first, len(shape))
        return self.graph.add("Unsqueeze", value, self.graph.ints(axis)), (*shape[:axis], 1, *shape[axis:])

    def tile(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[ir.Value, tuple[int, ...]]:
        """Expand an axis of size 1, or tile another."""
        axis = self.axis(shape)
        if shape[axis] > 6:
            return value, shape
        if shape[axis] == 1:
            target = _with((1,) * len(shape), axis, 3)
            return self.graph.add("Expand", value, self.graph.ints(*target)), _with(shape, axis, 3)
        repeats = _with((1,) * len(shape), axis, 2)
        return self.graph.add("Tile", value, self.graph.ints(*repeats)), _with(shape, axis, 2 * shape[axis])


def _with(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


@st.composite
def chains(draw: st.DrawFn, free_batch: bool) -> tuple[ir.Model, tuple[int, ...]]:
    """A model of one to eight moving operators, and the shape of its input, which is that for batch 2 where it is free.

    It ends in Neg, which computes, and may give out a value in between.
    """
    graph = Moving()
    shape = (2, *draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    start = shape
    chain = RandomChain(draw, graph, free_batch)
    value: ir.Value = graph.input(["batch", *shape[1:]] if free_batch else shape)
    value = graph.add("Abs", value)
    between = []
    for _ in range(draw(st.integers(1, 8))):
        value, shape = chain.step(value, shape)
        if draw(st.integers(0, 4)) == 0 and value.producer() is not None:
            between.append(value)
    result = graph.add("Neg", value)
    return graph.model(result, *dict.fromkeys(between)), start
