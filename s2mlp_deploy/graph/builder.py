"""A thin pen for ONNX graphs: names every node after the layer it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


class Emitter:
    """Collects nodes and initializers in the order they are written."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._values: dict[str, ir.Value] = {}

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """The initializer called ``name``; written once, however often it is asked for."""
        if name not in self.initializers:
            tensor = ir.Tensor(array, name=name)
            self.initializers[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self.initializers[name]

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
        """One node with one output; both are called ``name``."""
        (output,) = self._write(op_type, inputs, name, [name], attributes)
        return output

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, count: int, **attributes: Any
    ) -> list[ir.Value]:
        """One node with ``count`` outputs, called ``name``0, ``name``1, …"""
        return self._write(op_type, inputs, name, [f"{name}{i}" for i in range(count)], attributes)

    def find(self, name: str) -> ir.Value | None:
        """The value called ``name``, if a node has written it."""
        return self._values.get(name)

    def _write(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, outputs: list[str], attributes: dict[str, Any]
    ) -> list[ir.Value]:
        values = [ir.Value(name=output) for output in outputs]
        self.nodes.append(ir.node(op_type, inputs, attributes, outputs=values, name=name))
        self._values.update(zip(outputs, values, strict=True))
        return values
