"""float16 in the graph itself, and what would not survive it.

Precision is a property of the graph, not a switch of the runtime: weights, activations and, where
asked for, input and output have the type that the file says. LayerNormalization stays one operator,
whose mean and variance ONNX computes in float32 (``stash_type`` 1); decomposed, it overflows
(NVIDIA/TensorRT issue 2564).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.exporter import Lowered, scratch_session
from s2mlp_deploy.parity import Array
from s2mlp_deploy.wording import counted

IoDtype: TypeAlias = Literal["fp32", "fp16"]

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def to_float16(model: ir.Model, *, io_dtype: IoDtype = "fp32") -> ir.Model:
    """A copy of ``model`` whose weights and activations are float16.

    With ``io_dtype`` fp32, input and output keep their type and are cast at the border.
    """
    model = model.clone()
    graph = model.graph
    _narrow(graph, ir.DataType.FLOAT16)
    (images,), (logits,) = graph.inputs, graph.outputs
    if io_dtype == "fp16":
        images.type = ir.TensorType(ir.DataType.FLOAT16)
        return model
    uses = list(images.uses())
    narrow = ir.Value(name=f"{images.name}/float16", type=ir.TensorType(ir.DataType.FLOAT16), shape=images.shape)
    cast = ir.node("Cast", [images], {"to": ir.DataType.FLOAT16}, outputs=[narrow], name=str(narrow.name))
    for user, index in uses:
        user.replace_input_with(index, narrow)
    graph.insert_before(graph.node(0), cast)
    _widen(graph, logits, "float16")
    return model


def to_bfloat16(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose weights and activations are bfloat16.

    Input and output stay float32, and so do convolutions, which ONNX has in bfloat16 from opset 22 on.
    bfloat16 has float32's range: nothing overflows that did not before.
    """
    model = model.clone()
    graph = model.graph
    convolutions = [node for node in graph if node.op_type == "Conv"]
    kept = {value.name for node in convolutions for value in node.inputs[1:] if value is not None}
    _narrow(graph, ir.DataType.BFLOAT16, kept)
    for node in convolutions:
        _in_float32(graph, node)
    _widen(graph, graph.outputs[0], "bfloat16")
    return model


def _narrow(graph: ir.Graph, dtype: ir.DataType, kept: Collection[str | None] = ()) -> None:
    """Round the weights, but for those ``kept``, and retype what nodes give."""
    for name, value in list(graph.initializers.items()):
        if name not in kept and value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            rounded = value.const_value.numpy().astype(dtype.numpy())
            value.const_value = ir.Tensor(rounded, dtype=dtype, name=name)
            value.type = ir.TensorType(dtype)
    for node in graph:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(dtype)


def _widen(graph: ir.Graph, logits: ir.Value, narrow: str) -> None:
    """Give the graph's output back in float32, under its own name."""
    name = str(logits.name)
    wide = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=logits.shape)
    logits.name = f"{name}/{narrow}"
    graph.append(ir.node("Cast", [logits], {"to": ir.DataType.FLOAT}, outputs=[wide], name=f"{name}/cast"))
    graph.outputs[0] = wide


def _in_float32(graph: ir.Graph, node: ir.Node) -> None:
    """``node`` between casts; what the graph itself is given is float32 already."""
    x, (y,) = node.inputs[0], node.outputs
    assert x is not None
    if x is not graph.inputs[0]:
        wide = ir.Value(name=f"{node.name}/x/float32", type=ir.TensorType(ir.DataType.FLOAT), shape=x.shape)
        graph.insert_before(node, ir.node("Cast", [x], {"to": ir.DataType.FLOAT}, outputs=[wide], name=str(wide.name)))
        node.replace_input_with(0, wide)
    uses = list(y.uses())
    narrow = ir.Value(name=f"{node.name}/bfloat16", type=ir.TensorType(ir.DataType.BFLOAT16), shape=y.shape)
    y.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(
        node, ir.node("Cast", [y], {"to": ir.DataType.BFLOAT16}, outputs=[narrow], name=str(narrow.name))
    )
    for user, index in uses:
        user.replace_input_with(index, narrow)


def half(lowered: Lowered, inputs: Mapping[str, Array], *, io_dtype: IoDtype, warn: Callable[[str], None]) -> Lowered:
    """``lowered`` in float16, after looking at every layer's values and weights on ``inputs`` (by case).

    Raises:
        ParityError: where a value overflows float16; the layers are named.
    """
    names = tuple(str(v.name) for node in lowered.model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT)
    with scratch_session(lowered) as session:
        found = {**weight_spans(lowered.model), **spans(lambda x: session.trace(x, names), inputs, lowered.axes.batch)}
    if over := {name: s for name, s in found.items() if s.overflows}:
        raise ParityError(
            f"float16 ends at {LARGEST:.0f}, beyond which lie the values of {counted(len(over), 'layer')}: {_list(over, lambda s: f'{s.largest:.3g}')}. "
            "Export with --precision fp32 (or bf16, for TensorRT), or train with weight decay"
        )
    if under := {name: s for name, s in found.items() if s.underflows}:
        shares = _list(under, lambda s: f"{s.vanishing:.1%} of values")
        warn(
            f"float16 turns small values into zero in {counted(len(under), 'layer')}: {shares}. The gate decides whether that matters"
        )
    return replace(lowered, model=to_float16(lowered.model, io_dtype=io_dtype), precision="fp16")


def _list(found: Mapping[str, Span], figure: Callable[[Span], str], limit: int = 6) -> str:
    shown = [f"{name} ({figure(span)})" for name, span in list(found.items())[:limit]]
    return ", ".join(shown) + (f" and {len(found) - limit} more" if len(found) > limit else "")


@dataclass(frozen=True)
class Span:
    """What float16 makes of one layer's values.

    ``largest`` is the largest magnitude; ``vanishing`` the share of values other than zero that are
    too small for float16 and become zero.
    """

    largest: float
    vanishing: float

    @property
    def overflows(self) -> bool:
        """Whether a value rounds to infinity."""
        return not self.largest < LARGEST + 16  # half a step beyond the largest number rounds down

    @property
    def underflows(self) -> bool:
        """Whether more than one value in a thousand is lost."""
        return self.vanishing > 1e-3


def spans(
    observe: Callable[[Array], Mapping[str, Array]], inputs: Mapping[str, Array], batch: int | None = None
) -> dict[str, Span]:
    """Every layer's span over all ``inputs`` (cases of (samples, channels, height, width)), one sample at a time.

    ``batch`` is the size that ``observe`` insists on; a sample is repeated to fill it.
    """
    largest: dict[str, float] = {}
    counts: dict[str, tuple[int, int]] = {}
    for images in inputs.values():
        for image in images:
            for name, x in observe(np.repeat(image[None], batch or 1, axis=0)).items():
                if not x.size:  # with a dynamic size, a small map leaves nothing of some slices
                    continue
                magnitude = np.abs(x)
                nonzero = magnitude > 0
                lost, total = counts.get(name, (0, 0))
                gone = int((nonzero & (magnitude <= SMALLEST / 2)).sum())  # half a step rounds to even
                counts[name] = lost + gone, total + int(nonzero.sum())
                largest[name] = float(np.maximum(largest.get(name, 0.0), magnitude.max()))  # keeps NaN
    return {name: Span(largest[name], lost / max(total, 1)) for name, (lost, total) in counts.items()}


def weight_spans(model: ir.Model) -> dict[str, Span]:
    """The same for the weights."""
    values = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    arrays = {n: t.numpy() for n, t in values.items() if t.dtype == ir.DataType.FLOAT}
    return spans(lambda _: arrays, {"weights": np.zeros((1, 1, 1, 1), np.float32)})
