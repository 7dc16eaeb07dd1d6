"""A model of one logit, as BCEWithLogitsLoss trains it, tells two classes apart by its sign, wherever classes count."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image

from helpers.support import ROOT, Ran, random_model, run, small_spec, weights_of
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate import golden, io_adapter, reference_logits
from s2mlp_deploy.gate.checks import Verdict, check_logits
from s2mlp_deploy.gate.distance import compare, leading_class, scale_of
from s2mlp_deploy.gate.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.probabilities import probabilities
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Interface, Preprocessing
from s2mlp_deploy.schema.tolerance import Tolerance

SPEC = small_spec(classes=1)
CONTRACT = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
PROBABILITIES = Interface(output="probabilities")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose logit is positive for half of the images that lie beside it, in folders neg and pos."""
    place = tmp_path_factory.mktemp("one")
    model = random_model(SPEC)
    for i in range(64):
        rng = np.random.default_rng(i)
        colour = rng.integers(0, 256, (1, 1, 3)) * np.ones((5, 6, 1))
        pixels = (colour + rng.normal(0, 40, (5, 6, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((31 + i, 52 - i // 2)).save(place / f"{i:02d}.png")
    files = sorted(place.glob("*.png"))
    logits = reference_logits.run(model, images.load(files, CONTRACT, SPEC.image_size))[:, 0]
    middle = float(np.median(logits))
    model.head.fc.bias.sub_(middle)
    for file, logit in zip(files, logits, strict=True):
        folder = place / "images" / ("pos" if logit > middle else "neg")
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    options = {"img_size": list(SPEC.image_size), "mean": [0.5] * 3, "std": [0.25] * 3}
    torch.save({"model": model.state_dict(), "args": options}, place / "one.pt")
    torch.save({"model": model.state_dict(), **options, "class_names": ["neg", "pos"]}, place / "named.pt")
    return place


def export(data: Path, out: Path, *options: object, source: str = "one.pt") -> Ran:
    return run("export", data / source, "-o", out, *options)


@pytest.mark.parametrize(
    ("output", "precision"), [("logits", "fp32"), ("probabilities", "fp16"), ("probabilities", "int8")]
)
def test_it_is_exported_judged_compiled_and_verified(output: str, precision: str, data: Path, tmp_path: Path) -> None:
    options = ["--data", data / "images", "--answer", output, "--precision", precision, "--json"]
    if precision == "int8":
        options += ["--calibration", data / "images", "--max-accuracy-drop", "10"]
    ran = export(data, tmp_path / "onnx", *options)
    assert ran.code == 0, ran.err
    report = ran.json["exports"][0]["report"]
    assert report["data"]["classes"] == {"neg": 0, "pos": 1} and report["data"]["named_by"] == "order"
    if precision == "int8":
        assert report["trials"][-1]["float_accuracy"] == 1.0 and report["trials"][-1]["accuracy"] > 0.9
    else:
        assert report["images"] == {"count": 64, "accuracy": 1.0, "accuracy_pytorch": 1.0, "top1_agreement": 1.0}
    manifest = read_bundle(tmp_path / "onnx").manifest
    assert (manifest.output.name, manifest.output.shape) == (output, ("batch", 1))
    assert {image.label for image in manifest.golden_images} == {0, 1}
    assert run("export", tmp_path / "onnx", "--format", "ort", "-o", tmp_path / "ort").code == 0
    for place, more in (("onnx", ["--per-block"]), ("ort", [])):
        verified = run("verify", tmp_path / place, *more)
        assert verified.code == 0, verified.out + verified.err
        assert "1 logit for 2 classes" in verified.out


def test_folders_the_wrong_way_round_are_noticed(data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, other in (("neg", "1"), ("pos", "0")):
        shutil.copytree(data / "images" / name, tmp_path / "images" / other)
    ran = export(data, tmp_path / "out", "--data", tmp_path / "images")
    assert ran.code == 1 and "neither semantics does better than guessing" in ran.err


def test_its_two_labels_name_folders_and_go_into_the_bundle(data: Path, tmp_path: Path) -> None:
    ran = export(data, tmp_path / "named", "--data", data / "images", source="named.pt")
    assert ran.code == 0, ran.err
    assert read_bundle(tmp_path / "named").manifest.labels == ("neg", "pos")
    (tmp_path / "labels.txt").write_text("no\nyes\n")
    assert export(data, tmp_path / "given", "--labels", tmp_path / "labels.txt").code == 0
    assert read_bundle(tmp_path / "given").manifest.labels == ("no", "yes")
    (tmp_path / "labels.txt").write_text("yes\n")
    ran = export(data, tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert ran.code == 3 and "has 1 label, and the model has 2 classes" in ran.err
    assert "by the sign of one logit, named" in run("inspect", data / "named.pt").out


def test_the_best_of_one_are_refused(data: Path, tmp_path: Path) -> None:
    ran = export(data, tmp_path / "out", "--answer", "top5")
    assert (
        ran.code == 2
        and "--answer top5 ranks classes, and the model gives one logit: use --answer probabilities" in ran.err
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="one logit"):
        io_signature.refuse(Interface(output="top5"), CONTRACT, SPEC, dynamic_size=False)


def test_triton_gets_no_labels_since_it_takes_one_for_each_value(data: Path, tmp_path: Path) -> None:
    ran = export(data, tmp_path / "out", "--format", "triton", source="named.pt")
    assert ran.code == 0, ran.err
    assert not (tmp_path / "out" / "labels.txt").exists()
    assert "label_filename" not in (tmp_path / "out" / "config.pbtxt").read_text()


# The probability


def lowered() -> Lowered:
    return lower(SPEC, weights_of(random_model(SPEC)), LOWERINGS["gather"], Axes(None, SPEC.image_size))


def scaled(graph: Lowered, factor: float) -> Lowered:
    model = graph.model.clone()
    for name in ("head.fc.weight", "head.fc.bias"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.Tensor((value.const_value.numpy() * factor).astype(np.float32), name=name)
    return replace(graph, model=model)


@pytest.mark.parametrize("factor", [1.0, 30.0, -300.0])
def test_the_probability_is_the_sigmoid_of_the_logit(factor: float, tmp_path: Path) -> None:
    graph = scaled(lowered(), factor)
    x = np.random.default_rng(0).standard_normal((40, 3, *SPEC.image_size), dtype=np.float32)
    target = registry.find("onnx")
    found = []
    for kind in (Interface(), PROBABILITIES):
        (tmp_path / kind.output).mkdir()
        made = target.export(replace(graph, model=attach_io.attach(graph, kind, CONTRACT)), tmp_path / kind.output)  # type: ignore[union-attr]
        found.append(target.open(made).run(x))
    logits, probabilities = found
    assert probabilities.shape == (40, 1) and 0 <= probabilities.min() <= probabilities.max() <= 1
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5, atol=1e-37)


def verdict(fault: str | None, directory: Path) -> Verdict:
    graph, model = lowered(), random_model(SPEC)
    test_inputs = IoAdapter(CONTRACT, SPEC.image_size, ArtifactIo(interface=PROBABILITIES)).test_inputs(
        golden.make_inputs(SPEC, graph.axes)
    )
    golden_reference = reference_logits.compute_reference(model, test_inputs.prepared)
    damaged = attach_io.attach(graph, PROBABILITIES, CONTRACT)
    nodes = {node.name: node for node in damaged.graph}
    if fault == "softmax of the one logit":
        nodes["probabilities/both"].replace_input_with(0, damaged.graph.node(len(damaged.graph) - 4).outputs[0])
        nodes["probabilities"].attributes.update(axis=ir.AttrInt64("axis", 1))
        index = damaged.graph.initializers["probabilities/second"]
        index.const_value = ir.Tensor(np.array([0]), name=index.name)
    elif fault == "the other class":
        index = damaged.graph.initializers["probabilities/second"]
        index.const_value = ir.Tensor(np.array([0]), name=index.name)
    elif fault == "bias left out":
        bias = damaged.graph.initializers["head.fc.bias"]
        assert bias.const_value is not None
        bias.const_value = ir.Tensor(np.zeros_like(bias.const_value.numpy()), name=bias.name)
    target = registry.find("onnx")
    session = target.open(target.export(replace(graph, model=damaged), directory))  # type: ignore[union-attr]
    tolerance = tolerance_for("fp32", golden_reference)
    return gate(
        session,
        replace(golden_reference.golden, inputs=test_inputs.raw),
        tolerance,
        ArtifactIo(interface=PROBABILITIES),
    )


@pytest.mark.parametrize("fault", [None, "softmax of the one logit", "the other class", "bias left out"])
def test_the_gate_passes_the_sigmoid_and_catches_what_is_not(fault: str | None, tmp_path: Path) -> None:
    assert verdict(fault, tmp_path).passed == (fault is None)


LOGITS = np.random.default_rng(0).standard_normal((50, 1)) * 3


def test_a_right_probability_speaks_for_the_logit() -> None:
    given = probabilities(LOGITS)
    np.testing.assert_allclose(given, 1 / (1 + np.exp(-LOGITS)), rtol=1e-12)
    np.testing.assert_allclose(io_adapter.as_logits(given, LOGITS, PROBABILITIES), LOGITS, atol=1e-12)
    assert np.isnan(io_adapter.as_logits(np.full_like(LOGITS, np.nan), LOGITS, PROBABILITIES)).all()


@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_a_probability_of_a_logit_within_a_tolerance_stays_within_it(error: float, scale: float) -> None:
    logits = LOGITS * scale
    given = probabilities(logits + error * np.random.default_rng(1).choice([-1.0, 1.0], logits.shape))
    found = io_adapter.as_logits(given, logits, PROBABILITIES)
    assert (np.abs(found - logits) <= error * (1 + 1e-6) + 1e-12).all()
    np.testing.assert_array_equal(leading_class(found), (given[:, 0] > 0.5).astype(int))


# Distances


def test_a_logit_near_zero_is_not_far_away_for_what_rounds_everywhere() -> None:
    expected = np.array([[2.0], [-1.0], [1e-6], [0.0]])
    found = compare(expected + 1e-3, expected)
    assert found.relative_l2 == pytest.approx(1e-3 / np.sqrt(5 / 4))
    assert (
        found.top1_agreement == 0.75 and 0 <= found.margin <= found.relative_l2
    )  # 0 became 0.001, which may go either way
    assert found.cosine > 0.99999
    assert compare(-expected, expected).top1_agreement == 0.25


def test_all_cases_have_one_scale() -> None:
    outputs = {"noise": np.array([[2.0], [-1.0]]), "faint": np.array([[1.001e-3]])}
    expected = {"noise": np.array([[2.0], [-1.0]]), "faint": np.array([[1e-3]])}
    limit = Tolerance(relative_l2=1e-6, top1_agreement=1.0)
    assert check_logits(outputs, expected, limit).distances["faint"].relative_l2 == pytest.approx(
        1e-6 / np.sqrt(5 / 3), rel=1e-3
    )
    assert check_logits(outputs, expected, limit).passed
    outputs["faint"] = -outputs["faint"]
    assert not check_logits(outputs, expected, limit).passed


def test_logits_of_several_classes_have_no_common_scale() -> None:
    assert scale_of([np.ones((3, 2))]) is None
    assert compare(np.array([[1.0, 0], [2e-3, 0]]), np.array([[1.0, 0], [1e-3, 0]])).relative_l2 == pytest.approx(1.0)


# Programs


def test_the_python_program_names_the_class(data: Path, tmp_path: Path) -> None:
    assert export(data, tmp_path / "out", source="named.pt").code == 0
    for name in ("neg", "pos"):
        pictures = sorted((data / "images" / name).iterdir())[:4]
        command = [sys.executable, ROOT / "examples" / "apps" / "classify.py", tmp_path / "out", *pictures, "--json"]
        ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        for line in ran.stdout.splitlines():
            assert json.loads(line)["classes"][0] == name


NODE = shutil.which("node")


@pytest.mark.skipif(not NODE, reason="no node")
def test_the_page_ranks_two_classes_and_measures_as_the_gate_does() -> None:
    expected: Array = np.array([[2.0], [-1.0], [1e-3]], np.float32)
    actual = expected + np.float32([[1e-5], [-2e-5], [3e-5]])
    web = ROOT / "exporters" / "s2mlp_exporters" / "web" / "page"
    script = f"""
        import {{ compare, scaleOf }} from {json.dumps((web / "golden.js").as_uri())};
        import {{ ranking }} from {json.dumps((web / "view.js").as_uri())};
        const [actual, expected] = {json.dumps([actual[:, 0].tolist(), expected[:, 0].tolist()])}.map((x) => Float32Array.from(x));
        const scale = scaleOf([{{ logits: expected.subarray(0, 2) }}, {{ logits: expected.subarray(2) }}]);
        const tolerance = {{ relative_l2: 1e-4, top1_agreement: 1 }};
        console.log(JSON.stringify({{
          near: compare(actual, expected, 1, tolerance, scale),
          other: compare(Float32Array.from(expected, (x) => -x), expected, 1, tolerance, scale),
          named: ranking([-2], ["neg", "pos"]), unnamed: ranking([2], null),
        }}));
    """
    command = [str(NODE), "--input-type=module", "-e", script]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    distance = compare(actual, expected)
    assert found["near"]["relativeL2"] == pytest.approx(distance.relative_l2, rel=1e-6)
    assert found["near"]["passed"] and found["near"]["sameClass"] == 1
    assert not found["other"]["passed"] and found["other"]["sameClass"] == 0
    share = 1 / (1 + np.exp(-2.0))
    assert [(c["label"], c["share"]) for c in found["named"]] == [
        ("neg", pytest.approx(share)),
        ("pos", pytest.approx(1 - share)),
    ]
    assert [c["label"] for c in found["unnamed"]] == ["class 1", "class 0"]
