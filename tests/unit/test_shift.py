"""The shift to train with: the definition's bits, right gradients, and the same result compiled and exported."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.popular_shift import popular_statements
from helpers.support import ROOT
from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families import shift_reference
from s2mlp_deploy.schema.shift import Border, Offset, Semantics, Shift
from s2mlp_deploy.shift import FOUR_DIRECTIONS, SpatialShift, spatial_shift

KINDS: list[tuple[Semantics, Border]] = [("paper", "keep"), ("inplace", "keep"), ("paper", "zero"), ("paper", "wrap")]
MIXED: tuple[Offset, ...] = ((2, 0), (0, -1), (1, -1), (0, 0), (-1, 2), (0, 3))
"""Offsets of every kind: along either axis, diagonal, longer than 1, none."""


def random_map(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


# Numbers


@given(
    offsets=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=6),
    kind=st.sampled_from(KINDS),
    shape=st.tuples(*[st.integers(1, high) for high in (2, 7, 7, 9)]),
    channels_first=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_bits_are_those_of_the_definition(
    offsets: list[Offset], kind: tuple[Semantics, Border], shape: tuple[int, ...], channels_first: bool
) -> None:
    semantics, border = kind
    x = random_map(*shape)
    given_x = x.permute(0, 3, 1, 2).contiguous() if channels_first else x
    y = spatial_shift(given_x, offsets, border=border, semantics=semantics, channel_dim=1 if channels_first else -1)
    assert y.shape == given_x.shape and y.data_ptr() != given_x.data_ptr()
    y = y.permute(0, 2, 3, 1) if channels_first else y
    assert torch.equal(y, shift_reference.spatial_shift(x, Shift(tuple(offsets), semantics, border)))


@pytest.mark.parametrize(("semantics", "border"), KINDS)
def test_offsets_of_every_kind_have_the_bits_of_the_definition(semantics: Semantics, border: Border) -> None:
    """Always these; others above are drawn by chance."""
    x = random_map(2, 5, 7, 15)
    for offsets in (MIXED, ((1, 1), (1, -2), (3, -1), (-2, -3), (2, 2))):
        expected = shift_reference.spatial_shift(x, Shift(offsets, semantics, border))
        assert torch.equal(spatial_shift(x, offsets, semantics=semantics, border=border), expected)


@pytest.mark.parametrize("channels", [4, 7, 16])
def test_the_in_place_semantics_are_those_of_the_popular_statements_on_one_thread(channels: int) -> None:
    x = random_map(2, 5, 7, channels)
    assert x.numel() < 32_768, "PyTorch splits larger copies over threads"
    assert torch.equal(spatial_shift(x, semantics="inplace"), popular_statements(x.clone()))


def test_the_input_keeps_its_values() -> None:
    x = random_map(1, 4, 3, 8)
    before = x.clone()
    spatial_shift(x, semantics="inplace")
    assert torch.equal(x, before)


def test_the_module_computes_what_the_function_does() -> None:
    x = random_map(1, 8, 5, 3)
    module = SpatialShift(MIXED, semantics="inplace", channel_dim=1)
    assert torch.equal(module(x), spatial_shift(x, MIXED, semantics="inplace", channel_dim=1))
    assert list(module.state_dict()) == [] and "semantics='inplace'" in repr(module)


# Gradients


@pytest.mark.parametrize(("semantics", "border"), KINDS)
@pytest.mark.parametrize("channel_dim", [-1, 1])
def test_the_gradient_is_that_of_the_result(semantics: Semantics, border: Border, channel_dim: int) -> None:
    x = random_map(1, 3, 4, 6).double().requires_grad_()
    module = SpatialShift(MIXED, semantics=semantics, border=border, channel_dim=channel_dim)
    assert torch.autograd.gradcheck(module, x if channel_dim == -1 else x.detach().permute(0, 3, 1, 2).requires_grad_())


def test_the_popular_statements_get_the_gradient_of_another_shift() -> None:
    """docs/training.md says so: what they compute is ``inplace``, what autograd differentiates is ``paper``."""
    x, weight = random_map(1, 4, 5, 8), random_map(5, 1, 4, 8).view(1, 4, 5, 8)

    def gradient(shift: nn.Module | None, semantics: Semantics = "paper") -> Tensor:
        leaf = x.clone().requires_grad_()
        y = popular_statements(leaf.clone()) if shift is None else shift(leaf)
        (y * weight).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    popular = gradient(None)
    assert torch.equal(popular, gradient(SpatialShift()))
    assert not torch.allclose(popular, gradient(SpatialShift(semantics="inplace")))


# Compiled and exported


class Activated(nn.Module):
    """GELU and the shift, with both results."""

    def __init__(self, semantics: Semantics) -> None:
        super().__init__()
        self.shift = SpatialShift(semantics=semantics)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.gelu(x)
        return x, self.shift(x)


@pytest.mark.slow
@pytest.mark.parametrize(("semantics", "border"), KINDS)
def test_it_is_one_graph_to_torch_compile(semantics: Semantics, border: Border) -> None:
    x = random_map(2, 4, 5, 12)
    shift = SpatialShift(MIXED, semantics=semantics, border=border)
    torch.compiler.reset()
    assert torch.equal(torch.compile(shift, fullgraph=True, backend="eager")(x), shift(x))


HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))
INDUCTOR = (
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of its own imports
    pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler"),
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=INDUCTOR)])
def test_compiled_it_has_the_same_bits_and_gradients(backend: str) -> None:
    """The graphs of both directions that a compiler gets; ``inductor`` makes C++ of them, which takes a quarter of a minute."""
    x = random_map(2, 5, 7, 12)

    def both(x: Tensor) -> Tensor:
        mixed = [spatial_shift(x, MIXED, semantics=semantics, border=border) for semantics, border in KINDS]
        return torch.cat([spatial_shift(x), spatial_shift(x, semantics="inplace"), *mixed])

    def run(function: object) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        y = function(leaf)  # type: ignore[operator]
        y.backward(torch.arange(float(y.numel())).view_as(y))
        assert leaf.grad is not None
        return y.detach(), leaf.grad

    torch.compiler.reset()
    for got, expected in zip(run(torch.compile(both, fullgraph=True, backend=backend)), run(both), strict=True):
        assert torch.equal(got, expected)  # sums of integers: the order does not matter


@pytest.mark.parametrize(
    ("semantics", "dynamo"),
    [
        ("paper", False),
        ("inplace", False),
        pytest.param("paper", True, marks=pytest.mark.thorough),
        pytest.param("inplace", True, marks=pytest.mark.slow),
    ],
)
def test_either_exporter_writes_at_most_20_nodes_for_a_free_batch(semantics: Semantics, dynamo: bool) -> None:
    model, x = Activated(semantics).eval(), random_map(2, 5, 7, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the older exporter, and of the newer one's own code
        warnings.simplefilter("ignore", FutureWarning)
        if dynamo:
            batch = torch.export.Dim("batch")
            program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
            assert program is not None
            proto = program.model_proto
        else:
            file = io.BytesIO()
            torch.onnx.export(model, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
            proto = onnx.load_from_string(file.getvalue())
    operators = [node.op_type for node in proto.graph.node if node.op_type != "Constant"]
    assert len(operators) <= 20, operators
    assert "ScatterND" not in operators
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for count in (1, 2, 3):
        activated, shifted = session.run(None, {session.get_inputs()[0].name: random_map(count, 5, 7, 12).numpy()})
        expected = shift_reference.spatial_shift(torch.from_numpy(activated), Shift(semantics=semantics))
        np.testing.assert_array_equal(shifted, expected.numpy())


@pytest.mark.parametrize("semantics", ["paper", "inplace"])
def test_torch_export_leaves_batch_and_size_free(semantics: Semantics) -> None:
    shift = SpatialShift(semantics=semantics)
    sizes = {axis: torch.export.Dim(name, min=3) for axis, name in enumerate(("batch", "height", "width"))}
    program = torch.export.export(shift, (random_map(4, 5, 7, 12),), dynamic_shapes=(sizes,)).module()
    other = random_map(3, 6, 4, 12)
    assert torch.equal(program(other), shift(other))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ExecuTorch's own imports
@pytest.mark.parametrize(
    ("semantics", "border"),
    [pytest.param(*kind, marks=[] if kind == ("inplace", "keep") else pytest.mark.thorough) for kind in KINDS],
)
def test_executorch_takes_it(semantics: Semantics, border: Border) -> None:
    exir = pytest.importorskip("executorch.exir", reason="needs ExecuTorch: pip install executorch")
    runtime = pytest.importorskip("executorch.runtime")
    shift, x = SpatialShift(semantics=semantics, border=border).eval(), random_map(1, 5, 7, 12)
    program = exir.to_edge(torch.export.export(shift, (x,))).to_executorch()
    (y,) = runtime.Runtime.get().load_program(program.buffer).load_method("forward").execute([x])
    assert torch.equal(y, shift(x))


# Torch alone, and errors

ALONE = """
import importlib.abc, json, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

HIDDEN = json.loads(sys.argv[1])
sys.meta_path.insert(0, Hide())
from s2mlp_deploy.shift import spatial_shift
import torch
print(tuple(spatial_shift(torch.zeros(1, 2, 3, 4)).shape))
"""


def test_it_needs_torch_and_no_other_dependency_of_this_package() -> None:
    hidden = ["onnx", "onnx_ir", "packaging", "pydantic", "rich", "safetensors", "tomli", "typer", "ml_dtypes"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(hidden)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(1, 2, 3, 4)\n", done.stderr


def test_a_map_with_another_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"4 axes \(batch, height, width, channels\), and got 3"):
        spatial_shift(random_map(5, 7, 12))


def test_channels_in_the_middle_are_refused() -> None:
    with pytest.raises(ValueError, match="channel_dim is 2: expected -1 for channels last, or 1"):
        spatial_shift(random_map(1, 5, 7, 12), channel_dim=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": "reflect"}, "unknown border 'reflect': expected keep, zero, wrap"),
        ({"semantics": "naive"}, "unknown shift semantics 'naive': expected paper or inplace"),
        ({"border": "zero", "semantics": "inplace"}, "border zero goes with paper semantics only"),
        ({"offsets": ()}, "at least one offset"),
    ],
)
def test_options_that_are_none_are_refused_by_function_and_module(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spatial_shift(random_map(1, 5, 7, 12), **options)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=message):
        SpatialShift(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("semantics", "border"), KINDS)
def test_a_map_smaller_than_a_move_is_all_border(semantics: Semantics, border: Border) -> None:
    x = random_map(1, 2, 2, 6)
    offsets = ((3, 0), (-3, 0), (0, 9), (0, -2), (5, -5), (-2, 1))
    expected = shift_reference.spatial_shift(x, Shift(offsets, semantics, border))
    assert torch.equal(spatial_shift(x, offsets, semantics=semantics, border=border), expected)
    if border == "keep":
        assert torch.equal(expected, x)
    assert Shift().offsets == FOUR_DIRECTIONS
