"""The bundled checkpoints, exported, on the images they were measured on.

All 10,000 test images need Debian's package dataset-fashion-mnist, or S2MLP_FASHION_MNIST pointing to
a directory with the same files; without either these tests are skipped. The 200 committed images are
always there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.fashion_mnist import needs_dataset, read, run_alone
from helpers.support import INPLACE_CHECKPOINT, PAPER_CHECKPOINT, ROOT, TEST_IMAGES, V2_CHECKPOINT
from s2mlp_deploy.data import image_folders, images
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import EvidenceOptions, ExportRequest, OutputOptions, Source
from s2mlp_deploy.schema.manifest import Preprocessing

each_checkpoint = pytest.mark.parametrize(
    "source", [PAPER_CHECKPOINT, INPLACE_CHECKPOINT, V2_CHECKPOINT], ids=["paper", "inplace", "v2"]
)


@needs_dataset
@each_checkpoint
def test_the_export_repeats_the_class_of_each_of_the_10_000_test_images(source: Path, tmp_path: Path) -> None:
    recipe = json.loads(source.with_suffix(".json").read_text())
    deploy(ExportRequest(Source(source, semantics=recipe["shift"]), output=OutputOptions(tmp_path / "out")))
    classes = run_alone(tmp_path / "out" / "model.onnx", read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28))
    np.testing.assert_array_equal(classes, np.load(source.with_suffix(".predictions.npy")))
    assert int((classes == read("t10k-labels-idx1-ubyte.gz", 8)).sum()) == recipe["test_correct"]


@pytest.mark.thorough
@needs_dataset
@pytest.mark.parametrize(
    ("source", "other"), [(PAPER_CHECKPOINT, "inplace"), (INPLACE_CHECKPOINT, "paper")], ids=["paper", "inplace"]
)
def test_the_wrong_shift_costs_what_readme_says(source: Path, other: str, tmp_path: Path) -> None:
    recipe = json.loads(source.with_suffix(".json").read_text())
    deploy(ExportRequest(Source(source, semantics=other), output=OutputOptions(tmp_path / "out")))
    classes = run_alone(tmp_path / "out" / "model.onnx", read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28))
    accuracy = np.mean(classes == read("t10k-labels-idx1-ubyte.gz", 8))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"| {recipe['test_correct'] / recipe['test_images']:.2%} | {accuracy:.2%}" in readme


@pytest.mark.parametrize(
    ("source", "least"), [(PAPER_CHECKPOINT, 0.88), (V2_CHECKPOINT, 0.84)], ids=["s2mlp", "s2mlp-v2"]
)
def test_the_bundled_checkpoints_are_small_and_were_trained_well(source: Path, least: float) -> None:
    recipe = json.loads(source.with_suffix(".json").read_text())
    assert recipe["test_correct"] >= least * recipe["test_images"]
    assert source.stat().st_size <= 2_000_000


@needs_dataset
def test_the_committed_images_are_those_of_the_data_set() -> None:
    pixels, labels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28), read("t10k-labels-idx1-ubyte.gz", 8)
    plain = Preprocessing(mean=(0.0,), std=(1.0,), channel_order="L", scale=1.0)
    found = image_folders.find_labelled(TEST_IMAGES, 10)
    assert len(found.paths) == 200
    for path, label in zip(found.paths, found.labels, strict=True):
        assert labels[int(path.stem)] == label
        np.testing.assert_array_equal(images.prepare(path, plain, (28, 28))[0], pixels[int(path.stem)])


@each_checkpoint
def test_the_committed_images_decide_the_semantics_and_keep_their_classes(source: Path, tmp_path: Path) -> None:
    export = deploy(
        ExportRequest(
            Source(source, semantics="auto"),
            evidence=EvidenceOptions(data=TEST_IMAGES),
            output=OutputOptions(tmp_path / "out"),
        )
    )
    recipe = json.loads(source.with_suffix(".json").read_text())
    assert export.bundle.manifest.spec.semantics == recipe["shift"]
    assert export.report.images.top1_agreement == 1.0
    assert export.report.images.accuracy == export.report.images.accuracy_pytorch


def test_logits_that_the_public_code_recorded_decide_the_semantics_of_s2mlp_v2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module that trained the checkpoint, in place on one thread, and its logits for random inputs."""
    monkeypatch.syspath_prepend(V2_CHECKPOINT.parent)
    from s2mlp_v2 import INPLACE_SHIFTS, S2MLPv2

    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(V2_CHECKPOINT)["model"]
    recipe = json.loads(V2_CHECKPOINT.with_suffix(".json").read_text())
    model = S2MLPv2(recipe["channels"], recipe["depth"], recipe["patch_size"], classes=10, shifts=INPLACE_SHIFTS).eval()
    model.load_state_dict(state)
    x, threads = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        logits = model(x)
    torch.set_num_threads(threads)
    np.savez(tmp_path / "reference.npz", input=x.numpy(), logits=logits.numpy())
    evidence = EvidenceOptions(reference=tmp_path / "reference.npz")
    source = Source(V2_CHECKPOINT, semantics="auto")
    export = deploy(ExportRequest(source, evidence=evidence, output=OutputOptions(tmp_path / "out")))
    (weighed,) = export.report.evidence
    assert export.bundle.manifest.spec.semantics == weighed.supports == "inplace"
    assert weighed.measured["inplace"] < 1e-6 and weighed.measured["paper"] > 1e-2
