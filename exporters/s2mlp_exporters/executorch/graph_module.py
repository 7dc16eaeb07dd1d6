"""A bundle's ONNX graph as a PyTorch module, which PyTorch can export again, operator by operator.

PyTorch and ExecuTorch then see the graph that was verified, with its folds and its shift, not code that says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.schema.array import Array

if TYPE_CHECKING:
    import onnx_ir as ir

FORMAT = "executorch"


class Values:
    """The values of one run of a graph, by their names: constants, and tensors as they are computed."""

    def __init__(self, module: GraphModule, inputs: Mapping[str, Tensor]) -> None:
        self._module = module
        self._computed = dict(inputs)
        self._restored: dict[str, str] = {}

    def define(self, node: Node, values: Sequence[Tensor]) -> None:
        """Let the outputs of ``node`` be ``values``."""
        self._computed.update(zip(node.outputs, values, strict=True))
        if node.operator == "DequantizeLinear":
            self._restored[node.outputs[0]] = node.inputs[0]

    def is_restored(self, name: str) -> bool:
        """Whether the value called ``name`` was dequantized."""
        return name in self._restored

    def tensor(self, name: str) -> Tensor:
        """The value called ``name``."""
        return self._computed[name] if name in self._computed else self._module.constant(name)

    def is_weight(self, name: str) -> bool:
        """Whether the value called ``name`` is a constant, or the restored values of one."""
        return self._restored.get(name, name) not in self._computed

    def array(self, node: Node, index: int) -> Array:
        """The constant that is input ``index`` of ``node``.

        Raises:
            CompilerError: where that is computed by the graph.
        """
        found = self._module.arrays.get(node.inputs[index])
        if found is None:
            raise node.refused(f"its input {node.inputs[index]} is not a constant")
        return found

    def integers(self, node: Node, index: int) -> list[int]:
        """The same of a constant of integers."""
        return [int(n) for n in self.array(node, index).reshape(-1)]

    def zeros(self, count: int) -> Tensor:
        """The zero points (count) of symmetric weights."""
        return self._module.constant(_zeros(count))

    def averaging(self, channels: int) -> Tensor:
        """A row (1, channels) whose product with a vector is the vector's mean."""
        return self._module.constant(_averaging(channels))


Operator: TypeAlias = Callable[[Values, Node], Tensor | Sequence[Tensor]]
"""Computes the outputs of a node."""


class GraphModule(nn.Module):
    """The ONNX ``model`` as a module of ``operators``: its one input to its one output.

    Raises:
        CompilerError: where a node's operator is not among ``operators``.
    """

    def __init__(self, model: ir.Model, operators: Mapping[str, Operator]) -> None:
        super().__init__()
        self.nodes = tuple(Node.of(node, FORMAT) for node in model.graph)
        for node in self.nodes:
            node.translated_by(operators)
        self.operators = operators
        (self.input,), (self.output,) = _names(model.graph.inputs), _names(model.graph.outputs)
        self.arrays = {str(name): _array(value) for name, value in model.graph.initializers.items()}
        self.arrays |= {node.outputs[0]: _bias(node, self.arrays) for node in self.nodes if self._restores_a_bias(node)}
        self.nodes = tuple(node for node in self.nodes if node.outputs[0] not in self.arrays)
        self._places: dict[str, str] = {}
        for name, array in {**self._tensors(), **self._averages(), **self._zero_points()}.items():
            self._places[name] = f"constant{len(self._places)}"
            self.register_buffer(self._places[name], torch.from_numpy(array.copy()))

    def forward(self, images: Tensor) -> Tensor:
        values = Values(self, {self.input: images})
        for node in self.nodes:
            made = self.operators[node.operator](values, node)
            values.define(node, [made] if isinstance(made, Tensor) else made)
        return values.tensor(self.output)

    def constant(self, name: str) -> Tensor:
        """The constant called ``name`` as a tensor."""
        return self.get_buffer(self._places[name])

    def _restores_a_bias(self, node: Node) -> bool:
        """Whether ``node`` dequantizes a constant of int32: XNNPACK rounds biases itself, by the same two scales."""
        value = self.arrays.get(node.inputs[0])
        return node.operator == "DequantizeLinear" and value is not None and value.dtype == np.int32

    def _tensors(self) -> dict[str, Array]:
        """The constants that operators compute with; others are shapes, places, and scales of whole activations."""
        rows = {node.inputs[1] for node in self.nodes if node.operator == "Gather"}
        read = {name for node in self.nodes for name in node.inputs[: self._count_of_tensors(node)]}
        return {name: a for name, a in self.arrays.items() if name in read and (a.dtype != np.int64 or name in rows)}

    def _count_of_tensors(self, node: Node) -> int:
        """How many of the inputs of ``node`` are tensors, which come first: one where it has a scale for all values."""
        quantizes = node.operator in ("QuantizeLinear", "DequantizeLinear")
        return len(node.inputs) if not quantizes else 2 if node.inputs[0] in self.arrays else 1

    def _averages(self) -> dict[str, Array]:
        counts = {self.arrays[n.inputs[1]].size for n in self.nodes if n.operator == "LayerNormalization"}
        return {_averaging(n): np.full((1, n), 1 / n, np.float32) for n in sorted(counts)}

    def _zero_points(self) -> dict[str, Array]:
        counts = {self.arrays[node.inputs[1]].size for node in self.nodes if node.operator == "DequantizeLinear"}
        return {_zeros(n): np.zeros(n, np.int64) for n in sorted(counts)}


def _zeros(count: int) -> str:
    return f"zeros {count}"


def _bias(node: Node, arrays: Mapping[str, Array]) -> Array:
    bias, scales = arrays[node.inputs[0]], arrays[node.inputs[1]]
    restored: Array = (bias * scales.astype(np.float64)).astype(np.float32)
    return restored


def _averaging(channels: int) -> str:
    return f"averaging {channels}"


def _names(values: Iterable[ir.Value]) -> list[str]:
    return [str(value.name) for value in values]


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    array: Array = value.const_value.numpy()
    return array
