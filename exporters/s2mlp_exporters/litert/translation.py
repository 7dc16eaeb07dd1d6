"""The state of a translation from ONNX to LiteRT: the values of the ONNX graph as tensors of the model that is written.

LiteRT's convolutions read channels last, and ONNX's channels first. A transposition is therefore kept as a
:class:`View` until an operator needs the values in that order: those around a convolution cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from s2mlp_deploy.errors import CompilerError
from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.litert.model_writer import Kind, ModelWriter, Result, Scales, Tensor

Axes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A constant of the graph, which is written in the order that its reader needs.

    ``widened`` is a float16 constant that is read as float32. ``scales`` are those of an integer constant.
    """

    name: str
    array: Array
    widened: bool = False
    scales: Scales | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


@dataclass(frozen=True)
class View:
    """``base`` with its axes in the order ``axes``, as ``numpy.transpose`` orders them."""

    base: Tensor
    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape[i] for i in self.axes)


@dataclass(frozen=True)
class Restored:
    """Integers with scales, read as the float32 numbers that they stand for: called ``name`` in the ONNX graph."""

    name: str
    integers: Tensor | View

    @property
    def shape(self) -> tuple[int, ...]:
        return self.integers.shape


@dataclass(frozen=True)
class Pending:
    """An operator on integers, which is written as soon as the scales of its output are known.

    ``result`` is that of the float32 operator, and ``axes`` the order in which it is read, as in :class:`View`.
    """

    kind: Kind
    inputs: tuple[Value | None, ...]
    result: Result
    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.result.shape[i] for i in self.axes)


Value: TypeAlias = "Tensor | Constant | View | Restored | Pending"


class Translation:
    """What is known of the values so far, by their names in the ONNX graph, and the model that is written.

    ``whole`` is a graph whose values are all int8: no operator may compute with floats.
    """

    def __init__(self, writer: ModelWriter, *, whole: bool = False) -> None:
        self.writer, self.whole = writer, whole
        self._values: dict[str, Value] = {}
        self._written: dict[tuple[str, Axes], Tensor] = {}

    def define(self, name: str, value: Value) -> None:
        """Let the ONNX graph's value ``name`` be ``value``."""
        self._values[name] = value

    def value(self, name: str) -> Value:
        """The ONNX graph's value ``name``, as it lies."""
        return self._values[name]

    def tensor(self, name: str) -> Tensor:
        """The same as a tensor, written where it was a constant or a view."""
        return self.written(self._values[name])

    def array(self, node: Node, index: int) -> Array:
        """The constant that is input ``index`` of ``node``.

        Raises:
            CompilerError: where that is computed by the graph.
        """
        value = self._values[node.inputs[index]]
        if not isinstance(value, Constant) or value.scales is not None:
            raise node.refused(f"its input {node.inputs[index]} is not a constant")
        return value.array

    def integers(self, node: Node, index: int) -> tuple[int, ...]:
        """The same of a constant of integers."""
        return tuple(int(n) for n in self.array(node, index).reshape(-1))

    def written(self, value: Value) -> Tensor:
        """``value`` as a tensor of the model."""
        value = self.restored(value)
        if isinstance(value, Constant):
            return self._constant(value)
        return self._ordered(value) if isinstance(value, View) else value

    def restored(self, value: Value) -> Tensor | Constant | View:
        """``value`` in float32, where it was integers with scales.

        Raises:
            CompilerError: where it is of an operator on integers that writes none, as LiteRT has none.
        """
        if isinstance(value, Pending):
            raise CompilerError(
                f"--format litert cannot express {value.result.name}: it reads integers and gives floats, and LiteRT's products "
                "give integers. Export the checkpoint with --target litert"
            )
        if not isinstance(value, Restored):
            return value
        if self.whole:
            raise CompilerError(
                f"--format litert has no operator on int8 that reads {value.name}: export with --target litert"
            )
        base, axes = self.base(value.integers)
        key = value.name, axes
        if key not in self._written:
            name = value.name if axes == identity(axes) else f"{value.name}/base"
            kind = Kind("DEQUANTIZE", "DequantizeOptions", version=2)
            self._written[key] = self.add(kind, [base], Result(name, base.shape, base.free))
        return self.viewed(self._written[key], axes)

    @staticmethod
    def base(value: Tensor | View) -> tuple[Tensor, Axes]:
        """The tensor that ``value`` is, and the order in which it is read."""
        return (value.base, value.axes) if isinstance(value, View) else (value, identity(value.shape))

    @staticmethod
    def viewed(tensor: Tensor, axes: Axes) -> Tensor | View:
        """``tensor`` with its axes in the order ``axes``."""
        return tensor if axes == identity(axes) else View(tensor, axes)

    def quantized(self, value: Value, scales: Scales, name: str) -> Tensor | View:
        """``value`` as integers of ``scales``, called ``name``."""
        if isinstance(value, Pending):
            result = replace(value.result, name=name, dtype=np.dtype(np.int8), scales=scales)
            return self.viewed(self.add(value.kind, list(value.inputs), result), value.axes)
        if isinstance(value, Restored) and scales.same(self.base(value.integers)[0].scales):
            return value.integers
        value = self.restored(value)
        base, axes = self.base(self.written(value) if isinstance(value, Constant) else value)
        result = Result(name, base.shape, base.free, np.dtype(np.int8), scales)
        return self.viewed(self.add(Kind("QUANTIZE", "QuantizeOptions"), [base], result), axes)

    def integers_of(self, value: Value) -> Tensor:
        """Restored ``value``, or a constant with scales, as the integers that it is.

        Raises:
            CompilerError: where it is in float.
        """
        if isinstance(value, Restored):
            return self.written(value.integers)
        if isinstance(value, Constant) and value.scales is not None:
            return self.written(value)
        named = value.result if isinstance(value, Pending) else value.base if isinstance(value, View) else value
        raise CompilerError(
            f"--format litert needs {named.name} in int8, and it is in float: export with --target litert-micro"
        )

    def transposed(self, value: Value, axes: Axes) -> Value:
        """``value`` with its axes in the order ``axes``; nothing is computed."""
        if isinstance(value, Constant):
            name = value.name if axes == identity(axes) else f"{value.name}/{''.join(map(str, axes))}"
            scales = value.scales and replace(value.scales, axis=axes.index(value.scales.axis))
            return replace(value, name=name, array=np.ascontiguousarray(value.array.transpose(axes)), scales=scales)
        if isinstance(value, Pending):
            return replace(value, axes=tuple(value.axes[i] for i in axes))
        if isinstance(value, Restored):
            base, old = self.base(value.integers)
            return replace(value, integers=self.viewed(base, tuple(old[i] for i in axes)))
        base, old = self.base(value)
        return self.viewed(base, tuple(old[i] for i in axes))

    def add(self, kind: Kind, inputs: list[Value | None], result: Result) -> Tensor:
        """Append an operator to the model."""
        return self.writer.operator(kind, [None if x is None else self.written(x) for x in inputs], result)

    def _constant(self, value: Constant) -> Tensor:
        key = value.name, value.shape
        if key not in self._written:
            array = value.array.astype(np.int32) if value.array.dtype == np.int64 else value.array
            tensor = self.writer.constant(value.name, array, value.scales)
            if value.widened:
                result = Result(f"{value.name}/float32", tensor.shape, None)
                tensor = self.writer.operator(Kind("DEQUANTIZE", "DequantizeOptions", version=3), [tensor], result)
            self._written[key] = tensor
        return self._written[key]

    def _ordered(self, view: View) -> Tensor:
        key = view.base.name, view.axes
        if key not in self._written:
            base = view.base
            axes = Constant(f"axes{''.join(map(str, view.axes))}", np.array(view.axes, np.int32))
            free = None if base.free is None else view.axes.index(base.free)
            result = base.like(f"{base.name}/{''.join(map(str, view.axes))}", view.shape, free)
            kind = Kind("TRANSPOSE", "TransposeOptions", version=of_bytes(base))
            self._written[key] = self.add(kind, [base, axes], result)
        return self._written[key]


Emitter: TypeAlias = Callable[[Translation, Node], None]
"""Writes the operators for a node, and defines its outputs."""


def identity(axes: Sequence[int]) -> Axes:
    """The order that leaves as many axes as ``axes`` has where they are."""
    return tuple(range(len(axes)))


def of_bytes(tensor: Tensor) -> int:
    """The version of an operator that moves values of ``tensor``: the second takes int8."""
    return 2 if tensor.dtype == np.int8 else 1


def of_batch(shape: tuple[int, ...], free: int | None) -> list[int]:
    """``shape`` as an operator's argument: −1 for the axis that grows with the batch."""
    return [-1 if i == free else n for i, n in enumerate(shape)]


def int32(name: str, values: list[int] | tuple[int, ...]) -> Constant:
    """A constant of integers, named by its values after ``name``: those that are equal are written once."""
    return Constant(f"{name}{'x'.join(map(str, values))}", np.array(values, np.int32))
