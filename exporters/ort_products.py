"""Another kernel for int8 products whose result is float, as all in a block are.

    QGemm:                 float((x − zₓ)·Wᵀ + int32(b / (sₓ·s_w))) · sₓ·s_w
    MatMulIntegerToFloat:  float((x − zₓ)·Wᵀ) · sₓ·s_w + b

ONNX Runtime fuses the first from Q/DQ pairs and has the second, too, which adds the bias in float on its
way out instead of copying it into an int32 result first. On x86 with VNNI that is 2 to 4% of a whole model
(docs/benchmarks.md). It is no standard operator, so it belongs into an engine, not into an ONNX bundle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

_DOMAIN = "com.microsoft"
_INPUTS = 9
"""Of QGemm: A, its scale and zero point, B, its own, C, and scale and zero point of a quantized result."""


def rewrite(source: Path, destination: Path) -> int:
    """Write the optimized model ``source`` with the other kernel to ``destination``; returns how many it got."""
    model = ir.load(source)
    graph = model.graph
    fitting = [node for node in graph if _fits(node)]
    for node in fitting:
        _replace(graph, node)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    ir.save(model, destination)
    return len(fitting)


def _fits(node: ir.Node) -> bool:
    """Whether the product reads constant weights (outputs, inputs), as PyTorch stores them, and writes float."""
    if (node.domain, node.op_type) != (_DOMAIN, "QGemm"):
        return False
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    inputs = _inputs(node)
    known = all(value is not None and value.const_value is not None for value in (*inputs[1:3], *inputs[3:6]))
    bias = inputs[6] is None or inputs[6].const_value is not None
    as_stored = (
        not attributes.get("transA", 0) and attributes.get("transB", 0) == 1 and attributes.get("alpha", 1.0) == 1
    )
    return known and bias and as_stored and inputs[7] is None


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    x, x_scale, x_zero, weight, scale, zero, bias = _inputs(node)[:7]
    assert x_scale and weight and scale
    transposed = _constant(graph, f"{weight.name}/transposed", np.ascontiguousarray(_numpy(weight).T))
    inputs = [x, transposed, x_scale, scale, x_zero, zero]
    if bias is not None:
        unit = _numpy(x_scale).astype(np.float64) * _numpy(scale)
        inputs.append(_constant(graph, f"{bias.name}/float", (_numpy(bias) * unit).astype(np.float32)))
    (old,) = node.outputs
    new = ir.node("MatMulIntegerToFloat", inputs, domain=_DOMAIN, name=node.name)
    new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
    graph.insert_after(node, new)
    ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
    name, old.name = old.name, f"{old.name}/replaced"
    graph.remove(node, safe=True)
    new.outputs[0].name = name


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * (_INPUTS - len(node.inputs))]


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _numpy(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()
