"""``--card``: a model card that the hub's own reader takes, whose code runs and prepares images exactly; edited cards are never replaced."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("huggingface_hub", reason="no huggingface_hub, which timm brings")

from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from PIL import Image
from safetensors.numpy import load_file

from helpers import npm
from helpers.support import PAPER_CHECKPOINT, ROOT, TEST_IMAGES, run
from s2mlp_deploy.bundle.card import CARD, is_as_written, sealed
from s2mlp_deploy.bundle.read import read_bundle, read_manifest, read_report
from s2mlp_deploy.data import images as exported_images
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.model_card import _resize, model_card
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Interface, Preprocessing
from s2mlp_deploy.schema.report import Report

LITERT = ("litert",) if find_spec("ai_edge_litert") else ()
FORMATS = ("onnx", "ort", "openvino", *LITERT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each format with a card, of a trained checkpoint with labelled images."""
    place = tmp_path_factory.mktemp("cards")
    for format in FORMATS:
        source = PAPER_CHECKPOINT if format == "onnx" else place / "onnx"
        data = ("--data", TEST_IMAGES, "--data-count", 20) if format == "onnx" else ()
        ran = run("export", source, *data, "--format", format, "--card", "--license", "mit", "-o", place / format)
        assert ran.code == 0, ran.err
    return place


def metadata(card: str) -> dict[str, Any]:
    return dict(ModelCard(card).data.to_dict())


@pytest.mark.parametrize("format", FORMATS)
def test_the_hubs_reader_finds_what_the_bundle_says(place: Path, format: str) -> None:
    text = (place / format / CARD).read_text("utf-8")
    card = ModelCard(text)
    assert REGEX_YAML_BLOCK.search(text)
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "mit",
        "s2mlp-deploy",
        "image-classification",
    )
    assert card.data.tags == list(dict.fromkeys(["s2mlp", "onnx", format, "fp32"]))
    (result,) = card.data.eval_results
    report = read_report(read_bundle(place / format))
    assert report and report.accuracy == result.metric_value > 0.8
    assert (result.metric_type, result.dataset_type, result.task_type) == (
        "accuracy",
        "imagefolder",
        "image-classification",
    )
    assert "Sneaker" in card.text and f"{report.accuracy:.2%}" in card.text


def code_of(card: Path, language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", card.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.parametrize("format", FORMATS)
def test_its_python_prepares_a_picture_exactly_and_classifies_it(
    place: Path, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(place / format, tmp_path / "bundle"))
    golden = load_file("golden.safetensors")
    for row, name in enumerate(("image-00.png", "image-01.png")):
        shutil.copy(name, "picture.png")
        variables: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code_of(Path(CARD), "python"), variables)
        np.testing.assert_allclose(variables["prepared"][0], golden["input/images"][row], atol=1e-6)
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", out.getvalue())]
        first = numbers[0] if len(numbers) == 1 else int(np.argmax(numbers))
        assert first == golden["logits/images"][row].argmax()


@pytest.mark.parametrize("fraction", [1.0, 0.875])
@pytest.mark.parametrize("resize", ["shorter", "shorter-then-crop", "squash"])
@pytest.mark.parametrize("size", [(40, 61), (61, 40)])
def test_its_resizing_is_that_of_exports(resize: Any, fraction: float, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    images = Preprocessing(resize=resize, crop_fraction=fraction, mean=(0.0,) * 3, std=(1.0,) * 3)
    with Image.open(tmp_path / "x.png") as image:
        variables: dict[str, Any] = {"image": image}
        exec("from PIL import Image, ImageOps\n" + "\n".join(_resize(images, 20, 28)), variables)
    with Image.open(tmp_path / "x.png") as image:
        ours = exported_images.fit(image, images, (20, 28))
    np.testing.assert_array_equal(np.asarray(variables["image"]), np.asarray(ours))


@pytest.mark.parametrize("kind", ["uint8", "image"])
@pytest.mark.parametrize("answer", ["probabilities", "top5"])
def test_its_python_runs_with_other_interfaces(
    checkpoint: Path, kind: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("export", checkpoint, "--card", "--input", kind, "--answer", answer, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    monkeypatch.chdir(tmp_path / "out")
    pixels = np.random.default_rng(1).integers(0, 256, (24, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.png")
    variables: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code_of(Path(CARD), "python"), variables)
    assert variables[read_manifest(Path()).output.name].shape == ((1, 5) if answer == "top5" else (1, 7))


def test_the_same_bundle_gives_the_same_card_whatever_its_place_and_nothing_else_changes(
    checkpoint: Path, pristine: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert run("export", checkpoint, "--card", "-o", tmp_path / name).code == 0
    assert (tmp_path / "one" / CARD).read_bytes() == (tmp_path / "two" / CARD).read_bytes()
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (pristine / "manifest.json").read_bytes()
    assert "license" not in metadata((tmp_path / "one" / CARD).read_text("utf-8"))


def test_labels_and_names_are_no_markup(pristine: Path) -> None:
    found = read_bundle(pristine)
    labels = ("`](http://x)", "<script>", "a\nb: c", "---", "\x1b[31m", "é", "x" * 500)
    manifest = found.manifest.model_copy(update={"labels": labels})
    text = model_card(manifest, Report(), registry.find("onnx"), None)
    (line,) = [line for line in text.splitlines() if line.startswith("Classes")]
    assert line.count("`") == 2 * len(labels) and "\x1b" not in text and "`<script>`" in line
    assert metadata(text)["library_name"] == "s2mlp-deploy"
    assert "was not checked" in model_card(
        manifest.model_copy(update={"verdict": "not judged"}), Report(), registry.find("onnx"), None
    )


def test_a_repaired_network_has_a_card(tmp_path: Path) -> None:
    model = ROOT / "examples" / "naive_detector.onnx"
    ran = run("repair", model, "--shift-semantics", "paper", "--card", "--license", "other", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    text = (tmp_path / "out" / CARD).read_text("utf-8")
    assert metadata(text)["tags"] == ["repaired", "onnx", "fp32"] and "pipeline_tag" not in metadata(text)
    assert "session.run(None, inputs)" in text and "Preparing" not in text


def test_a_card_may_be_edited_and_force_replaces_no_edited_one(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", checkpoint, "--card", "-o", out).code == 0
    assert run("export", checkpoint, "--card", "--force", "-o", out).code == 0
    card = out / CARD
    card.write_text(card.read_text("utf-8").replace("## Figures", "## Our figures"), "utf-8")
    assert run("verify", out).code == 0
    ran = run("export", checkpoint, "--card", "--force", "-o", out)
    assert ran.code == 3 and "--force would delete it: move README.md elsewhere" in " ".join(ran.err.split())
    assert "## Our figures" in card.read_text("utf-8")


def test_a_seal_is_for_one_text(tmp_path: Path) -> None:
    file = tmp_path / CARD
    for text, right in (
        (sealed("a\n"), True),
        (sealed("a\n") + "\n", False),
        ("b\n" + sealed("a\n"), False),
        ("", False),
        ("a\n", False),
    ):
        file.write_text(text, "utf-8")
        assert is_as_written(file) is right
    file.unlink()
    assert not is_as_written(file)
    file.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text(sealed("a\n"))
    assert not is_as_written(file)


def test_a_licence_is_an_identifier_on_a_card(checkpoint: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--license", "mit"), "--license is for --card"),
        (("--card", "--license", "Apache License"), "expected an identifier as on the hub"),
        (("--card", "--license", "mit\ntags: x"), "expected an identifier as on the hub"),
    ):
        ran = run("export", checkpoint, *arguments, "-o", tmp_path / "out")
        assert ran.code == 2 and words in " ".join(ran.err.split()) and not (tmp_path / "out").exists()


@pytest.mark.npm("onnxruntime-web", "onnxruntime-node")
@pytest.mark.parametrize("package", ["onnxruntime-web", "onnxruntime-node"])
@pytest.mark.parametrize("format", ["onnx", "ort"])
def test_its_javascript_classifies_a_prepared_picture(place: Path, format: str, package: str, tmp_path: Path) -> None:
    golden = load_file(place / format / "golden.safetensors")
    assert run_js(place / format, package, golden["input/images"][:1], "logits", tmp_path) == pytest.approx(
        golden["logits/images"][0], rel=1e-4
    )


@pytest.mark.npm("onnxruntime-web")
def test_its_javascript_takes_bytes_and_gives_classes_where_the_bundle_does(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--card", "--input", "uint8", "--answer", "top5")
    assert run("export", checkpoint, *options, "-o", tmp_path / "out").code == 0
    golden = load_file(tmp_path / "out" / "golden.safetensors")
    inputs = golden["input/noise"][:1]
    assert inputs.dtype == np.uint8
    manifest = read_manifest(tmp_path / "out")
    assert manifest.output_classes is not None
    session = onnxruntime.InferenceSession(tmp_path / "out" / manifest.artifact)
    (expected,) = session.run([manifest.output_classes.name], {manifest.input.name: inputs})
    found = run_js(tmp_path / "out", "onnxruntime-web", inputs, manifest.output_classes.name, tmp_path)
    assert found == expected[0].tolist()


def run_js(bundle: Path, package: str, prepared: Array, output: str, place: Path) -> list[float]:
    """The numbers of ``output`` that the card's JavaScript computes with ``package`` in Node.js."""
    code = code_of(bundle / CARD, "js").replace("'onnxruntime-web'", f"'{package}'")
    arrays = {"float32": "Float32Array", "uint8": "Uint8Array"}
    numbers = json.dumps(prepared.ravel().tolist())
    script = place / "card.mjs"
    script.write_text(
        f"const prepared = new {arrays[str(prepared.dtype)]}({numbers});\n{code}\n"
        f"console.log(JSON.stringify(Array.from({output}.data, Number)));\n"
    )
    (place / npm.NODE_MODULES.name).symlink_to(npm.NODE_MODULES)
    around = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    ran = subprocess.run(["node", script], cwd=bundle, env=around, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [float(n) for n in json.loads(ran.stdout.splitlines()[-1])]


def test_javascript_names_the_input_and_the_output(place: Path, pristine: Path) -> None:
    code = code_of(place / "onnx" / CARD, "js")
    assert "create('model.onnx')" in code and "session.run({ input: input })" in code and "[1, 3, 28, 28]" in code
    manifest = read_manifest(pristine).model_copy(update={"interface": Interface(input="uint8")})
    assert "js" in registry.find("onnx").examples(manifest)
    assert json.loads(json.dumps(registry.find("triton").examples(manifest))) == {}
