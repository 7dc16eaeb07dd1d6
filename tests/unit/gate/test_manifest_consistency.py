"""A manifest is compared with itself and with its artifact's own record: each difference is found by the check that is for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.gate import manifest_consistency
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.manifest import GoldenImage, Interface, Manifest

CLASSES = 7
Change = Callable[[Manifest], dict[str, Any]]


@pytest.fixture(scope="module")
def manifest(pristine: Path) -> Manifest:
    labels = tuple(f"kind {i}" for i in range(CLASSES))
    shown = GoldenImage(file="image-00.png", label=CLASSES - 1)
    return read_manifest(pristine).model_copy(update={"labels": labels, "golden_images": (shown,)})


def recorded_by(manifest: Manifest) -> Description:
    """What an ONNX model that was written with ``manifest`` says of itself."""
    metadata = {
        "s2mlp.spec": json.dumps(manifest.spec.to_json()),
        "s2mlp.preprocessing": manifest.preprocessing.model_dump_json() if manifest.preprocessing else "",
        "s2mlp.interface": manifest.interface.model_dump_json(),
        "s2mlp.labels": json.dumps(manifest.labels),
        "s2mlp.checkpoint_sha256": manifest.source.sha256,
    }
    return Description((manifest.input,), (manifest.output,), metadata)


def refusal(manifest: Manifest, artifact: Description | None) -> str:
    with pytest.raises(BundleError) as refused:
        manifest_consistency.check(manifest, artifact, Path("manifest.json"))
    return str(refused.value).partition("beside it: ")[2].partition(". The bundle")[0]


def preprocessing(**changes: Any) -> Change:
    return lambda m: {"preprocessing": m.images.model_copy(update=changes)}


def test_what_agrees_passes_with_and_without_a_record(manifest: Manifest) -> None:
    for artifact in (recorded_by(manifest), Description((manifest.input,), (manifest.output,), {}), None):
        manifest_consistency.check(manifest, artifact, Path("manifest.json"))


ALIKE: dict[str, tuple[Change, str]] = {
    "a label too few": (lambda m: {"labels": m.labels and m.labels[1:]}, "it has 6 labels for 7 classes"),
    "a golden image of the class behind the last": (
        lambda m: {"golden_images": (GoldenImage(file="image-00.png", label=CLASSES),)},
        "a golden image has a class beyond the 7 that there are",
    ),
    "a mean too few": (preprocessing(mean=(0.5,) * 2), "mean and std have 2 and 3 values for 3 channels"),
    "a std too few": (preprocessing(std=(0.5,) * 2), "mean and std have 3 and 2 values for 3 channels"),
    "grey for colour": (preprocessing(channel_order="L"), "the channel order is L for 3 channels"),
    "height and width exchanged": (
        lambda m: {"input": m.input.model_copy(update={"shape": ("batch", 3, 28, 20)})},
        "input is input float32 [batch, 3, 28, 20] NCHW, and of this model it is input float32 [batch, 3, 20, 28] NCHW",
    ),
    "logits in float16": (
        lambda m: {"output": m.output.model_copy(update={"dtype": "float16"})},
        "output is logits float16 [batch, 7], and of this model it is logits float32 [batch, 7]",
    ),
    "best classes that there are not": (
        lambda m: {"output_classes": m.output},
        "output_classes is logits float32 [batch, 7], and of this model it is nothing",
    ),
}
"""Changes of the manifest and of the model's record alike."""


@pytest.mark.parametrize(("change", "found"), ALIKE.values(), ids=ALIKE)
def test_a_manifest_that_contradicts_itself_is_refused(change: Change, found: str, manifest: Manifest) -> None:
    changed = manifest.model_copy(update=change(manifest))
    assert found in refusal(changed, recorded_by(changed))
    assert found in refusal(changed, None)


ALONE: dict[str, tuple[Change, str]] = {
    "labels": (lambda m: {"labels": m.labels and m.labels[::-1]}, "labels differs from"),
    "no labels": (lambda m: {"labels": None}, "labels differs from"),
    "preprocessing": (preprocessing(mean=(0.4,) * 3), "preprocessing differs from"),
    "shift": (lambda m: {"spec": m.classifier.with_semantics("inplace")}, "spec differs from"),
    "epsilon": (lambda m: {"spec": replace(m.classifier, norm_epsilon=1e-6)}, "spec differs from"),
    "checkpoint": (
        lambda m: {"source": m.source.model_copy(update={"sha256": "0" * 64})},
        "the model was made from another checkpoint",
    ),
}
"""Changes of the manifest alone, and the one difference that is found."""


@pytest.mark.parametrize(("change", "found"), ALONE.values(), ids=ALONE)
def test_a_manifest_that_contradicts_its_model_is_refused(change: Change, found: str, manifest: Manifest) -> None:
    told = refusal(manifest.model_copy(update=change(manifest)), recorded_by(manifest))
    assert found in told and ";" not in told


def test_another_interface_than_the_models_is_refused(manifest: Manifest) -> None:
    record = recorded_by(manifest.model_copy(update={"interface": Interface(output="probabilities")}))
    assert refusal(manifest, record) == "interface differs from what the model itself records"


@pytest.mark.parametrize("name", ["spec", "preprocessing", "interface", "labels"])
@pytest.mark.parametrize("damage", ["", "{", '{"family": "none"}', "7"])
def test_a_damaged_record_differs(name: str, damage: str, manifest: Manifest) -> None:
    record = recorded_by(manifest)
    record = replace(record, metadata={**record.metadata, f"s2mlp.{name}": damage})
    assert refusal(manifest, record) == f"{name} differs from what the model itself records"


@pytest.mark.parametrize(
    "change", [{"name": "scores"}, {"dtype": "float16"}, {"shape": ("batch", 8)}, {"shape": (4, 7)}, {"shape": (7,)}]
)
def test_outputs_that_the_artifact_does_not_have_are_refused(change: dict[str, Any], manifest: Manifest) -> None:
    record = recorded_by(manifest)
    (output,) = record.outputs
    assert "and the artifact has" in refusal(manifest, replace(record, outputs=(output.model_copy(update=change),)))
    assert "and the artifact has" in refusal(manifest, replace(record, outputs=(output, output)))


def test_free_axes_may_have_any_name(manifest: Manifest) -> None:
    record = recorded_by(manifest)
    output = record.outputs[0].model_copy(update={"shape": ("N", 7)})
    manifest_consistency.check(manifest, replace(record, outputs=(output,)), Path("manifest.json"))
