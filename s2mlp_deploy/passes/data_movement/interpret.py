"""Follow every element through a graph: where each comes from, wherever nodes only move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.arithmetic import COMPUTATIONS
from s2mlp_deploy.passes.data_movement.operators import OPERATORS, NotAMoveError, data_inputs, scatter_index
from s2mlp_deploy.passes.data_movement.output_types import InconsistentShapesError, TensorType, output_types
from s2mlp_deploy.passes.data_movement.repair_result import LeftAlone, Statement
from s2mlp_deploy.passes.data_movement.statements import overlaps, replay, statement
from s2mlp_deploy.passes.data_movement.values import FILL, AbstractValue, AddressSpace, Known, Moved, Opaque, Parts
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Semantics

MOST_ELEMENTS = 1 << 26
"""Values with more elements are not followed: a map takes eight bytes for each."""

_MOST_KNOWN = 1 << 22
"""Constants with more elements are not read, unless they are integers, which can be indices."""

_MOST_NUMBERS = 1 << 12
"""The same for floating-point numbers, which are weights."""

_SPLIT = "SplitToSequence"

_VIEWS = frozenset(
    {"Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", _SPLIT, "Squeeze", "Transpose", "Unsqueeze"}
)
"""The operators that stand for views of a framework's tensor, in the same memory."""

Leaving = Callable[[ir.Value, Moved], None]
"""Receives each moved value that something other than a moving node reads."""


@dataclass
class Findings:
    """Findings of an interpretation, beside the maps of the leaving values.

    ``inconsistent`` names the nodes whose inputs do not go together at the given sizes.
    """

    moving: set[ir.Node] = field(default_factory=set)
    known: dict[ir.Value, Array] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    restored: set[ir.Node] = field(default_factory=set)
    left_alone: list[LeftAlone] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)


class Interpreter:
    """Walks a graph once, with the given shapes of its inputs."""

    def __init__(
        self,
        model: ir.Model,
        shapes: Mapping[ir.Value, tuple[int, ...] | None],
        semantics: Callable[[Statement], Semantics],
        leaving: Leaving,
    ) -> None:
        self.space = AddressSpace()
        self.findings = Findings()
        self._model, self._graph = model, model.graph
        self._opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
        self._semantics, self._leaving = semantics, leaving
        self._values: dict[ir.Value, AbstractValue] = {v: Opaque(s, _dtype(v)) for v, s in shapes.items()}
        self._readers: dict[ir.Value, int] = {}

    def run(self) -> Findings:
        """Interpret every node; values are dropped behind their last reader."""
        for node in self._graph:
            outputs = self._outputs(node)
            for value, result in zip(node.outputs, outputs, strict=True):
                self._values[value] = result
                if isinstance(result, Known) and result.array.size <= _MOST_NUMBERS:
                    self.findings.known[value] = result.array
            if any(isinstance(result, (Moved, Parts)) for result in outputs):
                self.findings.moving.add(node)
            for value in dict.fromkeys(v for v in (*node.inputs, *node.outputs) if v is not None):
                self._visit(value, node)
        return self.findings

    def shape_of(self, value: ir.Value) -> tuple[int, ...] | None:
        """The shape of a value that was interpreted; None where it is not known."""
        found = self._values.get(value)
        return None if found is None else found.shape

    def _visit(self, value: ir.Value, node: ir.Node) -> None:
        """Drop ``value`` if ``node`` was the last node that reads it."""
        if value not in self._readers:
            self._readers[value] = len({reader for reader, _ in value.uses() if reader.graph is self._graph})
        if node is not value.producer():
            self._readers[value] -= 1
        found = self._values.get(value)
        if self._readers[value] > 0 or found is None or isinstance(found, Opaque):
            return
        if isinstance(found, Known):
            if found.array.size > _MOST_NUMBERS:
                self._values[value] = Opaque(found.shape, ir.DataType.from_numpy(found.array.dtype))
            return
        if isinstance(found, Moved) and (
            value.is_graph_output()
            or any(reader not in self.findings.moving and not self._is_shape(reader) for reader, _ in value.uses())
        ):
            self._leaving(value, found)
        self._values[value] = Opaque(found.shape, found.dtype)

    def _is_shape(self, node: ir.Node) -> bool:
        """Whether ``node`` reads only the shape of its input."""
        return (
            node.op_type in ("Shape", "Size")
            and node.domain in ("", "ai.onnx")
            and isinstance(self._values.get(node.outputs[0]), Known)
        )

    def _outputs(self, node: ir.Node) -> list[AbstractValue]:
        if (reason := self._foreign(node)) is not None:
            self._leave(node, reason)
            return [self._recorded(value) for value in node.outputs]
        inputs = [None if value is None else self._value(value) for value in node.inputs]
        try:
            found = self._known(node, inputs) or self._moved(node, inputs)
        except NotAMoveError as reason:
            self._leave(node, str(reason))
            found = None
        except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError) as error:
            self.findings.inconsistent.append(str(node.name))
            self._leave(node, f"its inputs do not go together: {error}")
            found = None
        return found or self._opaque(node, inputs)

    def _leave(self, node: ir.Node, reason: str) -> None:
        self.findings.left_alone.append(LeftAlone(str(node.name or node.outputs[0].name), reason))

    def _foreign(self, node: ir.Node) -> str | None:
        """Why a node is not interpreted at all; None where it is."""
        if node.op_identifier() in self._model.functions:
            return f"it calls the model's own function {node.op_type}"
        if node.domain not in ("", "ai.onnx"):
            return f"{node.op_type} is a custom operator, of {node.domain}"
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            return f"{node.op_type} holds a subgraph"
        return None

    def _value(self, value: ir.Value) -> AbstractValue:
        if value not in self._values:
            self._values[value] = self._constant(value) or self._recorded(value)
        return self._values[value]

    def _recorded(self, value: ir.Value) -> Opaque:
        """The type that the file records, where all of its sizes are fixed."""
        shape = None if value.shape is None else tuple(value.shape)
        fixed = shape is not None and all(isinstance(n, int) for n in shape)
        return Opaque(tuple(int(n) for n in shape) if shape is not None and fixed else None, _dtype(value))  # type: ignore[arg-type]

    def _constant(self, value: ir.Value) -> Known | Opaque | None:
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            return None
        shape, dtype = tuple(tensor.shape.numpy()), tensor.dtype
        most = _MOST_KNOWN if dtype.is_integer() or dtype == ir.DataType.BOOL else _MOST_NUMBERS
        if tensor.size > most or dtype.bitwidth < 8 or dtype == ir.DataType.STRING:
            return Opaque(shape, dtype)
        return Known(tensor.numpy())

    def _known(self, node: ir.Node, inputs: list[AbstractValue | None]) -> list[AbstractValue] | None:
        """The outputs, if they follow from what is known."""
        if node.op_type == "Constant":
            return self._constant_node(node)
        if node.op_type in ("Shape", "Size") and inputs[0] is not None and inputs[0].shape is not None:
            shape = np.array(inputs[0].shape, np.int64)
            if node.op_type == "Size":
                return [Known(shape.prod(dtype=np.int64))]
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
            return [Known(shape[start:end])]
        arrays = [value.array for value in inputs if isinstance(value, Known)]
        if len(arrays) != len([v for v in inputs if v is not None]) or not arrays:
            return None
        if node.op_type in COMPUTATIONS:
            with np.errstate(all="ignore"):
                return [Known(np.asarray(COMPUTATIONS[node.op_type](node, arrays)))]
        if node.op_type in OPERATORS and node.op_type != _SPLIT:
            given: list[Array | None] = [v.array if isinstance(v, Known) else None for v in inputs]
            if node.op_type == "Pad" and len(given) < 3:
                given = [*given, np.zeros((), arrays[0].dtype)]
            return [Known(array) for array in OPERATORS[node.op_type](node, given, self._opset)]
        return None

    @staticmethod
    def _constant_node(node: ir.Node) -> list[AbstractValue] | None:
        (attribute,) = node.attributes.values()
        if attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
                return [Opaque(tuple(tensor.shape.numpy()), tensor.dtype)]
            return [Known(tensor.numpy())]
        if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS):
            return [Known(np.array(attribute.value, np.int64))]
        if attribute.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
            return [Known(np.array(attribute.value, np.float32))]
        return None

    def _moved(self, node: ir.Node, inputs: list[AbstractValue | None]) -> list[AbstractValue] | None:
        """The outputs, if every element comes from a known place.

        Raises:
            NotAMoveError: where places are not known.
        """
        if node.op_type == "SequenceAt" and isinstance(inputs[0], Parts):
            position = inputs[1]
            return [inputs[0].parts[int(position.array)]] if isinstance(position, Known) else None
        if node.op_type not in OPERATORS or (node.op_type == _SPLIT and not self._is_taken_apart(node.outputs[0])):
            return None
        indices = data_inputs(node)
        if all(v is None or v.const_value is not None for i in indices for v in [node.inputs[i]]):
            return None  # weights: a runtime arranges them when it loads the graph
        sides = {i: v for i, v in enumerate(inputs) if v is not None and i not in indices}
        if not all(isinstance(v, Known) for v in sides.values()):
            if node.op_type == "Where":
                return None
            raise NotAMoveError("its indices, sizes or shape depend on the input's numbers")
        data = {i: self._addressed(node, i, inputs[i]) for i in indices}
        dtype = next(iter(data.values())).dtype
        arrays: list[Array | None] = [None] * max(len(inputs), 3)
        storage = arrays.copy()
        for i, value in sides.items():
            arrays[i] = storage[i] = value.array  # type: ignore[union-attr]
        for i, moved in data.items():
            arrays[i], storage[i] = moved.map, moved.storage
        if node.op_type == "Pad" and arrays[2] is None:
            arrays[2] = np.array(FILL, np.int64)
        if node.op_type.startswith("Scatter"):
            self._restore(node, arrays, storage)
        operator = OPERATORS[node.op_type]
        maps = operator(node, arrays, self._opset)
        if any(found.size > MOST_ELEMENTS for found in maps):
            raise NotAMoveError(f"it has more than {MOST_ELEMENTS} elements")
        if node.op_type.startswith("Scatter"):
            places = [storage[0]]
        elif node.op_type in _VIEWS or (node.op_type == "Gather" and arrays[1] is not None and not arrays[1].ndim):
            places = [*operator(node, storage, self._opset)]
        else:
            places = [self.space.memory(found.shape, dtype) for found in maps]
        found = tuple(Moved(each, dtype, place) for each, place in zip(maps, places, strict=True) if place is not None)
        return [Parts(found)] if node.op_type == _SPLIT else [*found]

    def _is_taken_apart(self, sequence: ir.Value) -> bool:
        """Whether the tensors of ``sequence`` are only taken out of it again, each by a number that is a constant."""

        def constant(value: ir.Value | None) -> bool:
            made = value.producer() if value is not None else None
            return value is not None and (
                value.const_value is not None or (made is not None and made.op_type == "Constant")
            )

        return not sequence.is_graph_output() and all(
            reader.op_type == "SequenceAt" and reader.graph is self._graph and constant(reader.inputs[1])
            for reader, _ in sequence.uses()
        )

    def _addressed(self, node: ir.Node, index: int, value: AbstractValue | None) -> Moved:
        """Data that a node moves, as addresses."""
        source = node.inputs[index]
        if isinstance(value, Moved):
            return value
        if isinstance(value, Known):
            return self.space.of_array(value.array, ir.DataType.from_numpy(value.array.dtype))
        if value is None or source is None or value.shape is None or value.dtype is None:
            raise NotAMoveError("the shape of its input is not known")
        if int(np.prod(value.shape, dtype=np.int64)) > MOST_ELEMENTS:
            raise NotAMoveError(f"its input has more than {MOST_ELEMENTS} elements")
        return self.space.of_value(source, value.shape, value.dtype)

    def _restore(self, node: ir.Node, arrays: list[Array | None], storage: list[Array | None]) -> None:
        """Record a scatter that stands for an overlapping assignment, and reorder its updates where it is to be in place."""
        to, read, updates = storage[0], storage[2], arrays[2]
        if to is None or read is None or updates is None:
            return
        written = to[scatter_index(node, arrays)]
        if not overlaps(written, read):
            return
        found = statement(node, written, read, self.space)
        self.findings.statements.append(found)
        if self._semantics(found) == "inplace":
            arrays[2] = replay(written, read, updates)
            self.findings.restored.add(node)

    def _opaque(self, node: ir.Node, inputs: list[AbstractValue | None]) -> list[AbstractValue]:
        """The outputs' types alone."""
        types = [None if v is None else self._type(v) for v in inputs]
        known = {i: v.array for i, v in enumerate(inputs) if isinstance(v, Known)}
        try:
            found = output_types(node, types, known, self._opset)
        except InconsistentShapesError:
            self.findings.inconsistent.append(str(node.name))
            return [self._recorded(value) for value in node.outputs]
        recorded = [self._recorded(value) for value in node.outputs]
        return [
            Opaque(new.shape if new.shape is not None else old.shape, new.dtype or old.dtype)
            for new, old in zip(found, recorded, strict=True)
        ]

    @staticmethod
    def _type(value: AbstractValue) -> TensorType:
        if isinstance(value, Known):
            return TensorType(value.shape, ir.DataType.from_numpy(value.array.dtype))
        return TensorType(value.shape, value.dtype)


def _dtype(value: ir.Value) -> ir.DataType | None:
    """The element type of a tensor; None for sequences, optional values, and tensors of unknown type."""
    return value.type.dtype if isinstance(value.type, ir.TensorType) else None
