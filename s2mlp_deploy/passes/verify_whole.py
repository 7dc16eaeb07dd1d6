"""Compare a graph that is int8 throughout with the float32 graph that it was made from, number by number.

As verify_rewrite does where layers alone are int8. Only the graphs are read here, not the pass that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import array_of, constant_of
from s2mlp_deploy.passes.moves import MOVES, is_data
from s2mlp_deploy.passes.recipe import Range, Recipe
from s2mlp_deploy.passes.verify_rewrite import (
    DQ,
    HALF,
    PRODUCT,
    Q,
    QuantizedLayer,
    comes_from,
    covers,
    kind_of,
    made_by,
    restored_constant,
)

RangeOf = Callable[[ir.Node | None, str], Range]
"""The range that a value of the float32 graph is quantized for, by the node that makes it (None for the input) and its name."""

_LAYERS = ("Conv", "Gemm")


def differences(graph: ir.Graph, original: ir.Graph, range_of: RangeOf, recipe: Recipe) -> Iterator[str]:
    """Each difference of ``graph`` from ``original`` with every value in int8, in words."""
    nodes = [node for node in graph if node.op_type not in (Q, DQ)]
    output = str(original.outputs[0].name)
    renamed = {f"{output}{PRODUCT}": output}
    if [kind_of(node, renamed)[:4] for node in nodes] != [kind_of(node)[:4] for node in original]:
        yield "its operators are others"
        return
    if [value.name for value in graph.outputs] != [output] or not comes_from(graph.outputs[0], {f"{output}{PRODUCT}"}):
        yield "its output is another"
    yield from _unquantized(graph.inputs[0], range_of(None, str(original.inputs[0].name)), recipe)
    for node, old in zip(nodes, original, strict=True):
        if old.op_type in MOVES:
            yield from _moved_otherwise(node, old)
            continue
        yield from _unquantized(node.outputs[0], range_of(old, str(old.outputs[0].name)), recipe)
        yield from _read_otherwise(node, old, range_of, recipe)


def _unquantized(value: ir.Value, wanted: Range, recipe: Recipe) -> Iterator[str]:
    """Differences in how ``value`` is quantized, and whether something reads it as it is."""
    readers = [node for node, _ in value.uses()]
    if len(readers) != 1 or readers[0].op_type != Q:
        yield f"{value.name} is not quantized"
        return
    scale, zero_point = (constant_of(v) for v in readers[0].inputs[1:])
    if scale.shape or zero_point.shape or not covers(recipe, (scale, zero_point), wanted):
        yield f"{value.name} is quantized for another range than {wanted.low:.4g} to {wanted.high:.4g}"


def _moved_otherwise(node: ir.Node, old: ir.Node) -> Iterator[str]:
    """Differences in a node that moves bytes: its tables are the same, and zeros that it adds are the zero point."""
    for index, value in enumerate(old.inputs):
        new = node.inputs[index]
        if is_data(old, index) or value is None:
            continue
        if index == 2 and old.op_type == "Pad":  # the number that pads, which is 0
            continue
        if new is None or not np.array_equal(constant_of(new), constant_of(value)):
            yield f"input {index} of {node.name} is another"
    if len(node.inputs) > 2 and node.op_type == "Pad" and array_of(old.inputs[2] if len(old.inputs) > 2 else None):
        yield f"{node.name} pads with another number than 0"


def _read_otherwise(node: ir.Node, old: ir.Node, range_of: RangeOf, recipe: Recipe) -> Iterator[str]:
    """Differences in what ``node`` reads: the restored values that the float32 node reads, and constants next to its own."""
    for index, (new, value) in enumerate(zip(node.inputs, old.inputs, strict=True)):
        if value is None or new is None:
            if new is not value:
                yield f"input {index} of {node.name} is another"
        elif value.const_value is None:
            source = _source(value)
            output = {f"{source.name}{PRODUCT}"}
            if not comes_from(new, {str(source.name), *output}):
                yield f"input {index} of {node.name} is another, or is quantized in one way and read in another"
        elif not (old.op_type in _LAYERS and index) and not _is_near(new, value):
            yield f"input {index} of {node.name} is another"
    if old.op_type in _LAYERS:
        source = _source(old.inputs[0])
        wanted = range_of(source.producer(), str(source.name))
        yield from QuantizedLayer(node, old, recipe).differences(wanted, {str(source.name)})


def _source(value: ir.Value | None) -> ir.Value:
    """The computed value whose numbers ``value`` holds."""
    assert value is not None
    node = value.producer()
    if node is None or node.op_type not in MOVES:
        return value
    return _source(next(v for i, v in enumerate(node.inputs) if is_data(node, i)))


def _is_near(new: ir.Value, old: ir.Value) -> bool:
    """Whether a constant is the same, or int8 and within half of the step that 8 bits allow for it."""
    wanted = constant_of(old)
    if made_by(new, DQ) is None:
        return new.const_value is not None and np.array_equal(constant_of(new), wanted)
    restored = restored_constant(new)
    return restored is not None and bool(np.all(np.abs(restored.value - wanted) <= HALF * np.abs(wanted).max() / 127))
