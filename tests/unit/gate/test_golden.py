"""Golden tensors: always the same, chosen to expose errors, and read back strictly."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.support import pyramid_spec, random_model, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage, single_stage
from s2mlp_deploy.gate import golden, reference_logits
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.precision import FP16
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding

OBLONG = S2MLPSpec((Stage(Embedding((3, 5), (3, 5)), channels=13, hidden=26, depth=1),), classes=7, image_size=(12, 25))
"""A patch of 3 by 5 on a map of 4 by 5."""


def inputs_of(spec: S2MLPSpec, size: Size | None = None) -> dict[str, np.ndarray]:
    return golden.make_inputs(spec, Axes(None, size or spec.image_size))


def test_inputs_are_the_same_every_time_whatever_the_global_seed() -> None:
    np.random.seed(5)
    first = inputs_of(small_spec())
    np.random.seed(6)
    second = inputs_of(small_spec())
    assert list(first) == list(second)
    assert all(first[case].tobytes() == second[case].tobytes() for case in first)


def test_inputs_are_the_same_on_every_machine() -> None:
    content = b"".join(x.tobytes() for _, x in sorted(inputs_of(small_spec()).items()))
    assert hashlib.sha256(content).hexdigest() == "2792cda9d4c849198b0525b535498c33e9adaba2c1611e579d3a649f49e47b51"


@pytest.mark.parametrize("spec", [small_spec(), pyramid_spec(), OBLONG, replace(small_spec(), in_channels=1)])
def test_every_case_has_the_form_of_the_models_input(spec: S2MLPSpec) -> None:
    for case, x in inputs_of(spec).items():
        assert x.dtype == np.float32 and x.shape[1:] == (spec.in_channels, *spec.image_size), case
        assert len(x) and np.isfinite(x).all()


@pytest.mark.parametrize("spec", [small_spec(), pyramid_spec(), OBLONG])
def test_the_border_cases_are_zero_but_for_rows_and_columns_of_patches_and_cover_all_four(spec: S2MLPSpec) -> None:
    h, w = spec.image_size
    ph, pw = spec.stages[0].embedding.kernel
    inside = np.ones((2, h, w), bool)
    inside[0, :ph] = inside[0, :, :pw] = False  # above and left
    inside[1, h - ph :] = inside[1, :, w - pw :] = False  # below and right
    for image, zero in zip(inputs_of(spec)["border"], inside, strict=True):
        assert zero.any()
        assert (image[:, zero] == 0).all()
        assert (image[:, ~zero] != 0).all()


def test_noise_comes_at_three_scales_and_beside_it_a_constant() -> None:
    x = inputs_of(small_spec())
    assert x["faint"].std() == pytest.approx(0.02, rel=0.1)
    assert x["noise"].std() == pytest.approx(1, rel=0.1)
    assert x["loud"].std() == pytest.approx(5, rel=0.1)
    assert np.unique(x["constant"]).tolist() == [1.0]


def test_a_model_for_any_size_is_judged_on_a_larger_oblong_size_and_the_smallest_that_shift() -> None:
    fixed, free = inputs_of(small_spec()), golden.make_inputs(small_spec(), Axes(None, None))
    assert free.keys() - fixed.keys() == {"noise-24x36", "noise-4x8", "noise-24x8", "large-124x132"}
    assert free["noise-24x36"].shape == (1, 3, 24, 36) and free["noise-4x8"].shape == (1, 3, 4, 8)
    assert free["noise-24x8"].shape == (1, 3, 24, 8)
    assert all(np.array_equal(fixed[case], free[case]) for case in fixed)


def test_a_model_for_any_size_is_judged_on_a_map_of_a_thousand_positions_unless_its_own_is_larger() -> None:
    for spec in (small_spec(), pyramid_spec()):
        (case,) = (c for c in golden.make_inputs(spec, Axes(None, None)) if c.startswith("large"))
        height, width = map(int, case.removeprefix("large-").split("x"))
        assert spec.map_sizes((height, width))[-1] == golden.LARGE_MAP
        assert golden.make_inputs(spec, Axes(None, None))[case].min() > 0  # nearly constant: sums only grow
    large = replace(small_spec(), image_size=(4 * 40, 4 * 40))
    assert not any(case.startswith("large") for case in golden.make_inputs(large, Axes(None, None)))


def test_other_sizes_divide_by_all_strides_of_a_pyramid() -> None:
    spec = pyramid_spec()
    inputs = golden.make_inputs(spec, Axes(None, None))
    others = [inputs[case].shape[2:] for case in inputs.keys() - inputs_of(spec).keys()]
    assert len(others) == 4
    for height, width in others:
        maps = spec.map_sizes((height, width))  # which refuses those that do not
        assert len(maps) == len(spec.stages) and min(maps[-1]) >= 1


def test_real_images_are_chosen_evenly() -> None:
    images = np.arange(19, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 20, 28), np.float32)
    assert Pictures.choose(images).images[:, 0, 0, 0].tolist() == [0, 2, 4, 7, 9, 11, 14, 16]


# Traces


@pytest.mark.parametrize("size", [(5, 7), (7, 5), (1, 2), (2, 1), (1, 1), (3, 1), (4, 4), (1, 40), (37, 61)])
def test_trace_positions_are_distinct_inside_and_include_the_corners(size: Size) -> None:
    height, width = size
    rows, columns = golden.trace_positions(size)
    positions = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert len(positions) == len(rows) == min(golden.TRACE_POSITIONS, height * width)
    assert all(0 <= r < height and 0 <= c < width for r, c in positions)
    assert {(r, c) for r in (0, height - 1) for c in (0, width - 1)} <= positions


def test_trace_positions_are_the_same_every_time_and_depend_on_the_size_only() -> None:
    first, second = golden.trace_positions((9, 11)), golden.trace_positions((9, 11))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sample_takes_the_channels_of_the_chosen_positions() -> None:
    x = np.arange(5 * 7 * 3, dtype=np.float32).reshape(5, 7, 3)
    sample = golden.sample_map(x)
    rows, columns = golden.trace_positions((5, 7))
    assert sample.shape == (golden.TRACE_POSITIONS, 3) and sample.flags.c_contiguous
    assert sample[3].tolist() == x[rows[3], columns[3]].tolist()
    assert sample[3].tolist() == x[4, 6].tolist()  # the last corner


def test_the_reference_traces_every_layer_in_the_order_of_computation() -> None:
    golden_reference = reference_logits.compute_reference(random_model(pyramid_spec()), inputs_of(pyramid_spec()))
    assert list(golden_reference.golden.trace) == [
        "stage0/embedding",
        "stage0/block00",
        "stage1/embedding",
        "stage1/block00",
        "stage1/block01",
        "stage2/embedding",
        "logits",
    ]
    assert golden_reference.golden.trace["stage1/block00"].shape == (golden.TRACE_POSITIONS, 12)
    assert golden_reference.golden.trace["logits"].shape == (1, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_run_in_another_type_leaves_the_module_as_it_was(dtype: torch.dtype) -> None:
    """Or the evaluation behind it would be of rounded weights."""
    model, images = random_model(small_spec(depth=1)), inputs_of(small_spec())["noise"]
    before = reference_logits.run(model, images)
    reference_logits.run(model, images, dtype)
    np.testing.assert_array_equal(reference_logits.run(model, images), before)


def test_matrices_are_rounded_for_comparison_and_nothing_else_is() -> None:
    model = random_model(small_spec(depth=1))
    rounded = reference_logits.with_rounded_matrices(model, torch.float16).state_dict()
    for name, parameter in model.state_dict().items():
        expected = parameter.half().float() if parameter.ndim > 1 else parameter
        assert torch.equal(rounded[name], expected), name


def test_pytorchs_own_run_has_the_weights_of_the_graph_that_it_is_compared_with() -> None:
    """In float32 on matrices that were rounded, for CPUs; in float16, for GPUs."""
    assert FP16.on_cpu
    model = random_model(small_spec(depth=1))
    reference = reference_logits.compute_reference(model, inputs_of(small_spec(depth=1)))
    measured = {}
    for name, arithmetic in (("cpu", FP16.on_cpu), ("gpu", FP16.on_gpu)):
        found = reference_logits.compare_rounded(model, reference.golden, arithmetic)
        measured[name] = found.pytorch_distances["noise"].relative_l2
    assert 100 * reference.pytorch_distances["noise"].relative_l2 < measured["cpu"] < measured["gpu"] < 1e-2


# Files


@pytest.fixture
def judged() -> Golden:
    """Golden tensors of a model deep enough that its layers' names would sort wrongly."""
    spec = single_stage(channels=4, depth=11, patch=4, expansion=1, classes=5, image_size=(8, 12))
    return reference_logits.compute_reference(random_model(spec), inputs_of(spec)).golden


def test_golden_tensors_are_the_same_after_writing_and_reading(judged: Golden, tmp_path: Path) -> None:
    golden_tensors.save(judged, tmp_path / "golden.safetensors")
    again = golden_tensors.load(tmp_path / "golden.safetensors")
    assert again.inputs.keys() == judged.inputs.keys() == again.logits.keys()
    assert list(again.trace) == list(judged.trace)
    for case, x in judged.inputs.items():
        np.testing.assert_array_equal(again.inputs[case], x)
        np.testing.assert_array_equal(again.logits[case], judged.logits[case].astype(np.float32))
    for name, x in judged.trace.items():
        np.testing.assert_array_equal(again.trace[name], x)


def test_cases_that_are_left_out_are_so_everywhere_and_the_others_stay_whole(judged: Golden) -> None:
    whole = replace(judged, quantized=judged.logits)
    found = whole.without(["noise", "constant"])
    for name in ("inputs", "logits", "quantized"):
        kept, before = getattr(found, name), getattr(whole, name)
        assert kept.keys() == before.keys() - {"noise", "constant"} and all(kept[case] is before[case] for case in kept)
    assert found.trace is whole.trace


def test_the_reference_computes_in_float64_and_the_file_rounds_once(judged: Golden, tmp_path: Path) -> None:
    assert {x.dtype for x in judged.logits.values()} == {np.dtype(np.float64)}
    golden_tensors.save(judged, tmp_path / "golden.safetensors")
    assert {x.dtype for x in golden_tensors.load(tmp_path / "golden.safetensors").logits.values()} == {
        np.dtype(np.float32)
    }


def test_the_same_tensors_give_the_same_bytes_in_any_order(judged: Golden, tmp_path: Path) -> None:
    backwards = Golden(dict(reversed(judged.inputs.items())), dict(reversed(judged.logits.items())), judged.trace)
    golden_tensors.save(judged, tmp_path / "a")
    golden_tensors.save(backwards, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2)
    golden_tensors.save(Golden({"a": x.transpose(0, 1, 3, 2)}, {"a": np.ones((1, 2))}, {}), tmp_path / "g")
    np.testing.assert_array_equal(golden_tensors.load(tmp_path / "g").inputs["a"], x.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_refused(judged: Golden, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "golden.safetensors"
    golden_tensors.save(judged, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        BundleError, match=r"golden\.safetensors is not a whole safetensors file .* copy the bundle again"
    ):
        golden_tensors.load(path)


def test_a_changed_byte_of_the_header_never_leads_to_more_than_a_refusal(judged: Golden, tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    golden_tensors.save(judged, path)
    original = path.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    refusals = []
    for offset in np.random.default_rng(1).integers(0, header, 200):
        changed = bytearray(original)
        changed[offset] ^= 0x11
        path.write_bytes(changed)
        try:
            golden_tensors.load(path)
        except BundleError as error:
            refusals.append(str(error))
    assert len(refusals) > 100 and all("golden.safetensors" in message for message in refusals)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing\.safetensors"):
        golden_tensors.load(tmp_path / "nothing.safetensors")
