"""The manifest says everything once, in one order, and is read back strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from helpers.support import pyramid_spec, run, save_checkpoint, small_spec, with_biases, with_stem_norms
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.families.registry import read_spec
from s2mlp_deploy.families.s2mlp.spec import LAYERS, PRESETS, S2MLPSpec
from s2mlp_deploy.schema.manifest import Manifest, parse_manifest
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift

SPECS = {
    "small": small_spec(),
    "pyramid": pyramid_spec(),
    "eight directions in place": small_spec(shift=Shift(DIRECTIONS["8"], "inplace")),
    "far and diagonal": small_spec(shift=Shift(((3, -2), (0, 5), (-1, 0)))),
    "zero border": small_spec(shift=Shift(border="zero")),
    "wrapped border": small_spec(shift=Shift(DIRECTIONS["8"], border="wrap")),
    "stem norms": with_stem_norms(pyramid_spec()),
    "norm after the mean": replace(small_spec(), final_norm=True, norm_after_mean=True),
    "no biases": with_biases(small_spec(), frozenset()),
    "some biases": with_biases(small_spec(), frozenset({"fc1", "norm2", "fc"})),
    "final norm": replace(small_spec(), final_norm=True, norm_epsilon=1e-6, in_channels=1),
    **PRESETS,
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of a small bundle."""
    directory = tmp_path_factory.mktemp("manifest")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", directory / "bundle").code == 0
    path = directory / "bundle" / "manifest.json"
    return parse_manifest(path.read_bytes(), str(path), read_spec)


def changed(manifest: Manifest, change: Callable[[dict[str, Any]], object]) -> str:
    """The manifest's JSON after ``change``."""
    content = json.loads(manifest.to_json())
    change(content)
    return json.dumps(content)


def test_a_manifest_is_the_same_after_writing_and_reading(manifest: Manifest) -> None:
    text = manifest.to_json()
    again = parse_manifest(text, "here", read_spec)
    assert again == manifest and again.to_json() == text


def test_it_is_written_for_people_too(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert text.startswith('{\n  "schema_version": 1,\n  "tool_version": ') and text.endswith("}\n")
    assert list(json.loads(text)) == list(Manifest.model_fields)


def test_labels_stay_readable_in_any_script(manifest: Manifest) -> None:
    labelled = manifest.model_copy(update={"labels": ("кошка", "犬", 'a "quoted" one')})
    assert "кошка" in labelled.to_json() and "犬" in labelled.to_json()
    assert parse_manifest(labelled.to_json().encode(), "here", read_spec).labels == labelled.labels


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_a_spec_is_the_same_after_a_round_trip_through_json(spec: S2MLPSpec) -> None:
    assert read_spec(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_written_before_there_was_a_choice_of_border_and_norm_means_what_the_defaults_mean() -> None:
    entry = replace(small_spec(), final_norm=True).to_json()
    for name in ("shift_border", "norm_after_mean"):
        del entry[name]
    for stage in entry["stages"]:
        del stage["stem_norm"]
    assert read_spec(entry) == replace(small_spec(), final_norm=True)


def test_biases_stand_in_one_order_whatever_the_sets_order() -> None:
    assert small_spec().to_json()["biases"] == sorted(small_spec().biases)


def test_a_manifest_cannot_be_changed_in_place(manifest: Manifest) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest.verdict = "not judged"  # type: ignore[misc]


OPTIONAL = {"schema_version", "arithmetic", "labels", "interface", "output_classes", "golden_images"}


@pytest.mark.parametrize("field", sorted(set(Manifest.model_fields) - OPTIONAL))
def test_every_field_is_needed(manifest: Manifest, field: str) -> None:
    with pytest.raises(BundleError, match=f"here: {field}: Field required"):
        parse_manifest(changed(manifest, lambda m: m.pop(field)), "here", read_spec)


@pytest.mark.parametrize("path", [(), ("spec",), ("source",), ("preprocessing",), ("input",), ("tolerance",)])
def test_no_level_has_room_for_unknown_fields(manifest: Manifest, path: tuple[str, ...]) -> None:
    def change(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        content["extra"] = 1

    with pytest.raises(BundleError, match=rf"{'.'.join((*path, 'extra'))}: Extra inputs are not permitted"):
        parse_manifest(changed(manifest, change), "here", read_spec)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("verdict", lambda m: m.update(verdict="failed")),
        ("spec.shift_semantics", lambda m: m["spec"].update(shift_semantics="either")),
        ("spec.stages.0.kernel", lambda m: m["spec"]["stages"][0].update(kernel=[4, 4, 4])),
        ("spec.stages.0.padding.1", lambda m: m["spec"]["stages"][0].update(padding=[0, -1])),
        ("spec.norm_epsilon", lambda m: m["spec"].update(norm_epsilon=float("nan"))),
        ("preprocessing.std.2", lambda m: m["preprocessing"].update(std=[1, 1, 0])),
        ("preprocessing.channel_order", lambda m: m["preprocessing"].update(channel_order="BGR")),
        ("input", lambda m: m["input"].update(shape=[])),
        ("source.sha256", lambda m: m["source"].update(sha256="0" * 63)),
        ("files", lambda m: m["files"].update({"a/b": "0" * 64})),
        ("tolerance.relative_l2", lambda m: m["tolerance"].update(relative_l2=float("inf"))),
        ("precision: Value error, 'fp12' is no precision of this release", lambda m: m.update(precision="fp12")),
    ],
)
def test_an_error_names_the_file_and_the_place(
    manifest: Manifest, place: str, change: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(changed(manifest, change), "some/manifest.json", read_spec)
    assert str(caught.value).startswith(f"some/manifest.json: {place}") and "copy it again" in str(caught.value)


def test_a_spec_without_stages_is_refused(manifest: Manifest) -> None:
    with pytest.raises(BundleError, match="here: spec: a model needs at least one stage"):
        parse_manifest(changed(manifest, lambda m: m["spec"].update(stages=[])), "here", read_spec)


def test_the_same_key_twice_is_refused_on_every_level(manifest: Manifest) -> None:
    text = manifest.to_json()
    for key in ("classes", "sha256", "kernel"):
        first = text.index(f'"{key}":')
        doubled = text[:first] + f'"{key}": 1, ' + text[first:]
        with pytest.raises(BundleError, match="twice"):
            parse_manifest(doubled, "here", read_spec)


def test_a_manifest_in_another_encoding_is_refused(manifest: Manifest) -> None:
    labelled = manifest.model_copy(update={"labels": ("café",)})
    with pytest.raises(BundleError, match="not valid JSON"):
        parse_manifest(labelled.to_json().encode("latin-1"), "here", read_spec)


def test_the_manifest_of_an_export_names_what_it_came_from(manifest: Manifest) -> None:
    assert manifest.spec == with_biases(small_spec(), frozenset(LAYERS) - {"norm", "stem_norm"})
    assert (manifest.format, manifest.precision, manifest.verdict) == ("onnx", "fp32", "passed")
    assert manifest.source.layout == "canonical" and manifest.source.weights == "model"
    assert manifest.input.shape == ("batch", 3, 20, 28) and manifest.output.shape == ("batch", 7)
    assert manifest.versions.keys() >= {"onnx", "onnx-ir", "onnxsim", "torch", "numpy"}
