"""fp16: what becomes float16 for GPUs and for CPUs, what is refused, and what the command makes of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from helpers.graph_run import run_graph
from helpers.support import pyramid_spec, random_model, run, save_checkpoint, small_spec, weights_of
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.formats import float16_on_cpu
from s2mlp_deploy.graph.builder import set_array
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.float16_storage import StoreFloat16
from s2mlp_deploy.passes.fuse_biases import FuseBiases
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.quantization.rounding import Span, spans, weight_spans
from s2mlp_deploy.system import machine

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def graph(spec: S2MLPSpec, lowering: str = "gather", *, axes: Axes | None = None) -> ir.Model:
    axes = axes or Axes(None, spec.image_size)
    return lower(spec, weights_of(random_model(spec)), LOWERINGS[lowering], axes).model


def changed(path: Path, **parameters: float) -> Path:
    """A small checkpoint at ``path`` with parameters multiplied; ``__`` stands for a dot."""
    save_checkpoint(path, small_spec())
    content = torch.load(path)
    for name, factor in parameters.items():
        content["model"][name.replace("__", ".")] *= factor
    torch.save(content, path)
    return path


def left_behind(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


@pytest.mark.parametrize("border", [FLOAT, HALF], ids=str)
@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic size"])
def test_every_weight_and_activation_is_float16_and_the_model_is_still_the_same(
    dynamic: bool, lowering: str, border: ir.DataType
) -> None:
    spec = pyramid_spec()
    if LOWERINGS[lowering].refusal(spec.shift, dynamic_size=dynamic):
        pytest.skip("refused, and tested as such")
    before = graph(spec, lowering, axes=Axes(None, None if dynamic else spec.image_size))
    untouched = ir.to_proto(before).SerializeToString(deterministic=True)
    after = run_passes(before, ToFloat16(), CastIo(border))
    assert ir.to_proto(before).SerializeToString(deterministic=True) == untouched
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    casts = [n for n in after.graph if n.op_type == "Cast"]
    assert len(casts) == (2 if border == FLOAT else 0)
    assert [v.dtype for v in (*after.graph.inputs, *after.graph.outputs)] == [border, border]
    assert [v.name for v in (*after.graph.inputs, *after.graph.outputs)] == ["input", "logits"]
    constants = [v.const_value for v in after.graph.initializers.values()]
    assert {c.dtype for c in constants if c is not None} == {HALF, ir.DataType.INT64}
    values = [v for n in after.graph for v in n.outputs if v.dtype == FLOAT]
    assert [v.name for v in values] == (["logits"] if border == FLOAT else [])
    ops = Counter(n.op_type for n in after.graph if n.op_type != "Cast")
    assert ops == Counter(n.op_type for n in before.graph)
    assert ops["LayerNormalization"] == 2 * spec.depth

    images = np.random.default_rng(2).standard_normal((2, 3, *spec.image_size)).astype(np.float32)
    expected, actual = run_graph(before, input=images), run_graph(after, input=images.astype(border.numpy()))
    assert actual.dtype == (border.numpy())
    assert 0 < np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 5e-3


@pytest.mark.parametrize("border", [FLOAT, HALF], ids=str)
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_for_cpus_every_matrix_is_float16_and_everything_is_computed_in_float32(
    lowering: str, border: ir.DataType
) -> None:
    """ARM processors with float16 arithmetic would add up in float16 whatever is float16 when it is multiplied."""
    spec = pyramid_spec()
    before = graph(spec, lowering)
    after = run_passes(before, StoreFloat16(), CastIo(border))
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    stored = {name for name, value in after.graph.initializers.items() if value.dtype == HALF}
    assert stored == {name for name in before.graph.initializers if name.endswith(".weight")}
    for node in after.graph:
        if node.op_type != "Cast":
            assert HALF not in {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}, node.name
    casts = [n for n in after.graph if n.op_type == "Cast"]
    assert len(casts) == len(stored) + (0 if border == FLOAT else 2)
    ops = Counter(n.op_type for n in after.graph if n.op_type != "Cast")
    assert ops == Counter(n.op_type for n in before.graph)
    # And it is what float32 makes of the rounded weights: ten times nearer than float16 arithmetic comes.
    for name in stored:
        value = before.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16).astype(np.float32), name=name)
    images = np.random.default_rng(2).standard_normal((2, 3, *spec.image_size)).astype(np.float16)
    expected = run_graph(before, input=images.astype(np.float32))
    actual = run_graph(after, input=images.astype(border.numpy()))
    assert actual.dtype == border.numpy()
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < (1e-6 if border == FLOAT else 1e-3)


def test_the_mean_and_variance_of_a_norm_are_computed_in_float32() -> None:
    norms = [
        node for node in run_passes(graph(small_spec()), ToFloat16()).graph if node.op_type == "LayerNormalization"
    ]
    assert norms
    for norm in norms:
        stash = norm.attributes.get("stash_type")
        assert stash is None or stash.as_int() == 1  # 1, float32, is what its absence means


@pytest.mark.parametrize("io_dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("options", [(), ("--batch", 2), ("--dynamic-size",)], ids=["plain", "batch", "size"])
def test_an_export_passes_the_gate_and_verifies(
    options: tuple[object, ...], io_dtype: str, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run("export", checkpoint, "--precision", "fp16", "--io-dtype", io_dtype, "-o", out, "--json", *options)
    assert ran.code == 0, ran.err
    (export,) = ran.json["exports"]
    assert export["passed"]
    manifest = export["manifest"]
    dtype = {"fp32": "float32", "fp16": "float16"}[io_dtype]
    assert (manifest["precision"], manifest["input"]["dtype"], manifest["output"]["dtype"]) == ("fp16", dtype, dtype)
    assert manifest["input"]["shape"][0] == (2 if "--batch" in options else "batch")
    model = onnx.load(out / "model.onnx")
    kind = onnx.TensorProto.FLOAT if io_dtype == "fp32" else onnx.TensorProto.FLOAT16
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [kind, kind]
    verified = run("verify", out, "--json")
    assert verified.code == 0, verified.err
    assert verified.json["passed"]


def test_an_fp16_bundle_is_half_the_size(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "wide.pt", small_spec(channels=96))
    sizes = {}
    for precision in ("fp32", "fp16"):
        assert run("export", path, "--precision", precision, "-o", tmp_path / precision).code == 0
        sizes[precision] = (tmp_path / precision / "model.onnx").stat().st_size
    assert sizes["fp16"] < 0.56 * sizes["fp32"]


def test_weights_that_overflow_are_refused_with_their_names_and_nothing_is_published(tmp_path: Path) -> None:
    path = changed(tmp_path / "huge.pt", stages__0__blocks__1__fc3__weight=1e6)
    ran = run("export", path, "--precision", "fp16", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert "float16 ends at 65504" in ran.err and "stage0.blocks.1.fc3.weight" in ran.err
    assert "--precision fp32" in ran.err
    assert left_behind(tmp_path) == ["huge.pt"]


def test_activations_that_overflow_are_refused_where_every_weight_is_small_enough(tmp_path: Path) -> None:
    path = changed(tmp_path / "huge.pt", stages__0__blocks__1__fc3__weight=3e3, stages__0__blocks__1__fc4__weight=3e3)
    ran = run("export", path, "--precision", "fp16", "--target", "trt", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert "stage0/block01/fc4 (" in ran.err and "block00" not in ran.err and "weight (" not in ran.err
    assert left_behind(tmp_path) == ["huge.pt"]
    assert run("export", path, "-o", tmp_path / "out").code == 0  # float32 holds them
    assert run("export", path, "--precision", "fp16", "-o", tmp_path / "half").code == 0  # in which CPUs compute


def test_values_that_vanish_are_warned_about_with_their_layer(tmp_path: Path) -> None:
    path = changed(tmp_path / "tiny.pt", stages__0__blocks__1__fc4__weight=1e-8, stages__0__blocks__1__fc4__bias=1e-8)
    ran = run("export", path, "--precision", "fp16", "--target", "trt", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "warning: float16 turns small values into zero" in ran.err
    assert "stage0/block01/fc4 (" in ran.err and "stage0.blocks.1.fc4.weight (" in ran.err
    assert "block00" not in ran.err and "warning" not in ran.out


def test_a_healthy_model_is_not_warned_about(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--precision", "fp16", "-o", tmp_path / "out")
    assert ran.code == 0 and "warning" not in ran.err


# What float16 computes in follows the target


def arithmetic(bundle: Path) -> object:
    return read_bundle(bundle).manifest.arithmetic


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "float32"),
        (("--target", "x86"), "float32"),
        (("--target", "arm"), "float32"),
        (("--target", "trt"), "float16"),
    ],
)
def test_graphs_for_cpus_compute_in_float32_and_those_for_gpus_in_float16(
    options: tuple[str, ...], expected: str, checkpoint: Path, tmp_path: Path
) -> None:
    assert run("export", checkpoint, "--precision", "fp16", *options, "-o", tmp_path / "out").code == 0
    assert arithmetic(tmp_path / "out") == expected


@pytest.fixture(scope="module")
def for_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small checkpoint for ONNX Runtime's CUDA provider."""
    place = tmp_path_factory.mktemp("cuda")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    ran = run("export", checkpoint, "--precision", "fp16", "--target", "cuda", "-o", place / "bundle")
    assert ran.code == 0, ran.err
    return place / "bundle"


def test_a_graph_for_cuda_passes_the_gate_and_all_its_layers_are_compared_on_a_processor(for_cuda: Path) -> None:
    nodes = Counter((node.domain, node.op_type) for node in onnx.load(for_cuda / "model.onnx").graph.node)
    assert (nodes["com.microsoft", "BiasGelu"], nodes["com.microsoft", "SkipLayerNormalization"]) == (4, 3)
    assert arithmetic(for_cuda) == "float16"
    ran = run("verify", for_cuda, "--per-block", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["passed"]


@pytest.mark.parametrize("fault", ["epsilon", "bias"])
def test_a_fault_in_writing_it_that_rounding_would_hide_is_refused(
    fault: str, for_cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = FuseBiases.call

    def faulty(self: FuseBiases, model: ir.Model) -> ir.passes.PassResult:
        result = call(self, model)
        first = next(node for node in result.model.graph if node.op_type == "SkipLayerNormalization")
        if fault == "epsilon":
            first.attributes["epsilon"] = ir.AttrFloat32("epsilon", 2e-5)
        else:
            bias = first.inputs[4]
            assert bias is not None and bias.const_value is not None
            array = bias.const_value.numpy().copy()
            array[0] += np.float32(1e-4).astype(array.dtype)
            set_array(bias, array)
        return result

    monkeypatch.setattr(FuseBiases, "call", faulty)
    checkpoint = for_cuda.parent / "small.pt"
    ran = run("export", checkpoint, "--precision", "fp16", "--target", "cuda", "-o", tmp_path / "out")
    assert ran.code == 1 and not (tmp_path / "out").exists()


def test_a_graph_for_cuda_is_for_onnx_runtime_alone(for_cuda: Path, tmp_path: Path) -> None:
    ran = run("export", for_cuda, "--format", "ort", "-o", tmp_path / "ort")
    assert ran.code == 0, ran.err
    assert run("verify", tmp_path / "ort").code == 0
    refused = run("export", for_cuda, "--format", "openvino", "-o", tmp_path / "openvino")
    assert (
        refused.code == 2
        and "was exported with --target cuda and has operators that only ONNX Runtime knows" in refused.err
    )
    assert "--precision fp16 --target trt" in refused.err
    both = run("export", for_cuda.parent / "small.pt", "--format", "trt", "--precision", "fp16", "--target", "cuda")
    assert both.code == 2 and "does not take fp16 graphs for --target cuda: expected trt" in both.err
    int8 = run("export", for_cuda.parent / "small.pt", "--precision", "int8", "--target", "cuda")
    assert int8.code == 2 and "does not take int8 graphs for --target cuda" in int8.err


def test_the_format_decides_where_no_target_is_given(checkpoint: Path, tmp_path: Path) -> None:
    ran = run(
        "export", checkpoint, "--precision", "fp16", "--format", "ort", "--provider", "cuda", "-o", tmp_path / "out"
    )
    assert ran.code in (0, 4), ran.err  # without CUDA, what is left is the graph to take to a device
    (made,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert arithmetic(made) == "float16"
    assert run("export", checkpoint, "--precision", "fp16", "--format", "ort", "-o", tmp_path / "cpu").code == 0
    assert arithmetic(tmp_path / "cpu") == "float32"


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "trt"),
        ("--format", "trt-rtx"),
        ("--format", "ort", "--provider", "cuda"),
        ("--format", "triton", "--instances", "gpu:1"),
        ("--format", "triton", "--triton-backend", "tensorrt"),
    ],
)
def test_no_gpu_is_given_a_graph_that_computes_in_float32(
    options: tuple[str, ...], checkpoint: Path, tmp_path: Path
) -> None:
    assert run("export", checkpoint, "--precision", "fp16", "-o", tmp_path / "half").code == 0
    ran = run("export", tmp_path / "half", *options, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert "export the checkpoint with --precision fp16 --target trt" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("style", ["ort", "onnx"])
def test_a_graph_that_is_optimized_ahead_keeps_its_weights_in_float16(style: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "wide.pt", small_spec(channels=96))
    sizes = {}
    for precision in ("fp32", "fp16"):
        options = ("--precision", precision, "--format", "ort", "--ort-style", style)
        assert run("export", checkpoint, *options, "-o", tmp_path / precision).code == 0
        sizes[precision] = (tmp_path / precision / f"model.{style}").stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


# Processors on which ONNX Runtime adds float16 up in float16


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "features", lambda: frozenset({"fp", "asimd", "fphp", "asimdhp"}))


def test_what_is_for_gpus_is_not_judged_there(phone: None, checkpoint: Path, tmp_path: Path) -> None:
    """It would be refused for what the processor does, not for what the graph is."""
    options = ("--precision", "fp16", "--target", "trt", "-o", tmp_path / "out")
    ran = run("export", checkpoint, *options)
    assert ran.code == 0 and "PENDING A DEVICE: its float32 graph passed" in " ".join(ran.out.split())
    assert read_bundle(tmp_path / "out").manifest.verdict == "pending a device"
    assert run("export", checkpoint, *options, "--answer", "top5", "--force").code == 0


def test_what_is_for_cpus_is_judged_there_as_everywhere(phone: None, checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "--precision", "fp16", "-o", tmp_path / "out").code == 0
    assert read_bundle(tmp_path / "out").manifest.verdict == "passed"


def test_a_refusal_there_names_the_cause(phone: None, checkpoint: Path, tmp_path: Path) -> None:
    cause = "on this processor ONNX Runtime also adds up in float16: for CPUs export the checkpoint with --precision fp16 --target arm"
    for target in ("trt", "x86"):
        out = tmp_path / target
        assert run("export", checkpoint, "--precision", "fp16", "--target", target, "-o", out).code == 0
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["tolerance"]["relative_l2"] = 1e-9
        (out / "manifest.json").write_text(json.dumps(manifest))
        ran = run("verify", out)
        assert ran.code == 1
        assert (cause in " ".join(ran.out.split())) == (target == "trt")
        assert bool(run("verify", out, "--json").json["cause"]) == (target == "trt")
        ran = run("export", out, "--format", "ort", "-o", tmp_path / "engine")
        assert (ran.code, ran.out) == (1, "") and (cause in ran.err) == (target == "trt")


def test_linux_tells_such_processors_by_their_features(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"flags": "", "Features": "fp asimd evtstrm fphp asimdhp cpuid"}
    monkeypatch.setattr(machine, "_cpuinfo", lines.__getitem__)
    assert float16_on_cpu.adds_up_in_float16()
    lines["Features"] = "fp asimd evtstrm aes"
    assert not float16_on_cpu.adds_up_in_float16()


def test_float16_input_is_for_fp16_alone(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--precision", "fp32", "--io-dtype", "fp16", "-o", tmp_path / "out")
    assert ran.code == 2 and "--io-dtype fp16 is for --precision fp16" in ran.err
    assert left_behind(tmp_path) == ["small.pt"]


@pytest.mark.parametrize(
    ("largest", "overflows"),
    [(65504, False), (65519.9, False), (65520, True), (1e30, True), (np.inf, True), (np.nan, True)],
)
def test_what_rounds_to_infinity_overflows(largest: float, overflows: bool) -> None:
    found = spans(lambda x: {"x": x}, {"a": np.full((1, 1, 2, 2), largest, np.float32)})["x"]
    assert found.overflows == overflows
    with np.errstate(over="ignore"):
        assert np.isfinite(np.float32(largest).astype(np.float16)) == (not overflows)


def test_what_rounds_to_zero_vanishes_and_zeros_do_not_count() -> None:
    x = np.array([0, 0, 0, 1, -1, 2e-8, -2e-8, 2.0**-25, 6e-8, 1e-30], np.float32).reshape(1, 1, 2, 5)
    found = spans(lambda x: {"x": x}, {"a": x})["x"]
    assert found == Span(1.0, 4 / 7)
    assert int((x.astype(np.float16) == 0).sum()) == 3 + 4


@pytest.mark.parametrize(("count", "underflows"), [(1, False), (2, True)])
def test_one_lost_value_in_a_thousand_is_no_warning(count: int, underflows: bool) -> None:
    x = np.ones((1, 1, 10, 100), np.float32)
    x[0, 0, 0, :count] = 1e-9
    assert spans(lambda x: {"x": x}, {"a": x})["x"].underflows == underflows


def test_spans_see_every_sample_of_every_case() -> None:
    x = np.ones((3, 1, 2, 2), np.float32)
    y = np.ones((5, 1, 3, 1), np.float32)
    y[4, 0, 2, 0] = -7e4
    found = spans(lambda x: {"whole": x, "half": x / 2}, {"x": x, "y": y})
    assert found["whole"] == Span(7e4, 0.0) and found["half"] == Span(3.5e4, 0.0)
    assert "empty" not in spans(lambda x: {"empty": x[:0], "x": x}, {"x": x})
    fixed = spans(lambda x: {"batch": np.full(1, len(x), np.float32)}, {"y": y}, 4)
    assert fixed["batch"].largest == 4


def test_the_spans_of_weights_are_those_of_float_constants_alone() -> None:
    model = graph(small_spec())
    found = weight_spans(model)
    assert set(found) == {n for n, v in model.graph.initializers.items() if v.dtype == FLOAT}
    name = "stage0.blocks.1.fc3.weight"
    assert found[name].largest == np.abs(model.graph.initializers[name].const_value.numpy()).max()  # type: ignore[union-attr]
