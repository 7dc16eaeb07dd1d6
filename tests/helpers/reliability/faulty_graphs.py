"""Faults of graphs: of int8's parameters, of rounding to float16, and of heads and tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from helpers import faults as graph_faults
from s2mlp_deploy.passes.precision_pass import PrecisionPass
from s2mlp_deploy.schema.array import Array

LAYER, OTHER = "stage0/block01/fc1", "stage0/block01/fc3"


def tensor(model: ir.Model, name: str) -> Array:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().copy()


def put(model: ir.Model, name: str, array: Array) -> None:
    value = model.graph.initializers[name]
    value.const_value = ir.Tensor(np.array(array, order="C"), name=name)
    value.shape = ir.Shape(array.shape)


def scaled(name: str, factor: float, at: Any = ...) -> Callable[[ir.Model], None]:
    def change(model: ir.Model) -> None:
        array = tensor(model, name)
        array[at] = array[at] * array.dtype.type(factor)
        put(model, name, array)

    return change


def stepped(name: str, at: Any = ...) -> Callable[[ir.Model], None]:
    def change(model: ir.Model) -> None:
        array = tensor(model, name)
        array[at] += 1 if array[at] < np.iinfo(array.dtype).max else -1
        put(model, name, array)

    return change


def requantized(scales: Callable[[Array], Array]) -> Callable[[ir.Model], None]:
    """The weight rounded again, with other scales."""

    def change(model: ir.Model) -> None:
        old, q = tensor(model, f"{LAYER}/weight_scale"), tensor(model, f"{LAYER}/weight_q")
        new = scales(old).astype(np.float32)
        put(model, f"{LAYER}/weight_q", np.clip(np.rint(q * (old / new)[:, None]), -128, 127).astype(np.int8))
        put(model, f"{LAYER}/weight_scale", new)

    return change


def changed(name: str, function: Callable[[Array], Array]) -> Callable[[ir.Model], None]:
    return lambda model: put(model, name, function(tensor(model, name)))


def another_pair(*ends: str) -> Callable[[ir.Model], None]:
    """Quantize or dequantize, or both, with what belongs to another layer."""

    def change(model: ir.Model) -> None:
        initializers = model.graph.initializers
        for node in model.graph:
            if node.name in {f"{LAYER}/{end}" for end in ends}:
                for index, kind in ((1, "x_scale"), (2, "x_zero_point")):
                    node.replace_input_with(index, initializers[f"{OTHER}/{kind}"])

    return change


def without_pair(model: ir.Model) -> None:
    (node,) = (n for n in model.graph if n.name == LAYER)
    dequantize = node.inputs[0].producer()  # type: ignore[union-attr]
    assert dequantize is not None
    quantize = dequantize.inputs[0].producer()  # type: ignore[union-attr]
    node.replace_input_with(0, quantize.inputs[0])  # type: ignore[union-attr]
    model.graph.remove(dequantize, safe=True)
    model.graph.remove(quantize, safe=True)  # type: ignore[arg-type]


X, ZERO, W, WS = f"{LAYER}/x_scale", f"{LAYER}/x_zero_point", f"{LAYER}/weight_q", f"{LAYER}/weight_scale"
B, BS = f"{LAYER}/bias_q", f"{LAYER}/bias_scale"
IN_INT8: dict[str, Callable[[ir.Model], None]] = {
    "weight scale of one channel doubled": scaled(WS, 2, 3),
    "weight scale of one channel 1% off": scaled(WS, 1.01, 3),
    "weight scales of two channels exchanged": changed(WS, lambda s: s[[1, 0, *range(2, len(s))]]),
    "weight scales off by one channel": changed(WS, lambda s: np.roll(s, 1)),
    "one scale for all channels": requantized(lambda s: np.full_like(s, s.max())),
    "weights scaled for 128 steps": requantized(lambda s: s * 127 / 128),
    "weights scaled for half of the steps": requantized(lambda s: s * 2),
    "one weight one step off": stepped(W, (2, 5)),
    "signs of the largest weights flipped": changed(W, lambda q: np.where(q == q.max(), -q, q)),
    "weight transposed": changed(W, np.transpose),
    "weights in 4 bits": changed(W, lambda q: (q // 16 * 16).astype(np.int8)),
    "zero point of one weight channel 1": stepped(f"{LAYER}/weight_zero_point", 4),
    "activation's zero point off by one": stepped(ZERO),
    "activation's scale halved": scaled(X, 0.5),
    "activation's scale doubled": scaled(X, 2),
    "activation's scale 1% off": scaled(X, 1.01),
    "activation scaled for one step less": scaled(X, 255 / 254),
    "activation quantized with another pair's scale": another_pair("quantize"),
    "activation dequantized with another pair's scale": another_pair("dequantize"),
    "both with another pair's scale": another_pair("quantize", "dequantize"),
    "one layer secretly not quantized": without_pair,
    "a float constant beside it changed": scaled("stage0.embedding.weight", 1.001),
    "bias scale doubled": scaled(BS, 2),
    "bias scale of one channel 1% off": scaled(BS, 1.01, 3),
    "bias one step off": stepped(B, 3),
    "bias dropped": changed(B, np.zeros_like),
    "bias saturated at 12 bits": changed(B, lambda b: np.clip(b, -2047, 2047)),
}


def half_changed(kind: type[PrecisionPass], change: Callable[[ir.Model], None]) -> Callable[..., PassResult]:
    """``call`` of the pass ``kind``, whose result ``change`` changes."""
    call = kind.call

    def faulty(self: PrecisionPass, model: ir.Model) -> PassResult:
        result = call(self, model)
        change(result.model)
        return result

    return faulty


def without_layer_norm(model: ir.Model) -> None:
    """The first LayerNorm as separate operators, all of them in float16."""
    graph = model.graph
    norm = next(n for n in graph if n.op_type == "LayerNormalization")
    x, half = norm.inputs[0], ir.TensorType(ir.DataType.FLOAT16)
    assert x is not None
    for name, array in (
        ("axes", np.array([1])),
        ("two", np.array(2, np.float16)),
        ("tiny", np.array(1e-5, np.float16)),
    ):
        value = ir.Value(
            name=name, type=ir.TensorType(ir.DataType(ir.Tensor(array).dtype)), shape=ir.Shape(array.shape)
        )
        value.const_value = ir.Tensor(array, name=name)
        graph.register_initializer(value)
    known = graph.initializers

    def op(kind: str, *inputs: ir.Value) -> ir.Value:
        made = ir.node(kind, inputs, outputs=[ir.Value(name=f"apart/{kind}{len(list(graph))}", type=half)])
        graph.insert_before(norm, made)
        return made.outputs[0]

    centred = op("Sub", x, op("ReduceMean", x, known["axes"]))
    variance = op("ReduceMean", op("Pow", centred, known["two"]), known["axes"])
    y = op("Div", centred, op("Sqrt", op("Add", variance, known["tiny"])))
    ir.convenience.replace_all_uses_with(norm.outputs[0], y)
    graph.remove(norm, safe=True)


def in_constants(function: Callable[[Array], Array], suffix: str = "weight") -> Callable[[ir.Model], None]:
    def change(model: ir.Model) -> None:
        for name in model.graph.initializers:
            if name.endswith(suffix):
                put(
                    model, name, function(tensor(model, name)).astype(np.float16)
                )  # matrices alone have such names here

    return change


def eight_bits(array: Array) -> Array:
    """float16 with the mantissa of bfloat16."""
    return np.ascontiguousarray(graph_faults.truncate(7)(array.astype(np.float32)))


def rewired(op_type: str, change: Callable[[ir.Node], object]) -> Callable[[ir.Model], None]:
    return lambda model: change(next(n for n in model.graph if n.op_type == op_type)) and None


FC1 = "stage0.blocks.0.fc1"
IN_FLOAT16: dict[str, Callable[[ir.Model], None]] = {
    "weights truncated": in_constants(eight_bits),
    "weights of one layer zero": changed(f"{FC1}.weight", np.zeros_like),
    "bias of one layer dropped": changed(f"{FC1}.bias", np.zeros_like),
    "weight transposed": changed(f"{FC1}.weight", np.transpose),
    "one weight beyond float16": scaled(f"{FC1}.weight", np.inf, (0, 0)),
    "weights of one layer a thousandth": scaled(f"{FC1}.weight", 1e-3),
    "small weights lost": in_constants(lambda w: np.where(np.abs(w) < 0.05, 0, w)),
    "ReLU for GELU": rewired("Gelu", lambda n: (setattr(n, "op_type", "Relu"), n.attributes.clear())),
    "classes permuted": changed("head.fc.weight", lambda w: np.roll(w, 1, axis=0)),
    "positions shifted once more": changed("stage0/sources", lambda t: np.roll(t, 4)),
    "normalized along another axis": rewired(
        "LayerNormalization", lambda n: n.attributes.update(epsilon=ir.AttrFloat32("epsilon", 0.1))
    ),
}


def contract(**changes: Any) -> Callable[[Any], Any]:
    """The head is written for another preprocessing than the manifest's."""
    return lambda attach: (
        lambda lowered, kind, preprocessing: attach(lowered, kind, preprocessing.model_copy(update=changes))
    )


def in_attached(change: Callable[[ir.Graph], object]) -> Callable[[Any], Any]:
    def wrap(attach: Any) -> Any:
        def faulty(*arguments: Any) -> ir.Model:
            model: ir.Model = attach(*arguments)
            change(model.graph)
            return model

        return faulty

    return wrap


def find(graph: ir.Graph, op_type: str, which: int = 0) -> ir.Node:
    return [n for n in graph if n.op_type == op_type][which]


def softmax_twice(graph: ir.Graph) -> None:
    first = find(graph, "Softmax")
    (y,) = first.outputs
    name, y.name = y.name, "once"
    uses = list(y.uses())
    again = ir.node("Softmax", [y], {"axis": -1}, outputs=[ir.Value(name=name, type=y.type, shape=y.shape)])
    graph.insert_after(first, again)
    for user, index in uses:
        user.replace_input_with(index, again.outputs[0])
    if y in graph.outputs:
        graph.outputs[0] = again.outputs[0]


def folded(change: Callable[[Array], Array]) -> Callable[[ir.Graph], object]:
    def changed_graph(graph: ir.Graph) -> None:
        name = next(n for n in graph.initializers if n.endswith("embedding.weight.folded"))
        value = graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.Tensor(np.ascontiguousarray(change(value.const_value.numpy())), name=name)

    return changed_graph


def sorted_upwards(graph: ir.Graph) -> None:
    """The best classes, the best one last."""
    top = find(graph, "TopK")
    count = ir.Value(name="from_last", const_value=ir.Tensor(np.arange(4, -1, -1), name="from_last"))
    count.type, count.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([5])
    graph.register_initializer(count)
    for index, old in enumerate(list(graph.outputs)):
        name, old.name = old.name, f"{old.name}/before"
        turned = ir.node(
            "Gather", [old, count], {"axis": 1}, outputs=[ir.Value(name=name, type=old.type, shape=old.shape)]
        )
        graph.append(turned)
        graph.outputs[index] = turned.outputs[0]
    assert top


def best(count: int) -> Callable[[ir.Graph], None]:
    def change(graph: ir.Graph) -> None:
        name = str(find(graph, "TopK").inputs[1].name)  # type: ignore[union-attr]
        graph.initializers[name].const_value = ir.Tensor(np.array([count]), name=name)
        for output in graph.outputs:
            output.shape = ir.Shape(["batch", count])

    return change


def attribute(op_type: str, **values: Any) -> Callable[[ir.Graph], object]:
    return lambda graph: find(graph, op_type).attributes.update(
        {n: (ir.AttrInt64s if isinstance(v, list) else ir.AttrInt64)(n, v) for n, v in values.items()}
    )


HEADS: dict[str, Callable[[Any], Any]] = {
    "mean and std exchanged": contract(mean=(0.25,) * 3, std=(0.5,) * 3),
    "mean 1% off": contract(mean=(0.505,) * 3),
    "std 1% off": contract(std=(0.2525,) * 3),
    "not divided by 255": contract(scale=1.0),
    "divided by 255 twice": contract(scale=1 / 255 / 255),
    "divided by 256": contract(scale=1 / 256),
    "not normalized": contract(mean=(0.0,) * 3, std=(1.0,) * 3),
    "normalized twice": in_attached(folded(lambda w: w / 0.25)),
    "BGR": in_attached(folded(lambda w: w[:, ::-1])),
    "rows for columns": in_attached(folded(lambda w: w.transpose(0, 1, 3, 2))),
}


FITS: dict[str, Callable[[Any], Any]] = {
    "resized by another filter": contract(interpolation="bilinear"),
    "cropped": contract(crop_fraction=0.9),
    "squashed": contract(resize="squash"),
}


TAILS: dict[str, Callable[[Any], Any]] = {
    "softmax twice": in_attached(softmax_twice),
    "softmax over the batch": in_attached(attribute("Softmax", axis=0)),
}


TOPS: dict[str, Callable[[Any], Any]] = {
    "the worst five": in_attached(attribute("TopK", largest=0)),
    "the best one last": in_attached(sorted_upwards),
    "not in order": in_attached(lambda graph: (sorted_upwards(graph), _shuffle(graph))),
    "the best one alone": in_attached(best(1)),
    "six of them": in_attached(best(6)),
    "softmax twice": in_attached(softmax_twice),
}


def _shuffle(graph: ir.Graph) -> None:
    graph.initializers["from_last"].const_value = ir.Tensor(np.array([0, 2, 1, 3, 4]), name="from_last")
