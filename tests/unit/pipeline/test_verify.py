"""A bundle is checked on the machine at hand by the golden tensors that travel in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from helpers.damaged_bundles import alter_weight, rehash
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.formats.onnx import OnnxFile
from s2mlp_deploy.graph import writer
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.pipeline.verify import verify
from s2mlp_deploy.runtime.onnxruntime import TracedSession
from s2mlp_deploy.schema.spec import Embedding

LAYERS = ["stage0/embedding", "stage0/block00", "stage0/block01", "logits"]


def edit_golden(directory: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the golden tensors, hashes included."""
    tensors = load_file(directory / GOLDEN)
    change(tensors)
    save_file(tensors, directory / GOLDEN)
    rehash(directory)


# Sound bundles


def test_a_sound_bundle_passes(pristine: Path) -> None:
    ran = run("verify", pristine)
    assert ran.code == 0 and "PASSED" in ran.out
    assert ran.err.splitlines() == ["checking the bundle …"]


def test_per_block_shows_every_layer_in_order(pristine: Path) -> None:
    ran = run("verify", pristine, "--per-block")
    assert ran.code == 0
    places = [ran.out.index(name) for name in LAYERS[:-1]]
    assert places == sorted(places)
    assert "no layer is further from the reference" in ran.out


def test_json_holds_every_number_and_nothing_else(pristine: Path) -> None:
    result = run("verify", pristine, "--per-block", "--json").json
    assert result["passed"] is True and result["bundle"] == str(pristine)
    assert result["distances"].keys() == {"noise", "faint", "loud", "border", "constant"}
    assert list(result["layers"]) == LAYERS and result["diverges_at"] is None
    assert all(0 <= layer["relative_l2"] < 1e-5 for layer in result["layers"].values())
    assert {(c["case"], c["quantity"]) for c in result["checks"]} >= {("border", "relative L2"), ("noise", "finite")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["--batch", "3"], ["--dynamic-size"], ["--batch", "2", "--dynamic-size", "--shift", "slice"], ["--shift", "conv"]],
    ids=" ".join,
)
def test_bundles_of_every_kind_show_their_layers(tmp_path: Path, options: list[str]) -> None:
    stages = (Stage(Embedding((4, 4), (4, 4)), 8, 16, 1), Stage(Embedding((2, 2), (2, 2)), 13, 24, 2))
    checkpoint = save_checkpoint(tmp_path / "two.pt", S2MLPSpec(stages, classes=5, image_size=(24, 40)))
    assert run("export", checkpoint, "-o", tmp_path / "bundle", *options).code == 0
    result = run("verify", tmp_path / "bundle", "--per-block", "--json").json
    assert result["passed"] and list(result["layers"]) == [
        "stage0/embedding",
        "stage0/block00",
        "stage1/embedding",
        "stage1/block00",
        "stage1/block01",
        "logits",
    ]
    assert max(layer["relative_l2"] for layer in result["layers"].values()) < 1e-5


def test_a_published_bundle_can_be_looked_into_without_being_judged(pristine: Path) -> None:
    assert verifying.layers(read_bundle(pristine)) == verify(pristine, per_block=True).layers


def test_weights_beside_the_model_are_hashed_and_traced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LIMIT_BYTES", 1)
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", tmp_path / "bundle").code == 0
    data = tmp_path / "bundle" / "model.onnx.data"
    assert verify(tmp_path / "bundle", per_block=True).diverges_at is None
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx\.data is not the file that was exported"):
        verify(tmp_path / "bundle")


def test_tracing_never_puts_the_weights_into_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf refuses messages of 2 GiB; a model that was written beside its weights may be larger."""
    monkeypatch.setattr(writer, "LIMIT_BYTES", 1)
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", tmp_path / "bundle").code == 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the weights were read into the message")

    monkeypatch.setattr(onnx.external_data_helper, "load_external_data_for_model", refuse)
    monkeypatch.setattr(onnx, "load_external_data_for_model", refuse)
    assert len(verify(tmp_path / "bundle", per_block=True).layers) == len(LAYERS)


# Stale golden tensors: the files are whole, and the numbers are off


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("stage0.embedding.bias", "stage0/embedding"),
        ("stage0.blocks.0.fc2.weight", "stage0/block00"),
        ("stage0.blocks.1.fc1.weight", "stage0/block01"),
        ("stage0.blocks.1.fc4.bias", "stage0/block01"),
        ("head.fc.weight", "logits"),
    ],
)
def test_the_first_layer_that_diverges_is_named(bundle: Path, weight: str, layer: str) -> None:
    alter_weight(bundle, weight)
    ran = run("verify", bundle, "--per-block")
    assert ran.code == 1 and "FAILED" in ran.out
    (line,) = (line for line in ran.out.splitlines() if line.startswith("first layer beyond"))
    assert line.split()[-1] == layer
    assert "error" not in ran.err


def test_json_says_that_it_failed_and_where(bundle: Path) -> None:
    alter_weight(bundle, "stage0.blocks.1.fc3.weight")
    ran = run("verify", bundle, "--per-block", "--json")
    assert ran.code == 1
    assert ran.json["passed"] is False and ran.json["diverges_at"] == "stage0/block01"
    layers = ran.json["layers"]
    assert layers["stage0/block00"]["relative_l2"] < 1e-6 < 1e-4 < layers["stage0/block01"]["relative_l2"]


def test_without_per_block_only_the_logits_are_judged(bundle: Path) -> None:
    alter_weight(bundle, "stage0.blocks.1.fc3.weight")
    ran = run("verify", bundle, "--json")
    assert ran.code == 1 and ran.json["layers"] == {} and ran.json["diverges_at"] is None


def test_a_model_that_computes_nan_fails(bundle: Path) -> None:
    alter_weight(bundle, "stage0.blocks.0.fc1.weight", by=float("nan"))
    ran = run("verify", bundle, "--per-block")
    assert ran.code == 1 and "FAILED" in ran.out and "stage0/block00" in ran.out.splitlines()[-1]


def test_golden_logits_of_another_shape_fail(bundle: Path) -> None:
    edit_golden(bundle, lambda t: t.update({"logits/noise": np.ones((8, 8), np.float32)}))
    ran = run("verify", bundle, "--json")
    assert ran.code == 1
    assert [(c["case"], c["quantity"]) for c in ran.json["checks"] if not c["passed"]] == [("noise", "shape and dtype")]


def test_golden_logits_that_are_nan_fail(bundle: Path) -> None:
    edit_golden(bundle, lambda t: t["logits/faint"].fill(np.nan))
    assert run("verify", bundle).code == 1


def test_every_golden_case_counts(bundle: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["logits/constant"][0, 3] += 0.01

    edit_golden(bundle, change)
    ran = run("verify", bundle, "--json")
    assert ran.code == 1 and {c["case"] for c in ran.json["checks"] if not c["passed"]} == {"constant"}


def test_the_manifests_tolerance_is_the_one_that_judges(bundle: Path) -> None:
    assert run("verify", bundle).code == 0
    rehash(bundle, lambda m: m["tolerance"].update(relative_l2=1e-12))
    assert run("verify", bundle).code == 1


def test_the_first_layer_beyond_the_tolerance_diverges(bundle: Path) -> None:
    """Rounding alone, of which the layer furthest off is beyond a limit that others keep."""
    layers = {name: distance.relative_l2 for name, distance in verify(bundle, per_block=True).layers}
    furthest = max(layers, key=lambda name: layers[name])
    rehash(bundle, lambda m: m["tolerance"].update(relative_l2=0.99 * layers[furthest]))
    result = verify(bundle, per_block=True)
    assert result.diverges_at == next(name for name in layers if layers[name] > result.layer_limit)


def test_every_run_is_repeated(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is wrong from the second run of a batch on is found, whatever the size of that batch."""

    class PlansMemory(TracedSession):
        def run(self, images: np.ndarray) -> np.ndarray:
            seen.append(len(images))
            return super().run(images) * np.float32(1.001 if seen.count(len(images)) > 1 else 1)

    monkeypatch.setattr(OnnxFile, "open", lambda self, artifact: PlansMemory(artifact.path))
    seen: list[int] = []
    failed = {check.case for check in verify(pristine).verdict.failures}
    assert "noise" in failed and seen == 2 * seen[: len(seen) // 2]


# Traces that fit nothing


@pytest.mark.parametrize(
    "change",
    [
        lambda t: [t.pop(name) for name in list(t) if name.startswith("trace/")],
        lambda t: [t.pop(name) for name in list(t) if name.endswith("/noise")],
        lambda t: t.update({"trace/0002/stage0/block07": t.pop("trace/0002/stage0/block01")}),
        lambda t: t.update({"trace/0009/stageX/what": np.ones((2, 3), np.float32)}),
        lambda t: t.update({"trace/0001/stage0/block00": np.ones((16, 9), np.float32)}),
        lambda t: t.update({"trace/0003/logits": np.ones((4, 4), np.float32)}),
    ],
)
def test_a_trace_of_another_model_is_refused(bundle: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    edit_golden(bundle, change)
    with pytest.raises(BundleError, match="copy the bundle again"):
        verify(bundle, per_block=True)
    assert run("verify", bundle).code == 0  # the logits alone can still be judged


@pytest.mark.parametrize("change", [{"image_size": [4, 8]}, {"image_size": [24, 32]}])
def test_a_manifest_of_another_model_is_refused(bundle: Path, change: dict[str, Any]) -> None:
    rehash(bundle, lambda m: m["spec"].update(change))
    with pytest.raises(BundleError, match="copy the bundle again"):
        verify(bundle, per_block=True)


# What cannot be checked here


def test_a_manifest_that_contradicts_its_model_is_refused(bundle: Path) -> None:
    """Apps prepare images by it, and no logits show that."""
    rehash(bundle, lambda m: m["preprocessing"].update(mean=[0.4, 0.5, 0.5]))
    ran = run("verify", bundle)
    assert ran.code == 3 and "preprocessing differs from what the model itself records" in ran.err


def test_a_bundle_that_was_not_judged_has_nothing_to_check(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", tmp_path / "bundle", "--no-gate").code == 0
    ran = run("verify", tmp_path / "bundle")
    assert ran.code == 3 and "--no-gate" in ran.err and "export it again" in ran.err


def test_a_format_that_no_installed_package_runs_is_a_missing_runtime(bundle: Path) -> None:
    rehash(bundle, lambda m: m.update(format="abacus"))
    ran = run("verify", bundle)
    assert ran.code == 4 and "'abacus'" in ran.err and "onnx" in ran.err


class _Blind:
    """A session that shows its logits only, and fails when it is run."""

    def run(self, images: np.ndarray) -> np.ndarray:
        raise AssertionError("checked before the request was refused")


class _Formats(OnnxFile):
    """Ways for a format to say what its sessions can do."""

    def __init__(self, open_it: Callable[..., object]) -> None:
        self.open = open_it  # type: ignore[method-assign,assignment]


def opens_blind(artifact: object) -> _Blind:
    return _Blind()


def opens_traced(artifact: object) -> TracedSession:
    raise NotImplementedError


def opens_somewhere(artifact: object) -> NotImportedHere:  # type: ignore[name-defined]  # noqa: F821
    return _Blind()


def opens_silently(artifact):  # type: ignore[no-untyped-def]
    return _Blind()


@pytest.mark.parametrize(
    ("open_it", "shows"),
    [(opens_traced, True), (opens_blind, False), (opens_somewhere, False), (opens_silently, False)],
)
def test_a_format_shows_its_layers_if_its_open_says_so(
    monkeypatch: pytest.MonkeyPatch, open_it: Callable[..., object], shows: bool
) -> None:
    monkeypatch.setattr(verifying.registry, "find", lambda name: _Formats(open_it))
    assert verifying.shows_layers("any") is shows


def test_a_format_that_hides_its_layers_is_refused_before_it_is_judged(
    pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying.registry, "find", lambda name: _Formats(opens_blind))
    with pytest.raises(UsageError, match="--per-block is for formats that show their layers, and onnx does not"):
        verify(pristine, per_block=True)


def test_a_missing_runtime_is_named_with_its_remedy(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissingError, match="pip install onnxruntime"):
        verify(pristine)
    assert run("verify", pristine).code == 4


@pytest.mark.parametrize("options", [(), ("--batch", 3)], ids=["any batch", "batch 3"])
def test_samples_that_fill_a_batch_up_are_counted_once(
    checkpoint: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    assert run("export", checkpoint, *options, "-o", tmp_path / "bundle").code == 0
    held = {case: len(x) for case, x in golden_tensors.load(tmp_path / "bundle" / "golden.safetensors").inputs.items()}
    found = run("verify", tmp_path / "bundle", "--json").json["distances"]
    assert {case: d["samples"] for case, d in found.items()} == held
    report = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert {case: d["samples"] for case, d in report["distances"].items()} == held
