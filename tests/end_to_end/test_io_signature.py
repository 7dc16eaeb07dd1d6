"""Artifacts that take bytes or an image of any size, and give probabilities or the best classes, compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from PIL import Image

from helpers.support import Ran, pyramid_spec, random_model, run, save_checkpoint, small_spec, weights_of, with_biases
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.errors import ParityError, UsageError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, single_stage
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate import golden, io_adapter, reference_logits
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.probabilities import softmax
from s2mlp_deploy.graph.resize import FILTERS, emit_fit
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import Resize
from s2mlp_deploy.schema.manifest import Interface, Preprocessing
from s2mlp_deploy.schema.size import Size

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNEVEN = Preprocessing(mean=(0.1, 0.5, 0.9), std=(0.1, 0.3, 0.7))
SIZES = [(20, 28), (41, 57), (7, 5), (1, 1), (300, 20), (20, 300), (13, 64), (200, 201), (1, 90)]


def lowered(spec: S2MLPSpec, weights: dict[str, Array], *, batch: int | None = None) -> Lowered:
    return lower(spec, weights, LOWERINGS["gather"], Axes(batch, spec.image_size))


def opened(graph: Lowered, directory: Path) -> OnnxSession:
    directory.mkdir(exist_ok=True)
    target = registry.find("onnx")
    session = target.open(target.export(graph, directory))  # type: ignore[union-attr]
    assert isinstance(session, OnnxSession)
    return session


def attached(graph: Lowered, contract: Preprocessing, directory: Path, **kinds: Any) -> OnnxSession:
    return opened(replace(graph, model=attach_io.attach(graph, Interface(**kinds), contract)), directory)


def noise(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


# Bytes


def padded_spec() -> S2MLPSpec:
    spec = small_spec()
    stage = replace(spec.stages[0], embedding=replace(spec.stages[0].embedding, padding=(2, 1)))
    return replace(spec, stages=(stage,), image_size=(24, 30))


@pytest.mark.parametrize("contract", [IMAGENET, UNEVEN], ids=["ImageNet", "uneven"])
@pytest.mark.parametrize(
    "spec",
    [small_spec(), pyramid_spec(), with_biases(small_spec(), frozenset()), padded_spec()],
    ids=["small", "pyramid", "no biases", "padded"],
)
def test_bytes_give_the_logits_of_prepared_images(spec: S2MLPSpec, contract: Preprocessing, tmp_path: Path) -> None:
    model = random_model(spec)
    graph = lowered(spec, weights_of(model))
    raw = noise(3, *spec.image_size, 3)
    raw[0] = 0  # where zero padding would be seen to stand for another byte than the mean
    x = images.normalize(raw, contract)
    expected = reference_logits.run(model, x, torch.float64)
    found = attached(graph, contract, tmp_path, input="uint8").run(raw)
    own = np.abs(opened(graph, tmp_path / "float").run(x) - expected).max()
    assert found.dtype == np.float32 and np.abs(found - expected).max() <= 8 * max(own, 1e-6)


def test_normalization_goes_into_the_first_convolution() -> None:
    graph = lowered(small_spec(), weights_of(random_model(small_spec())))
    model = attach_io.attach(graph, Interface(input="uint8"), IMAGENET)
    assert [node.op_type for node in model.graph][:4] == ["Cast", "Transpose", "Sub", "Conv"]
    assert len(list(model.graph)) == len(list(graph.model.graph)) + 3
    assert not {"Mul", "Div"} & {node.op_type for node in model.graph}


def test_bytes_near_the_mean_lose_nothing_to_sums_that_nearly_cancel(tmp_path: Path) -> None:
    """With large patches and without taking the middle away first, they would be off twenty times as far."""
    spec = small_spec(channels=64, patch=16, image_size=(64, 96))
    save_checkpoint(tmp_path / "large.pt", spec)
    distances = []
    for options in ((), ("--input", "uint8")):
        ran = run("export", tmp_path / "large.pt", *options, "-o", tmp_path / f"out{len(options)}", "--json")
        assert ran.code == 0, ran.err
        checks = ran.json["exports"][0]["report"]["distances"]
        distances.append({case: figures["relative_l2"] for case, figures in checks.items()})
    floats, from_bytes = distances
    for case in ("faint", "border", "constant"):
        assert from_bytes[case] < 4 * floats[case], (case, floats, from_bytes)


def test_a_convolution_that_pads_is_left_alone_and_what_it_pads_is_normalized() -> None:
    graph = lowered(padded_spec(), weights_of(random_model(padded_spec())))
    model = attach_io.attach(graph, Interface(input="uint8"), IMAGENET)
    assert [node.op_type for node in model.graph][:5] == ["Cast", "Transpose", "Mul", "Sub", "Conv"]


def test_a_graph_in_half_precision_takes_bytes_in_full(tmp_path: Path) -> None:
    """Its first convolution folds what half precision would round away."""
    spec = small_spec()
    graph = lowered(spec, weights_of(random_model(spec)))
    model = run_passes(graph.model, ToFloat16(), CastIo(ir.DataType.FLOAT))
    half = replace(graph, model=model, precision="fp16")
    raw = noise(2, *spec.image_size, 3)
    x = images.normalize(raw, UNEVEN)
    expected = opened(graph, tmp_path / "full").run(x)
    found = attached(half, UNEVEN, tmp_path / "bytes", input="uint8").run(raw)
    own = np.linalg.norm(opened(half, tmp_path / "half").run(x) - expected)
    assert np.linalg.norm(found - expected) <= 2 * own


def test_the_graph_that_is_attached_to_stays_as_it_is() -> None:
    graph = lowered(small_spec(), weights_of(random_model(small_spec())))
    before = ir.to_proto(graph.model).SerializeToString(deterministic=True)
    attach_io.attach(graph, Interface(input="image", output="top5"), IMAGENET)
    assert ir.to_proto(graph.model).SerializeToString(deterministic=True) == before
    assert attach_io.attach(graph, Interface(), IMAGENET) is graph.model


# Images of any size


def resizing(contract: Preprocessing, size: Size, channels: int, path: Path) -> Callable[[Array], Array]:
    """The head that resizes, alone."""
    shape = ir.Shape([1, "height", "width", channels])
    image = ir.Value(name="input", type=ir.TensorType(ir.DataType.UINT8), shape=shape)
    out = GraphBuilder()
    y = emit_fit(out, image, contract, size)
    y.type, y.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape([1, channels, *size])
    graph = ir.Graph(
        [image], [y], nodes=out.nodes, initializers=list(out.initializers.values()), opset_imports={"": 20}, name="fit"
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=9))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    session = OnnxSession(path)
    return lambda pixels: session.run(pixels[None])[0].transpose(1, 2, 0)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", get_args(Resize))
@pytest.mark.parametrize("fraction", [1.0, 0.875, 0.6])
def test_the_graph_resizes_as_pillow_does_to_the_byte(
    interpolation: Any, resize: Any, fraction: float, tmp_path: Path
) -> None:
    for channels in (3, 1):
        contract = Preprocessing(
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            channel_order="RGB" if channels == 3 else "L",
            resize=resize,
            interpolation=interpolation,
            crop_fraction=fraction,
        )
        fit = resizing(contract, (20, 28), channels, tmp_path / "fit.onnx")
        for size in SIZES:
            pixels = noise(*size, channels)
            expected = images.fitted_bytes(pixels, contract, (20, 28))
            np.testing.assert_array_equal(fit(pixels), expected, err_msg=str((size, channels)))


def test_black_white_and_edges_do_not_overflow(tmp_path: Path) -> None:
    contract = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="lanczos")
    fit = resizing(contract, (20, 28), 3, tmp_path / "fit.onnx")
    pixels = np.zeros((1200, 1700, 3), np.uint8)
    pixels[:, 850:] = pixels[600:, :400] = 255
    for image in (pixels, 255 - pixels, np.full_like(pixels, 255)):
        np.testing.assert_array_equal(fit(image), images.fitted_bytes(image, contract, (20, 28)))


def test_an_image_of_any_size_gives_the_logits_of_its_preparation(tmp_path: Path) -> None:
    spec = small_spec()
    model = random_model(spec)
    session = attached(lowered(spec, weights_of(model), batch=1), IMAGENET, tmp_path, input="image")
    for size in SIZES:
        raw = noise(1, *size, 3)
        x = images.normalize(images.fitted_bytes(raw[0], IMAGENET, spec.image_size), IMAGENET)[None]
        expected = reference_logits.run(model, x, torch.float64)
        assert np.linalg.norm(session.run(raw) - expected) <= 4e-6 * np.linalg.norm(expected), size


# Answers


def test_probabilities_and_the_best_of_them(tmp_path: Path) -> None:
    spec = small_spec(classes=9)
    graph = lowered(spec, weights_of(random_model(spec)))
    x = images.normalize(noise(4, *spec.image_size, 3), IMAGENET)
    expected = softmax(opened(graph, tmp_path / "l").run(x).astype(np.float64))
    found = attached(graph, IMAGENET, tmp_path / "p", output="probabilities").run(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    scores, classes = attached(graph, IMAGENET, tmp_path / "t", output="top5").rank(x)
    assert classes.dtype == np.int64 and classes.shape == (4, 5)
    np.testing.assert_array_equal(classes, np.argsort(-expected, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.sort(expected, axis=1)[:, ::-1][:, :5], rtol=1e-5)


def test_of_few_classes_all_are_the_best(tmp_path: Path) -> None:
    spec = small_spec(classes=3)
    session = attached(lowered(spec, weights_of(random_model(spec))), IMAGENET, tmp_path, output="top5")
    scores, classes = session.rank(images.normalize(noise(2, *spec.image_size, 3), IMAGENET))
    assert scores.shape == (2, 3) and np.sort(classes).tolist() == [[0, 1, 2]] * 2


LOGITS = np.random.default_rng(0).standard_normal((6, 9)) * 3
PROBABILITIES, TOP5 = Interface(output="probabilities"), Interface(output="top5")


def best_of(probabilities: Array) -> Array:
    return np.where(probabilities >= np.sort(probabilities, axis=1)[:, [-5]], probabilities, -np.inf)


@pytest.mark.parametrize("kind", [PROBABILITIES, TOP5], ids=lambda k: k.output)
def test_right_answers_speak_for_the_references_logits(kind: Interface) -> None:
    given = softmax(LOGITS)
    given = best_of(given) if kind is TOP5 else given
    np.testing.assert_allclose(io_adapter.as_logits(given, LOGITS, kind), LOGITS, atol=1e-12)


@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("kind", [PROBABILITIES, TOP5], ids=lambda k: k.output)
def test_answers_of_logits_within_a_tolerance_stay_within_it(kind: Interface, error: float) -> None:
    rng = np.random.default_rng(1)
    for scale in (0.1, 1, 5):
        logits = LOGITS * scale
        off = rng.standard_normal(logits.shape)
        off *= error * np.linalg.norm(logits, axis=1, keepdims=True) / np.linalg.norm(off, axis=1, keepdims=True)
        given = softmax(logits + off)
        found = io_adapter.as_logits(best_of(given) if kind is TOP5 else given, logits, kind)
        distance = np.linalg.norm(found - logits, axis=1) / np.linalg.norm(logits, axis=1)
        # Where the reference itself nearly ties, another class moves ahead by as little.
        assert (distance <= error * (1 + 1e-6) + 1e-12).all()
        np.testing.assert_array_equal(found.argmax(1), given.argmax(1))


def test_a_class_that_is_wrongly_left_out_is_seen() -> None:
    given = softmax(LOGITS)
    wrong = best_of(given)
    rows = np.arange(len(wrong))
    second, sixth = np.argsort(-given, axis=1)[:, [1, 5]].T
    wrong[rows, sixth], wrong[rows, second] = wrong[rows, second], -np.inf
    assert np.abs(io_adapter.as_logits(wrong, LOGITS, TOP5) - LOGITS).max(axis=1).min() > 1e-3


def test_answers_that_are_not_numbers_stay_so() -> None:
    for kind in (PROBABILITIES, TOP5):
        assert np.isnan(io_adapter.as_logits(np.full_like(LOGITS, np.nan), LOGITS, kind)).any(axis=1).all()


# The gate on each kind of artifact, and what it catches


def damage(name: str) -> Callable[[ir.Graph], None]:
    return {
        "BGR": lambda g: _weights(g, lambda w: w[:, ::-1]),
        "mean and std swapped": lambda g: None,  # by the contract that the head is written for
        "not scaled": lambda g: _weights(g, lambda w: w * 255),
        "mean left out": lambda g: _constant(g, "input/centre", np.zeros_like),
        "bias left out": lambda g: _constant(g, "stage0.embedding.weight.bias.folded", np.zeros_like),
        "rows for columns": lambda g: _node(g, "input/pixels").attributes.update(
            perm=ir.AttrInt64s("perm", [0, 3, 2, 1])
        ),
        "labels permuted": lambda g: _constant(g, "head.fc.weight", lambda w: np.roll(w, 1, axis=0)),
        "softmax over the batch": lambda g: _node(g, "probabilities").attributes.update(axis=ir.AttrInt64("axis", 0)),
        "the worst for the best": lambda g: _node(g, "top5_scores").attributes.update(
            largest=ir.AttrInt64("largest", 0)
        ),
    }[name]


def _node(graph: ir.Graph, name: str) -> ir.Node:
    return next(n for n in graph if n.name == name)


def _constant(graph: ir.Graph, name: str, change: Callable[[Array], Array]) -> None:
    value = graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.Tensor(np.ascontiguousarray(change(value.const_value.numpy())), name=name)


def _weights(graph: ir.Graph, change: Callable[[Array], Array]) -> None:
    _constant(graph, "stage0.embedding.weight.folded", change)


SQUARE = single_stage(channels=16, depth=1, patch=4, expansion=2, classes=7, image_size=(24, 24))


def verdict(kind: Interface, fault: str | None, directory: Path, written_for: Preprocessing = UNEVEN) -> Verdict:
    model = random_model(SQUARE)
    graph = lowered(SQUARE, weights_of(model), batch=1 if kind.input == "image" else None)
    test_inputs = IoAdapter(UNEVEN, SQUARE.image_size, ArtifactIo(interface=kind)).test_inputs(
        golden.make_inputs(SQUARE, graph.axes)
    )
    golden_reference = reference_logits.compute_reference(model, test_inputs.prepared)
    tolerance = tolerance_for("fp32", golden_reference)
    damaged = attach_io.attach(graph, kind, written_for)
    if fault:
        damage(fault)(damaged.graph)
    session = opened(replace(graph, model=damaged), directory)
    return gate(
        session, replace(golden_reference.golden, inputs=test_inputs.raw), tolerance, ArtifactIo(graph.axes.batch, kind)
    )


@pytest.mark.parametrize("output", ["logits", "probabilities", "top5"])
@pytest.mark.parametrize("input", ["float", "uint8", "image"])
def test_the_gate_passes_healthy_artifacts(input: Any, output: Any, tmp_path: Path) -> None:
    found = verdict(Interface(input=input, output=output), None, tmp_path)
    assert found.passed, found.failures


@pytest.mark.parametrize("output", ["logits", "probabilities", "top5"])
@pytest.mark.parametrize("input", ["uint8", "image"])
@pytest.mark.parametrize("fault", ["BGR", "not scaled", "mean left out", "labels permuted"])
def test_the_gate_catches(fault: str, input: Any, output: Any, tmp_path: Path) -> None:
    assert not verdict(Interface(input=input, output=output), fault, tmp_path).passed


def test_the_gate_catches_other_faults_of_heads_and_tails(tmp_path: Path) -> None:
    assert not verdict(Interface(input="uint8"), "rows for columns", tmp_path / "a").passed
    swapped = UNEVEN.model_copy(update={"mean": UNEVEN.std, "std": (0.1, 0.5, 0.9)})
    assert not verdict(Interface(input="uint8"), None, tmp_path / "b", swapped).passed
    assert not verdict(Interface(output="probabilities"), "softmax over the batch", tmp_path / "c").passed
    with pytest.raises(ParityError, match="does not name its best classes"):
        verdict(Interface(output="top5"), "the worst for the best", tmp_path / "d")


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "bilinear"},
        {"interpolation": "lanczos"},
        {"resize": "squash"},
        {"crop_fraction": 0.95},
        {"resize": "shorter-then-crop"},
    ],
    ids=str,
)
def test_the_gate_catches_another_way_to_resize_in_the_graph(change: dict[str, Any], tmp_path: Path) -> None:
    found = verdict(Interface(input="image"), None, tmp_path, UNEVEN.model_copy(update=change))
    failed = {check.case for check in found.failures}
    assert any(case.startswith("noise-") for case in failed)
    # An image of the model's size is resized by a crop alone.
    assert ("noise" in failed) == ("crop_fraction" in change)


# Through the commands


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and images of odd sizes labelled by the model itself."""
    place = tmp_path_factory.mktemp("data")
    spec = small_spec()
    checkpoint = save_checkpoint(place / "small.pt", spec)
    model, contract = random_model(spec), Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    for i in range(40):
        rng = np.random.default_rng(i)
        image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((31 + i, 52 - i))
        image.save(place / "a.png")
        label = int(reference_logits.run(model, images.load([place / "a.png"], contract, spec.image_size)).argmax())
        (place / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        (place / "a.png").rename(place / "images" / str(label) / f"{i}.png")
    assert checkpoint.exists()
    return place


def export(data: Path, out: Path, *options: object) -> Ran:
    return run("export", data / "small.pt", "--data", data / "images", "-o", out, *options)


KINDS = [
    ("uint8", "logits", "fp32"),
    ("uint8", "top5", "fp16"),
    ("uint8", "probabilities", "int8"),
    ("image", "logits", "fp16"),
    ("image", "top5", "int8"),
    ("image", "probabilities", "fp32"),
    ("float", "top5", "fp32"),
]


@pytest.mark.parametrize(("input", "output", "precision"), KINDS)
def test_every_kind_is_exported_compiled_verified_and_described(
    input: str, output: str, precision: str, data: Path, tmp_path: Path
) -> None:
    options = ("--input", input, "--answer", output, "--precision", precision)
    calibration = ("--calibration", data / "images", "--min-agreement", "0") if precision == "int8" else ()
    limit = ("--max-accuracy-drop", "100") if precision == "int8" else ()
    ran = export(data, tmp_path / "onnx", *options, *calibration, *limit)
    assert ran.code == 0, ran.err
    assert run("export", tmp_path / "onnx", "--format", "ort", "-o", tmp_path / "ort").code == 0
    for place in ("onnx", "ort"):
        verified = run("verify", tmp_path / place, *(["--per-block"] if place == "onnx" else []))
        assert verified.code == 0, verified.out + verified.err
        assert "8 golden images prepared here, from file to input: the same" in verified.out
    manifest = read_bundle(tmp_path / "ort").manifest
    assert manifest.interface == Interface(input=input, output=output)
    shape, layout = {
        "float": (("batch", 3, 20, 28), "NCHW"),
        "uint8": (("batch", 20, 28, 3), "NHWC"),
        "image": ((1, "height", "width", 3), "NHWC"),
    }[input]
    assert (manifest.input.shape, manifest.input.layout) == (shape, layout)
    assert manifest.input.dtype == ("float32" if input == "float" else "uint8")
    batch = shape[0]
    named = {
        "logits": [("logits", (batch, 7))],
        "probabilities": [("probabilities", (batch, 7))],
        "top5": [("top5_scores", (batch, 5)), ("top5_classes", (batch, 5))],
    }[output]
    found = [(entry.name, entry.shape) for entry in (manifest.output, manifest.output_classes) if entry]
    assert found == named
    graph = onnx.load(tmp_path / "onnx" / "model.onnx")
    assert [o.name for o in graph.graph.output] == [name for name, _ in named]
    props = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(props["s2mlp.interface"]) == {"input": input, "output": output}


def test_golden_tensors_hold_what_the_artifact_takes(data: Path, tmp_path: Path) -> None:
    for kind in ("uint8", "image"):
        assert export(data, tmp_path / kind, "--input", kind).code == 0
    taken = golden_tensors.load(tmp_path / "uint8" / "golden.safetensors").inputs
    assert {x.dtype for x in taken.values()} == {np.dtype(np.uint8)}
    assert taken["images"].shape == (8, 20, 28, 3) and taken["noise"].shape == (8, 20, 28, 3)
    sizes = {
        case: x.shape[1:3] for case, x in golden_tensors.load(tmp_path / "image" / "golden.safetensors").inputs.items()
    }
    assert {f"image-{i:02d}" for i in range(8)} < sizes.keys() and "images" not in sizes
    assert {(43, 85), (11, 17), (25, 25)} < set(sizes.values())


def test_all_labelled_images_check_an_artifact_that_resizes_from_their_files(data: Path, tmp_path: Path) -> None:
    ran = export(data, tmp_path / "again", "--input", "image", "--json")
    assert ran.code == 0, ran.err
    found = ran.json["exports"][0]["report"]["images"]
    assert found == {"count": 40, "accuracy": 1.0, "accuracy_pytorch": 1.0, "top1_agreement": 1.0}


def test_with_a_crop_an_artifact_that_resizes_is_shown_whole_files(data: Path, tmp_path: Path) -> None:
    contract = IMAGENET.model_copy(update={"crop_fraction": 0.8})
    spec = small_spec()
    model = random_model(spec)
    session = attached(lowered(spec, weights_of(model), batch=1), contract, tmp_path, input="image")
    files = sorted((data / "images").rglob("*.png"))[:5]
    x = images.load(files, contract, spec.image_size)
    expected = reference_logits.run(model, x)
    asked = IoAdapter(contract, spec.image_size, ArtifactIo(1, Interface(input="image")))
    np.testing.assert_allclose(asked.logits(session, x, expected, files), expected, atol=1e-5)
    with pytest.raises(UsageError, match="--crop-fraction below 1 is checked on image files"):
        asked.logits(session, x, expected)


@pytest.mark.parametrize(("kind", "output"), [("uint8", "top5"), ("image", "probabilities")])
def test_bundles_of_other_kinds_are_timed(kind: str, output: str, data: Path, tmp_path: Path) -> None:
    ran = export(data, tmp_path / "out", "--input", kind, "--answer", output, "--latency", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["comparison"][0]["latency"]["milliseconds"]["median"] > 0


def test_the_same_request_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert export(data, tmp_path / name, "--input", "image", "--answer", "top5").code == 0
    first, second = (
        {f.name: f.read_bytes() for f in (tmp_path / n).iterdir() if f.name != "report.json"} for n in "ab"
    )
    assert first == second


# What cannot be done as asked


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--input", "image", "--batch", "2"), "--input image takes one image of any size at a time, and --batch is 2"),
        (("--input", "image", "--dynamic-size"), "--input image brings every image to one size, which --dynamic-size"),
        (("--input", "image", "--interpolation", "nearest"), "cannot resize with --interpolation nearest"),
        (("--input", "uint8", "--precision", "fp16", "--io-dtype", "fp16"), "--io-dtype fp16 is for prepared images"),
        (("--input", "image", "--format", "trt-rtx"), "--format trt-rtx cannot be made with --input image"),
        (("--answer", "top5", "--format", "trt"), "--format trt cannot be made with --answer top5: expected logits"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    options: tuple[str, ...], problem: str, checkpoint: Path, tmp_path: Path
) -> None:
    ran = run("export", checkpoint, *options, "-o", tmp_path / "out")
    assert ran.code == 2 and problem in " ".join(ran.err.split())
    assert not (tmp_path / "out").exists()


def test_bytes_are_refused_for_models_of_other_channels(tmp_path: Path) -> None:
    spec = single_stage(channels=5, depth=1, patch=4, classes=3, image_size=(20, 28), in_channels=4)
    torch.save({"model": random_model(spec).state_dict(), "img_size": (20, 28)}, tmp_path / "four.pt")
    for kind in ("uint8", "image"):
        ran = run("export", tmp_path / "four.pt", "--input", kind, "-o", tmp_path / "out")
        assert ran.code == 2 and f"--input {kind} is for images, and the model takes 4 channels" in ran.err


def test_a_bundles_interface_is_settled(pristine: Path, tmp_path: Path) -> None:
    ran = run("export", pristine, "--format", "ort", "--input", "uint8", "-o", tmp_path / "out")
    assert ran.code == 2 and "--input, --answer: settled when" in ran.err


def test_bytes_of_any_height_and_width_go_with_a_dynamic_size(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--input", "uint8", "--dynamic-size", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert read_bundle(tmp_path / "out").manifest.input.shape == ("batch", "height", "width", 3)
    assert run("verify", tmp_path / "out").code == 0


def test_quantized_ends_take_normalized_bytes(data: Path, tmp_path: Path) -> None:
    options = ("--input", "uint8", "--precision", "int8", "--quantize-ends", "--max-accuracy-drop", "100")
    ran = export(data, tmp_path / "out", *options, "--calibration", data / "images")
    assert ran.code == 0, ran.err
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert [node.op_type for node in graph.node][:5] == ["Cast", "Transpose", "Mul", "Sub", "QuantizeLinear"]
