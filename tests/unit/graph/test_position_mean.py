"""The mean over positions: as near to float64 as PyTorch's, at every size of the map and in every runtime at hand."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.graph_run import run_graph
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.position_mean import TERMS, emit_mean, groups
from s2mlp_deploy.graph.spatial_shift import FeatureMap
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.size import Size

C = 16


def mean_model(size: Size | None) -> ir.Model:
    """Input ``map`` (batch, height, width, channels), output ``mean`` (batch, channels)."""
    out = GraphBuilder()
    height, width = size or ("height", "width")
    x = ir.Value(name="map", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", height, width, C]))
    shape = out.op("Shape", [x], "stage0/map_shape")
    tokens = out.op("Reshape", [x, out.constant("tokens_shape", np.array([-1, C]))], "tokens")
    y = emit_mean(out, tokens, FeatureMap("stage0", C, size, shape), "mean")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", C])
    return out.model([x], [y], "mean")


def in_onnxruntime(model: ir.Model, x: Array) -> Array:
    return run_graph(model, map=x)


def in_openvino(model: ir.Model, x: Array) -> Array:
    openvino = pytest.importorskip("openvino")
    read = openvino.Core().read_model(ir.to_proto(model).SerializeToString(), b"")
    compiled = openvino.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    y: Array = compiled(x)[0]
    return y


def maps(size: Size) -> dict[str, Array]:
    """Two maps of each kind, or one large one, (maps, height, width, channels): what adds up in one direction, and what does not."""
    rng = np.random.default_rng(size)
    count = 2 if max(size) < 1024 else 1
    first, second = rng.standard_normal((2, count, 1, 1, C))
    position = np.arange(size[0] * size[1]).reshape(1, *size, 1) % size[1] / size[1]
    return {
        "constant": np.broadcast_to(first, (count, *size, C)),
        "noise": first + rng.standard_normal((count, *size, C)),
        "stripes": np.where(position < 1 / 3, first, second) * np.ones((1, size[0], 1, 1)),
    }


def distance(actual: Array, exact: Array) -> float:
    return float(np.max(np.linalg.norm(actual - exact, axis=1) / np.linalg.norm(exact, axis=1)))


@pytest.mark.slow
@pytest.mark.parametrize("run", [in_onnxruntime, in_openvino])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (5, 7), (14, 14), (17, 19), (32, 32), (56, 56), (97, 131), (256, 256), (1024, 1024)]
)
def test_it_is_as_exact_as_pytorchs(size: Size, dynamic: bool, run: Callable[[ir.Model, Array], Array]) -> None:
    model = mean_model(None if dynamic else size)
    ours, pytorch = [], []
    for x in maps(size).values():
        x = np.ascontiguousarray(x, np.float32)
        exact = x.astype(np.float64).mean((1, 2))
        ours.append(distance(run(model, x), exact))
        pytorch.append(distance(torch.from_numpy(x).mean((1, 2)).numpy(), exact))
    # A dynamic side of 1,024 is added in 16 groups of 64, not of 16.
    assert max(ours) <= (3 if dynamic and max(size) > 256 else 2) * max(*pytorch, 2.0**-23)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [(1, 2), (5, 7), (17, 19), (97, 131)])
def test_in_float16_nothing_overflows_or_vanishes_on_the_way(size: Size, dynamic: bool) -> None:
    model = run_passes(mean_model(None if dynamic else size), ToFloat16())
    for scale in (1e-2, 1, 3e4):
        x = (np.ones((2, *size, C)) * np.linspace(0.5, 1, C) * scale).astype(np.float16)
        exact = x.astype(np.float64).mean((1, 2))
        model.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
        assert distance(in_onnxruntime(model, x).astype(np.float64), exact) < 2 * 2.0**-10


@given(st.integers(1, 5000))
def test_groups_multiply_to_the_positions_and_are_small(positions: int) -> None:
    primes = [
        p for p in range(2, positions + 1) if positions % p == 0 and all(p % q for q in range(2, int(p**0.5) + 1))
    ]
    if max(primes, default=1) > TERMS:
        with pytest.raises(ValueError, match="prime"):
            groups(positions)
    else:
        sizes = groups(positions)
        assert prod(sizes) == positions and max(sizes) <= TERMS


@pytest.mark.parametrize(
    ("size", "averages", "pads"), [((4, 4), 1, 0), ((7, 7), 2, 0), ((14, 14), 2, 0), ((56, 56), 3, 0), ((37, 37), 3, 1)]
)
def test_it_takes_no_more_operators_than_it_must(size: Size, averages: int, pads: int) -> None:
    ops = [node.op_type for node in mean_model(size).graph]
    assert ops.count("ReduceMean") == averages and ops.count("Pad") == pads == ops.count("Mul")


def test_no_two_averages_follow_one_another_without_a_reshape_that_keeps_runtimes_from_merging_them() -> None:
    for size in ((14, 14), (97, 131), None):
        for node in mean_model(size).graph:
            source: Any = node.inputs[0].producer() if node.op_type == "ReduceMean" and node.inputs[0] else None
            assert source is None or source.op_type in ("Reshape", "Pad")
