"""A catalogue of what goes wrong in exports, each fault injected alone into an otherwise healthy one.

A fault takes the right spec and weights and returns a graph that computes something slightly else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.families.s2mlp_v2.spec import PARTS, S2MLPv2Spec
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift

Weights = dict[str, Array]
Fault = Callable[[StagedSpec, Weights], ir.Model]

BLOCK = "stages.0.blocks.2"


def healthy(spec: StagedSpec, weights: Weights, lowering: str = "gather") -> ir.Model:
    return optimize(family_of(spec).emit(spec, weights, LOWERINGS[lowering], Axes(None, spec.image_size)))


def in_shift(shift: Shift, lowering: str = "gather") -> Fault:
    return lambda spec, weights: healthy(spec.with_shift(shift), weights, lowering)


def in_spec(**changes: object) -> Fault:
    return lambda spec, weights: healthy(replace(spec, **changes), weights)  # type: ignore[arg-type]


def in_weights(change: Callable[[Weights], object]) -> Fault:
    def fault(spec: StagedSpec, weights: Weights) -> ir.Model:
        changed = {name: array.copy() for name, array in weights.items()}
        change(changed)
        return healthy(spec, changed)

    return fault


def in_graph(change: Callable[[ir.Graph], object], lowering: str = "gather") -> Fault:
    def fault(spec: StagedSpec, weights: Weights) -> ir.Model:
        model = healthy(spec, weights, lowering)
        change(model.graph)
        return model

    return fault


def without(name: str) -> Fault:
    """A parameter replaced by its neutral value."""

    def change(weights: Weights) -> None:
        weights[name][:] = 1 if "norm" in name and name.endswith("weight") else 0

    return in_weights(change)


def swap(a: str, b: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for kind in ("weight", "bias"):
            one, other = f"{a}.{kind}", f"{b}.{kind}"
            weights[one], weights[other] = weights[other], weights[one]

    return change


def swap_blocks(weights: Weights) -> None:
    for layer in ("norm1", "fc1", "fc2", "norm2", "fc3", "fc4"):
        swap(f"stages.0.blocks.2.{layer}", f"stages.0.blocks.3.{layer}")(weights)


def skip_block(weights: Weights) -> None:
    for layer in ("fc2", "fc4"):
        for kind in ("weight", "bias"):
            weights[f"{BLOCK}.{layer}.{kind}"][:] = 0


def transform(name: str, function: Callable[[Array], Array]) -> Fault:
    def change(weights: Weights) -> None:
        weights[name] = np.ascontiguousarray(function(weights[name]))

    return in_weights(change)


def round_all(function: Callable[[Array], Array]) -> Fault:
    def change(weights: Weights) -> None:
        for name, array in weights.items():
            weights[name] = function(array)

    return in_weights(change)


def truncate(bits: int) -> Callable[[Array], Array]:
    """Keep this many mantissa bits, as bfloat16 (7) and TF32 (10) do."""
    mask = np.uint32((0xFFFFFFFF << (23 - bits)) & 0xFFFFFFFF)
    return lambda array: (np.ascontiguousarray(array).view(np.uint32) & mask).view(np.float32)


def set_constant(name: str, function: Callable[[Array], Array]) -> Callable[[ir.Graph], None]:
    def change(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.Tensor(np.ascontiguousarray(function(value.const_value.numpy())), name=name)

    return change


def node(graph: ir.Graph, name: str) -> ir.Node:
    return next(n for n in graph if n.name == name)


def replace_gelu(build: Callable[[ir.Graph, ir.Value], ir.Value], count: int = 1) -> Callable[[ir.Graph], None]:
    """Another activation in the place of the first ``count`` GELUs."""

    def change(graph: ir.Graph) -> None:
        for gelu in [n for n in graph if n.op_type == "Gelu"][:count]:
            assert gelu.inputs[0] is not None
            after = gelu.inputs[0].producer()
            before = list(graph)
            new = build(graph, gelu.inputs[0])
            added = [n for n in graph if n not in before]
            assert after is not None
            for n in added:
                graph.remove(n)
            graph.insert_after(after, added)
            ir.convenience.replace_all_uses_with(gelu.outputs[0], new)
            graph.remove(gelu, safe=True)

    return change


def append(graph: ir.Graph, op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
    new = ir.node(op, inputs, attributes, outputs=[ir.Value(name=f"fault{len(list(graph))}")])  # type: ignore[arg-type]
    graph.append(new)
    return new.outputs[0]


def scalar(graph: ir.Graph, value: float) -> ir.Value:
    name = f"scalar{value}"
    if name not in graph.initializers:
        tensor = ir.Tensor(np.array(value, np.float32), name=name)
        new = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([]), const_value=tensor)
        graph.register_initializer(new)
    return graph.initializers[name]


def tanh_gelu(graph: ir.Graph, x: ir.Value) -> ir.Value:
    return append(graph, "Gelu", x, approximate="tanh")


def sigmoid_gelu(graph: ir.Graph, x: ir.Value) -> ir.Value:
    return append(graph, "Mul", x, append(graph, "Sigmoid", append(graph, "Mul", x, scalar(graph, 1.702))))


def relu(graph: ir.Graph, x: ir.Value) -> ir.Value:
    return append(graph, "Relu", x)


def drop_residual(name: str) -> Callable[[ir.Graph], None]:
    def change(graph: ir.Graph) -> None:
        add = node(graph, name)
        assert add.inputs[1] is not None
        ir.convenience.replace_all_uses_with(add.outputs[0], add.inputs[1])
        graph.remove(add, safe=True)

    return change


def max_instead_of_mean(graph: ir.Graph) -> None:
    node(graph, "head/mean").op_type = "ReduceMax"


def sum_instead_of_mean(graph: ir.Graph) -> None:
    node(graph, "head/mean").op_type = "ReduceSum"


def shift_twice(graph: ir.Graph) -> None:
    gather = node(graph, "stage0/block02/shift/gather")
    again = ir.node("Gather", [gather.outputs[0], gather.inputs[1]], {"axis": 1}, name="again")
    ir.convenience.replace_all_uses_with(gather.outputs[0], again.outputs[0])
    again.replace_input_with(0, gather.outputs[0])
    graph.insert_after(gather, again)


def zero_padding(graph: ir.Graph) -> None:
    for n in graph:
        if n.op_type == "Pad":
            n.attributes["mode"] = ir.AttrString("mode", "constant")


def reflect_padding(graph: ir.Graph) -> None:
    for n in graph:
        if n.op_type == "Pad":
            n.attributes["mode"] = ir.AttrString("mode", "reflect")


def in_group(group: int, change: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Change the positions (7 · 7) that one group of channels reads, in the table for all four."""

    def changed(table: Array) -> Array:
        rows = table.reshape(-1, 4).copy()
        rows[:, group] = change(rows[:, group] // 4) * 4 + group
        return rows.reshape(-1)

    return changed


def wrap_around(positions: Array) -> Array:
    return np.roll(np.arange(positions.size).reshape(7, 7), 1, axis=0).reshape(-1)


def one_stays(positions: Array) -> Array:
    return np.where(np.arange(positions.size) == 24, 24, positions)


def groups_exchanged(table: Array) -> Array:
    return table.reshape(-1, 4)[:, [0, 1, 3, 2]].reshape(-1)


def zero_scale(array: Array) -> Array:
    return array * np.sqrt(95 / 96).astype(np.float32)


def nearly(array: Array) -> Array:
    return (array * (1 + 1e-4 * np.random.default_rng(0).standard_normal(array.shape))).astype(np.float32)


def one_sign(array: Array) -> Array:
    array = array.copy()
    array[5, 7] *= -1
    return array


def one_row_zero(array: Array) -> Array:
    array = array.copy()
    array[11] = 0
    return array


D4 = DIRECTIONS["4"]
FAULTS: dict[str, Fault] = {
    # the shift
    "up and down swapped": in_shift(Shift((D4[1], D4[0], D4[2], D4[3]))),
    "left and right swapped": in_shift(Shift((D4[0], D4[1], D4[3], D4[2]))),
    "axes swapped": in_shift(Shift((D4[2], D4[3], D4[0], D4[1]))),
    "groups rotated": in_shift(Shift((D4[1], D4[2], D4[3], D4[0]))),
    "distance 2": in_shift(Shift(tuple((2 * h, 2 * w) for h, w in D4))),
    "one group does not move": in_shift(Shift((D4[0], D4[1], D4[2], (0, 0)))),
    "no shift": in_shift(Shift(((0, 0),) * 4)),
    "eight directions": in_shift(Shift(DIRECTIONS["8"])),
    "in-place semantics": in_shift(Shift(D4, "inplace")),
    "border zeroed (slice)": in_shift(Shift(D4, border="zero"), "slice"),
    "border wraps around (slice)": in_shift(Shift(D4, border="wrap"), "slice"),
    "border zeroed (pad)": in_graph(zero_padding, "pad"),
    "border zeroed (conv)": in_graph(zero_padding, "conv"),
    "border reflected": in_graph(reflect_padding, "pad"),
    "border wraps around": in_graph(set_constant("stage0/sources", in_group(0, wrap_around))),
    "one position wrong": in_graph(set_constant("stage0/sources", in_group(2, one_stays))),
    "two groups exchanged": in_graph(set_constant("stage0/sources", groups_exchanged)),
    "groups split off by one": in_graph(
        set_constant("groups_24_24_24_24", lambda _: np.array([25, 23, 24, 24])), "slice"
    ),
    "one block shifts twice": in_graph(shift_twice),
    # normalization and activation
    "epsilon 1e-6": in_spec(norm_epsilon=1e-6),
    "epsilon 1e-4": in_spec(norm_epsilon=1e-4),
    "gamma dropped": without(f"{BLOCK}.norm1.weight"),
    "beta dropped": without(f"{BLOCK}.norm2.bias"),
    "norms swapped": in_weights(swap(f"{BLOCK}.norm1", f"{BLOCK}.norm2")),
    "unbiased variance": in_graph(set_constant("ones96", zero_scale)),
    "GELU approximated by tanh": in_graph(replace_gelu(tanh_gelu)),
    "GELU approximated by a sigmoid": in_graph(replace_gelu(sigmoid_gelu)),
    "ReLU for GELU": in_graph(replace_gelu(relu)),
    # weights
    "bias of fc1 dropped": without(f"{BLOCK}.fc1.bias"),
    "bias of fc4 dropped": without(f"{BLOCK}.fc4.bias"),
    "bias of the embedding dropped": without("stages.0.embedding.bias"),
    "bias of the head dropped": without("head.fc.bias"),
    "square weight transposed": transform(f"{BLOCK}.fc1.weight", np.transpose),
    "fc1 and fc2 swapped": in_weights(swap(f"{BLOCK}.fc1", f"{BLOCK}.fc2")),
    "blocks swapped": in_weights(swap_blocks),
    "block skipped": in_weights(skip_block),
    "patch transposed": transform("stages.0.embedding.weight", lambda w: w.transpose(0, 1, 3, 2)),
    "patch flipped": transform("stages.0.embedding.weight", lambda w: w[:, :, ::-1]),
    "BGR": transform("stages.0.embedding.weight", lambda w: w[:, ::-1]),
    "classes permuted": transform("head.fc.weight", lambda w: np.roll(w, 1, axis=0)),
    "one sign flipped": transform(f"{BLOCK}.fc3.weight", one_sign),
    "one hidden channel lost": transform(f"{BLOCK}.fc3.weight", one_row_zero),
    "weights of another epoch": transform(f"{BLOCK}.fc4.weight", nearly),
    "weights rounded to bfloat16": round_all(truncate(7)),
    "weights rounded to TF32": round_all(truncate(10)),
    "weights rounded to float16": round_all(lambda a: a.astype(np.float16).astype(np.float32)),
    # structure
    "first residual dropped": in_graph(drop_residual("stage0/block02/add1")),
    "second residual dropped": in_graph(drop_residual("stage0/block02")),
    "maximum over positions": in_graph(max_instead_of_mean),
    "sum over positions": in_graph(sum_instead_of_mean),
}


def in_parts(change: Callable[[Shift], tuple[Shift | None, ...]]) -> Fault:
    """Other shifts of the parts of a block of S²-MLPv2."""

    @dataclass(frozen=True)
    class Other(S2MLPv2Spec):
        @property
        def parts(self) -> tuple[Shift | None, ...]:
            return change(self.shift)

    return lambda spec, weights: healthy(Other(**{f.name: getattr(spec, f.name) for f in fields(spec)}), weights)


def in_every(layer: str, function: Callable[[Array], Array]) -> Fault:
    """Change the weight of that layer in every block."""

    def change(weights: Weights) -> None:
        for name in [name for name in weights if name.endswith(f".{layer}.weight")]:
            weights[name] = np.ascontiguousarray(function(weights[name]))

    return in_weights(change)


def softmax_over_channels(graph: ir.Graph) -> None:
    for n in graph:
        if n.op_type == "Softmax":
            n.attributes["axis"] = ir.AttrInt64("axis", 2)


def sums_before_the_shift(graph: ir.Graph) -> None:
    """The attention is computed from values that have not moved yet."""
    for n in [n for n in graph if str(n.name).endswith("/sum_of_positions/groups0")]:
        block = str(n.name).removesuffix("/sum_of_positions/groups0")
        n.replace_input_with(0, node(graph, f"{block}/fc1").outputs[0])


def mean_over_positions(graph: ir.Graph) -> None:
    for n in graph:
        if "/sum_of_positions" in str(n.name) and n.op_type == "ReduceSum":
            n.op_type = "ReduceMean"


def tanh_in_attention(graph: ir.Graph) -> None:
    for n in graph:
        if str(n.name).endswith("/attention_gelu"):
            n.attributes["approximate"] = ir.AttrString("approximate", "tanh")


FAULTS_OF_V2: dict[str, Fault] = {
    "parts swapped": in_parts(lambda shift: (shift.mirrored, shift, None)),
    "first part does not move": in_parts(lambda shift: (None, shift.mirrored, None)),
    "second part does not move": in_parts(lambda shift: (shift, None, None)),
    "last part moves": in_parts(lambda shift: (shift, shift.mirrored, shift)),
    "second part as the first": in_parts(lambda shift: (shift, shift, None)),
    "in-place semantics": in_shift(Shift(D4, "inplace")),
    "softmax over channels": in_graph(softmax_over_channels),
    "attention scaled": in_every("attention2", lambda w: w * np.float32(1.01)),
    "attention divided by the root of its width": in_every("attention2", lambda w: w / np.float32(np.sqrt(w.shape[1]))),
    "attention left out": in_every("attention2", np.zeros_like),
    "attention from means": in_graph(mean_over_positions),
    "attention from values before the shift": in_graph(sums_before_the_shift),
    "weights of the parts rotated": in_every("attention2", lambda w: np.roll(w, len(w) // PARTS, axis=0)),
    "weights of the parts interleaved": in_every(
        "attention2", lambda w: w.reshape(PARTS, -1, w.shape[1]).swapaxes(0, 1).reshape(w.shape)
    ),
    "GELU of the attention approximated by tanh": in_graph(tanh_in_attention),
}
"""What goes wrong in the blocks of S²-MLPv2 alone."""


def positions_by_column(matrix: Array) -> Array:
    """A matrix that reads the positions of a map of 5 by 7 column by column."""
    return matrix.reshape(-1, 5, 7).swapaxes(1, 2).reshape(matrix.shape)


FAULTS_OF_MIXER: dict[str, Fault] = {
    "positions read by column": transform("block1.token1.weight", positions_by_column),
    "positions written by column": transform("block1.token2.weight", lambda w: positions_by_column(w.T).T),
    "bias over hidden positions dropped": without("block0.token1.bias"),
    "one position lost": transform("block0.token2.weight", one_row_zero),
    "norms swapped": in_weights(swap("block1.norm1", "block1.norm2")),
    "token mixing of two blocks swapped": in_weights(swap("block0.token1", "block1.token1")),
    "channel mixing of two blocks swapped": in_weights(swap("block0.fc3", "block1.fc3")),
    "first residual dropped": in_graph(drop_residual("block01/add1")),
    "second residual dropped": in_graph(drop_residual("block01")),
    "GELU over positions approximated by tanh": in_graph(replace_gelu(tanh_gelu)),
    "epsilon 1e-5": in_spec(norm_epsilon=1e-5),
    "norm behind the mean": in_spec(norm_after_mean=True),
    "maximum over positions": in_graph(max_instead_of_mean),
}
"""What goes wrong in an MLP-Mixer of two blocks on a map of 5 by 7.

The bias over positions is no part of it: it adds the same to all channels, which every norm behind it takes off again.
"""
