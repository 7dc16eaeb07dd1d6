"""The state of a translation from ONNX to MIL, the language of Core ML's programs: what each value of the ONNX graph has become."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.coreml.toolkit import load

Var: TypeAlias = Any
"""A value of the program, as coremltools has it; an axis of its ``shape`` that grows with the batch is a symbol."""


@dataclass(frozen=True)
class Constant:
    """A constant of the graph, which is written when an operator reads it.

    ``widened`` is a float16 constant that is read as float32. ``scales`` are those of int8 weights, along ``axis``.
    """

    name: str
    array: Array
    widened: bool = False
    scales: Array | None = None
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def transposed(self, axes: tuple[int, ...]) -> Constant:
        """The same with its axes in the order ``axes``."""
        name = self.name if axes == tuple(range(len(axes))) else f"{self.name}/{''.join(map(str, axes))}"
        turned = np.ascontiguousarray(self.array.transpose(axes))
        return replace(self, name=name, array=turned, axis=axes.index(self.axis) if self.scales is not None else 0)


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image, which the ONNX graph takes with channels last and Core ML gives with channels first, as ``planes``."""

    planes: Var


Value: TypeAlias = Var | Constant | Pixels

CHANNELS_FIRST = (0, 3, 1, 2)


class Translation:
    """What is known of the values so far, by their names in the ONNX graph; operators are appended to the open MIL function."""

    def __init__(self) -> None:
        self.mb: Any = load("coremltools.converters.mil").Builder
        self.mb.name_count.clear()  # it numbers constants on through the process
        self._values: dict[str, Value] = {}
        self._written: dict[tuple[str, tuple[int, ...]], Var] = {}
        self._labels: dict[str, str] = {}

    def define(self, name: str, value: Value) -> None:
        """Let the ONNX graph's value ``name`` be ``value``."""
        self._values[name] = value

    def value(self, name: str) -> Value:
        """The ONNX graph's value ``name``."""
        return self._values[name]

    def var(self, node: Node, index: int) -> Var:
        """Input ``index`` of ``node`` as a value of the program, written where it was a constant."""
        value = self._values[node.inputs[index]]
        if isinstance(value, Pixels):
            raise node.refused("it reads an image with channels last")
        return self.written(value)

    def written(self, value: Constant | Var) -> Var:
        """``value`` as a value of the program."""
        return self._constant(value) if isinstance(value, Constant) else value

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

    def label(self, name: str) -> str:
        """The name in the program for ``name``: letters, digits and low lines, as MIL's names are."""
        if name not in self._labels:
            plain = re.sub("[^A-Za-z0-9_]", "_", name)
            taken = {*self._labels.values()}
            self._labels[name] = plain if plain not in taken and plain[:1].isalpha() else f"v{len(taken)}_{plain}"
        return self._labels[name]

    def _constant(self, value: Constant) -> Var:
        key = value.name, value.shape
        if key not in self._written:
            array = value.array.astype(np.int32) if value.array.dtype == np.int64 else value.array
            taken = value.name in self._labels  # by the same constant in another form
            name = f"{value.name}/{'x'.join(map(str, array.shape))}" if taken else value.name
            self._written[key] = self._write(value, np.ascontiguousarray(array), self.label(name))
        return self._written[key]

    def _write(self, value: Constant, array: Array, name: str) -> Var:
        if value.scales is not None:
            return self.mb.constexpr_affine_dequantize(
                quantized_data=array, zero_point=np.int8(0), scale=value.scales, axis=np.int32(value.axis), name=name
            )
        if value.widened:
            return self.mb.constexpr_cast(source_val=array, output_dtype="fp32", name=name)
        return self.mb.const(val=array, name=name)


Emitter: TypeAlias = Callable[[Translation, Node], None]
"""Writes the operators for a node, and defines its outputs."""


def sizes(var: Var) -> tuple[tuple[int, ...], int | None]:
    """The shape of ``var`` for one image, and the axis that grows with the batch; None where the batch is fixed."""
    free = [i for i, n in enumerate(var.shape) if not isinstance(n, (int, np.integer))]
    one = tuple(int(n.subs(dict.fromkeys(n.free_symbols, 1))) if i in free else int(n) for i, n in enumerate(var.shape))
    return one, free[0] if free else None
