"""MLP-Mixer through the commands: exported, verified layer by layer, explained without a word of a shift."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from helpers.mixers import SIZE, lucidrains_mixer, randomised, timm
from helpers.support import ROOT, run

OPTIONS = ("--image-size", "20x28", "--mean", "0.5", "--std", "0.5")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return lucidrains_mixer()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: nn.Module) -> Path:
    """A folder with a checkpoint, ``mixer.pt``, and its bundle, ``bundle``."""
    directory = tmp_path_factory.mktemp("mixer")
    torch.save(model.state_dict(), directory / "mixer.pt")
    ran = run("export", directory / "mixer.pt", *OPTIONS, "-o", directory / "bundle")
    assert ran.code == 0, ran.err
    assert "shift" not in ran.out + ran.err
    return directory


def recording(place: Path, model: nn.Module, factor: float = 1) -> Path:
    images = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    safetensors.torch.save_file({"input": images, "logits": factor * model(images)}, place / "recorded.safetensors")
    return place / "recorded.safetensors"


def test_the_bundle_gives_the_logits_of_the_users_own_model(place: Path, model: nn.Module) -> None:
    images = torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(place / "bundle" / "model.onnx")
    logits = session.run(None, {"input": images.numpy()})[0]
    np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_shown_has_no_word_of_a_shift(place: Path) -> None:
    verified = run("verify", place / "bundle", "--per-block")
    assert verified.code == 0 and "block01" in verified.out and "no layer is further" in verified.out
    of_checkpoint = run("inspect", place / "mixer.pt", "--image-size", "20x28")
    assert "MLP-Mixer, 1 stage, 2 blocks" in of_checkpoint.out and "9 values over 35" in of_checkpoint.out
    of_bundle = run("inspect", place / "bundle")
    assert "layout lucidrains-mixer" in " ".join(of_bundle.out.split())
    for ran in (verified, of_checkpoint, of_bundle):
        assert "shift" not in (ran.out + ran.err).replace("shift_", "")
    manifest = json.loads((place / "bundle" / "manifest.json").read_text("utf-8"))
    assert manifest["lowering"] == "none" and manifest["spec"]["family"] == "mixer"


@pytest.mark.parametrize("batch", ["1", "3"])
def test_layers_are_compared_whatever_the_batch(place: Path, tmp_path: Path, batch: str) -> None:
    ran = run("export", place / "mixer.pt", *OPTIONS, "--batch", batch, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    verified = run("verify", tmp_path / "out", "--per-block")
    assert verified.code == 0 and "no layer is further" in verified.out


@pytest.mark.parametrize(("format", "precision"), [("ort", "fp16"), ("openvino", "int8"), ("onnx", "int8")])
def test_other_formats_and_precisions_pass_the_gate(place: Path, tmp_path: Path, format: str, precision: str) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((64, 3, *SIZE), np.float32))
    calibration = ("--calibration", tmp_path / "noise.npy", "--min-agreement", "0.9") if precision == "int8" else ()
    made = ("--format", format, "--precision", precision, *calibration, "-o", tmp_path / "out")
    ran = run("export", place / "mixer.pt", *OPTIONS, *made)
    assert ran.code == 0 and "PASSED" in ran.out, ran.err
    if (format, precision) == ("onnx", "int8"):
        nodes = [node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node]
        assert nodes.count("QuantizeLinear") == 2 * 4, "four products of each block"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shift", "slice"], "--shift slice: this network has no shift to lower: leave it out"),
        (["--shift-semantics", "paper"], "--shift-semantics: MLP-Mixer has no shift: leave it out"),
        (["--shift-semantics", "auto"], "--shift-semantics: MLP-Mixer has no shift: leave it out"),
        (["--shift-directions", "8"], "--shift-directions: MLP-Mixer has no shift: leave it out"),
        (
            ["--dynamic-size"],
            "--dynamic-size: the weights of MLP-Mixer are for images of one size, 20x28: leave it out",
        ),
    ],
)
def test_what_a_mixer_does_not_have_is_refused(place: Path, tmp_path: Path, options: list[str], said: str) -> None:
    ran = run("export", place / "mixer.pt", *OPTIONS, *options, "-o", tmp_path / "out")
    assert ran.code == 2 and said in ran.err and not (tmp_path / "out").exists()


def test_a_recording_is_compared_with_the_one_network_that_there_is(
    place: Path, tmp_path: Path, model: nn.Module
) -> None:
    reference = ("--reference", recording(tmp_path, model), "-o", tmp_path / "out")
    ran = run("export", place / "mixer.pt", *OPTIONS, *reference)
    assert ran.code == 0, ran.err
    assert "relative L2 over 4 samples: " in ran.out and "semantics" not in ran.out + ran.err
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    (evidence,) = report["evidence"]
    assert evidence["supports"] == "none" and evidence["measured"]["none"] < 1e-5


def test_a_recording_of_another_network_is_refused(place: Path, tmp_path: Path, model: nn.Module) -> None:
    reference = ("--reference", recording(tmp_path, model, 1.1), "-o", tmp_path / "out")
    ran = run("export", place / "mixer.pt", *OPTIONS, *reference)
    assert ran.code == 1 and "the network does not give the recorded logits: other preprocessing" in ran.err
    assert "semantics" not in ran.err and not (tmp_path / "out").exists()


def test_the_web_page_describes_it(place: Path) -> None:
    node = shutil.which("node") or pytest.skip("no Node.js")
    page = ROOT / "exporters" / "s2mlp_exporters" / "web" / "page" / "view.js"
    manifest = (place / "bundle" / "manifest.json").read_text("utf-8")
    code = f"""
        const said = [];
        const made = () => ({{ append: (...parts) => said.push(...parts), setAttribute() {{}} }});
        globalThis.document = {{ createElement: made }};
        const {{ facts }} = await import({json.dumps(page.as_uri())});
        facts("bundle", {manifest}, {{}}, "here");
        console.log(said.filter((part) => typeof part === "string").join("|"));
    """
    done = subprocess.run([node, "--input-type=module", "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "MLP-Mixer, 2 blocks, 7 classes, input 28 × 20" in done.stdout and "Shift" not in done.stdout


@pytest.mark.thorough
def test_timms_mixer_b16_passes_the_gate_to_one_millionth(tmp_path: Path) -> None:
    """Random weights of 59.9 M parameters; its image size follows from them."""
    model = randomised(timm().create_model("mixer_b16_224", pretrained=False))
    torch.save(model.state_dict(), tmp_path / "mixer_b16.pt")
    ran = run("export", tmp_path / "mixer_b16.pt", "--mean", "0.5", "--std", "0.5", "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert "224x224 is assumed" in ran.err
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert max(distance["relative_l2"] for distance in report["distances"].values()) < 1e-6
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    logits = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, {"input": images.numpy()})[0]
    np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-3, atol=1e-4)
