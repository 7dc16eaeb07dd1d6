"""The shift's definition, and every lowering against it, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.graph_run import run_graph
from helpers.popular_shift import popular_statements
from helpers.support import small_spec
from s2mlp_deploy.errors import LoweringError, SpecError, UsageError
from s2mlp_deploy.families.shift_reference import spatial_shift
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift import LOWERINGS, FeatureMap, choose
from s2mlp_deploy.graph.spatial_shift.gather_lowering import source_positions
from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Offset, Semantics, Shift

AXIS_ALIGNED = [(1, 0), (-1, 0), (0, 1), (0, -1)]
offsets_of_distance_1 = st.sampled_from(AXIS_ALIGNED)
any_offset = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
KINDS: list[tuple[Semantics, Border]] = [("paper", "keep"), ("inplace", "keep"), ("paper", "zero"), ("paper", "wrap")]
kinds = st.sampled_from(KINDS)


def run_lowering(
    name: str,
    x: np.ndarray,
    shift: Shift,
    *,
    dynamic_size: bool,
) -> np.ndarray:
    """ONNX Runtime's result of a graph that is nothing but this lowering; x is (batch, height, width, channels)."""
    batch, height, width, channels = x.shape
    out = GraphBuilder()
    dims = ["batch", "height", "width", channels] if dynamic_size else [batch, height, width, channels]
    image = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(dims))
    shape = (
        out.op("Shape", [image], "map_shape")
        if dynamic_size
        else out.constant("map_shape", np.array([-1, height, width, channels]))
    )
    tokens = out.op("Reshape", [image, out.constant("tokens", np.array([-1, channels]))], "in")
    fmap = FeatureMap("stage0", channels, None if dynamic_size else (height, width), shape)
    y = LOWERINGS[name].emit(out, tokens, shift, fmap, "shift")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["tokens", channels])
    return run_graph(out.model([image], [y], "g"), x=x).reshape(x.shape)


def random_map(batch: int, height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(height * 8 + width)
    return rng.standard_normal((batch, height, width, channels)).astype(np.float32)


def definition(x: np.ndarray, shift: Shift) -> np.ndarray:
    return spatial_shift(torch.from_numpy(x), shift).numpy()


@pytest.mark.parametrize("name", LOWERINGS)
@given(
    size=sizes,
    channels=st.integers(4, 11),
    batch=st.integers(1, 3),
    kind=kinds,
    dynamic=st.booleans(),
    directions=st.sampled_from(list(DIRECTIONS)),
)
@settings(max_examples=60, deadline=None)
def test_every_lowering_equals_the_definition_for_the_named_directions(
    name: str,
    size: tuple[int, int],
    channels: int,
    batch: int,
    kind: tuple[Semantics, Border],
    dynamic: bool,
    directions: str,
) -> None:
    shift = Shift(DIRECTIONS[directions], *kind)
    if LOWERINGS[name].refusal(shift, dynamic_size=dynamic):
        return
    x = random_map(batch, *size, max(channels, len(shift.offsets)))
    np.testing.assert_array_equal(run_lowering(name, x, shift, dynamic_size=dynamic), definition(x, shift))


@pytest.mark.parametrize("name", LOWERINGS)
@given(size=sizes, offsets=st.lists(any_offset, min_size=1, max_size=5), kind=kinds, dynamic=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_lowering_equals_the_definition_for_any_offsets_that_it_does_not_refuse(
    name: str, size: tuple[int, int], offsets: list[Offset], kind: tuple[Semantics, Border], dynamic: bool
) -> None:
    shift = Shift(tuple(offsets), *kind)
    if LOWERINGS[name].refusal(shift, dynamic_size=dynamic):
        return
    x = random_map(2, *size, 7)
    np.testing.assert_array_equal(run_lowering(name, x, shift, dynamic_size=dynamic), definition(x, shift))


FAR: tuple[Offset, ...] = ((7, 0), (-9, 0), (0, 8), (0, -13), (10, -12), (5, 1), (-1, 6))
"""Further than a map of 5 by 6 reaches, some by a multiple of it."""


@pytest.mark.parametrize("name", LOWERINGS)
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("dynamic", [False, True])
def test_every_lowering_equals_the_definition_beyond_the_map(
    name: str, kind: tuple[Semantics, Border], dynamic: bool
) -> None:
    x = random_map(2, 5, 6, 5)
    for offset in FAR:
        shift = Shift((offset, (0, 0)), *kind)
        if LOWERINGS[name].refusal(shift, dynamic_size=dynamic) is None:
            np.testing.assert_array_equal(run_lowering(name, x, shift, dynamic_size=dynamic), definition(x, shift))


@given(size=sizes, offset=any_offset)
@settings(max_examples=150, deadline=None)
def test_the_papers_shift_moves_values_by_the_offset_and_keeps_those_that_nothing_moves_into(
    size: tuple[int, int], offset: Offset
) -> None:
    x = random_map(1, *size, 3)
    y, zero, wrapped = (definition(x, Shift((offset,), border=border)) for border in ("keep", "zero", "wrap"))
    for h in range(size[0]):
        for w in range(size[1]):
            i, j = h - offset[0], w - offset[1]
            inside = 0 <= i < size[0] and 0 <= j < size[1]
            np.testing.assert_array_equal(y[0, h, w], x[0, i, j] if inside else x[0, h, w])
            np.testing.assert_array_equal(zero[0, h, w], x[0, i, j] if inside else 0)
            np.testing.assert_array_equal(wrapped[0, h, w], x[0, i % size[0], j % size[1]])


@given(size=sizes, channels=st.integers(4, 19), batch=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_inplace_semantics_are_what_the_copied_statements_compute_on_one_cpu_thread(
    size: tuple[int, int], channels: int, batch: int
) -> None:
    x = torch.from_numpy(random_map(batch, *size, channels))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = popular_statements(x.clone())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(spatial_shift(x, Shift(semantics="inplace")), expected)


def test_inplace_semantics_smear_the_border_over_groups_0_and_2_and_shift_groups_1_and_3() -> None:
    x = random_map(1, 5, 6, 8)
    y = definition(x, Shift(semantics="inplace"))
    np.testing.assert_array_equal(y[..., 0:2], np.broadcast_to(x[:, :1, :, 0:2], (1, 5, 6, 2)))
    np.testing.assert_array_equal(y[:, :, :, 4:6], np.broadcast_to(x[:, :, :1, 4:6], (1, 5, 6, 2)))
    paper = definition(x, Shift())
    np.testing.assert_array_equal(y[..., 2:4], paper[..., 2:4])
    np.testing.assert_array_equal(y[..., 6:8], paper[..., 6:8])


def test_the_shift_leaves_its_input_alone() -> None:
    x = torch.from_numpy(random_map(1, 4, 5, 8))
    before = x.clone()
    for kind in ("paper", "inplace"):
        spatial_shift(x, Shift(semantics=kind))
        assert torch.equal(x, before)


def test_channels_split_where_the_public_code_splits_them() -> None:
    for c in range(4, 40):
        edges = [(g.start, g.stop) for g in Shift().groups(c)]
        assert edges == [(0, c // 4), (c // 4, c // 2), (c // 2, 3 * c // 4), (3 * c // 4, c)]


@pytest.mark.parametrize("name", ["conv", "pad"])
@pytest.mark.parametrize("offset", [(2, 0), (0, -3), (1, 1), (-1, 1)])
def test_conv_and_pad_refuse_offsets_at_which_replicate_padding_is_not_the_shift(name: str, offset: Offset) -> None:
    reason = LOWERINGS[name].refusal(Shift((offset, (0, 0))), dynamic_size=False)
    assert reason is not None
    assert str(offset) in reason
    # The refusal is right: replicate padding differs from "keep" for this offset.
    x = random_map(1, 5, 6, 2)
    h, w = np.mgrid[0:5, 0:6]
    padded = x[:, np.clip(h - offset[0], 0, 4), np.clip(w - offset[1], 0, 5)]
    assert not np.array_equal(padded, definition(x, Shift((offset,))))


@pytest.mark.parametrize("name", ["conv", "pad"])
def test_conv_and_pad_refuse_inplace_semantics(name: str) -> None:
    reason = LOWERINGS[name].refusal(Shift(semantics="inplace"), dynamic_size=False)
    assert reason is not None
    assert "in-place" in reason


def test_gather_refuses_dynamic_sizes_and_slice_refuses_smearing_diagonals() -> None:
    assert "one image size" in str(LOWERINGS["gather"].refusal(Shift(), dynamic_size=True))
    diagonal = Shift(DIRECTIONS["8"], "inplace")
    assert "(1, 1)" in str(LOWERINGS["slice"].refusal(diagonal, dynamic_size=False))
    assert LOWERINGS["slice"].refusal(Shift(DIRECTIONS["8"]), dynamic_size=False) is None


def test_lowerings_refuse_the_borders_that_they_cannot_write() -> None:
    """Each with its reason; what they do write is held to the definition above."""
    zero, wrap = Shift(border="zero"), Shift(border="wrap")
    far = Shift(((2, 0),), border="zero")

    def refusals(shift: Shift, *, dynamic: bool) -> dict[str, str | None]:
        return {name: lowering.refusal(shift, dynamic_size=dynamic) for name, lowering in LOWERINGS.items()}

    for dynamic in (False, True):
        assert [n for n, r in refusals(zero, dynamic=dynamic).items() if r is None] == ["slice", "pad", "conv"]
        assert "none of them holds the zeros" in str(refusals(zero, dynamic=dynamic)["gather"])
    assert [n for n, r in refusals(wrap, dynamic=False).items() if r is None] == ["gather", "slice"]
    assert [n for n, r in refusals(wrap, dynamic=True).items() if r is None] == ["slice"]
    assert "wrapping is neither" in str(refusals(wrap, dynamic=False)["pad"])
    assert [n for n, r in refusals(far, dynamic=False).items() if r is None] == ["slice", "pad"]
    assert [n for n, r in refusals(far, dynamic=True).items() if r is None] == ["pad"]
    assert "3×3 kernel" in str(refusals(far, dynamic=False)["conv"])
    assert "a map of any size" in str(refusals(Shift(((2, 0),), border="wrap"), dynamic=True)["slice"])


def test_in_place_semantics_keep_the_border() -> None:
    for border in ("zero", "wrap"):
        with pytest.raises(SpecError, match=rf"border {border} goes with paper semantics only"):
            Shift(semantics="inplace", border=border)


def test_auto_takes_the_fastest_exact_lowering_and_says_so_when_none_is() -> None:
    spec = small_spec(channels=16)
    assert choose("auto", spec.shifts, dynamic_size=False).name == "gather"
    assert choose("auto", spec.shifts, dynamic_size=True).name == "slice"
    none = spec.with_shift(Shift(DIRECTIONS["8"], "inplace"))
    assert choose("auto", none.shifts, dynamic_size=False).name == "gather"
    with pytest.raises(LoweringError, match=r"no lowering .* is exact .*--dynamic-size"):
        choose("auto", none.shifts, dynamic_size=True)


def test_a_lowering_must_be_exact_for_every_shift_of_a_network() -> None:
    """Of a diagonal and the same along the other axes, the second alone reads what it has just written."""
    shift = Shift(((-1, 1), (0, 0)), "inplace")
    assert choose("slice", [shift], dynamic_size=True).name == "slice"
    for name in ("slice", "auto"):
        with pytest.raises(LoweringError, match="smears values along a line that slices cannot follow"):
            choose(name, [shift, shift.mirrored], dynamic_size=True)
    assert choose("auto", [shift, shift.mirrored], dynamic_size=False).name == "gather"


def test_a_refused_lowering_names_those_that_are_exact() -> None:
    spec = small_spec(channels=16).with_shift(Shift(semantics="inplace"))
    with pytest.raises(LoweringError, match=r"--shift conv would change .* Use --shift gather or slice"):
        choose("conv", spec.shifts, dynamic_size=False)
    with pytest.raises(UsageError, match="unknown lowering 'roll'"):
        choose("roll", spec.shifts, dynamic_size=False)


@given(size=sizes, offset=any_offset, kind=st.sampled_from([k for k in KINDS if k[1] != "zero"]))
@settings(max_examples=100, deadline=None)
def test_the_gather_table_only_ever_points_inside_the_map(
    size: tuple[int, int], offset: Offset, kind: tuple[Semantics, Border]
) -> None:
    table = source_positions(Shift((offset,), *kind), offset, size)
    assert table.shape == size
    assert table.min() >= 0
    assert table.max() < size[0] * size[1]
