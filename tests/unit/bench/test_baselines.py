"""Baselines: the same weights in other hands, and networks that are compared on purpose although they are others."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from helpers.mixers import SIZE, jittor_mixer
from helpers.support import (
    Ran,
    command,
    random_model,
    run,
    save_checkpoint,
    small_spec,
    v2_spec,
    weights_of,
    with_biases,
)
from s2mlp_bench import weights_from_onnx
from s2mlp_bench.baselines import registry
from s2mlp_bench.baselines.naive import export as export_naively
from s2mlp_bench.baselines.naive import naive_shift, slice_assignment_shift, trained_shift
from s2mlp_bench.baselines.noshift import NoShift
from s2mlp_bench.candidate import Point
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.families.reference import logits
from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.families.shift_reference import spatial_shift
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.schema.spec import Embedding
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.progress import Listener

QUICK = ("--min-seconds", 0, "--min-rounds", 6, "--no-cold", "--no-bound", "--threads", 1)


def bench(*arguments: object) -> Ran:
    return command("s2mlp-bench", "s2mlp_bench.cli", "main", *arguments)


def export(directory: Path, name: str, spec: S2MLPSpec, *options: object) -> Path:
    checkpoint = directory / "small.pt"
    if not checkpoint.exists():
        save_checkpoint(checkpoint, spec)
    ran = run("export", checkpoint, *options, "-o", directory / name)
    assert ran.code == 0, ran.err
    return directory / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``paper`` and ``inplace`` in float32, ``int8`` for speed only."""
    directory = tmp_path_factory.mktemp("baselines")
    spec = small_spec(channels=16)
    export(directory, "paper", spec)
    export(directory, "inplace", spec, "--shift-semantics", "inplace")
    export(directory, "int8", spec, "--precision", "int8", "--calibration", "synthetic")
    return directory


@pytest.fixture(scope="module")
def mixers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mixer``, an MLP-Mixer in float32."""
    directory = tmp_path_factory.mktemp("mixers")
    torch.save(jittor_mixer().state_dict(), directory / "mixer.pt")
    ran = run("export", directory / "mixer.pt", "--image-size", format_size(SIZE), "-o", directory / "mixer")
    assert ran.code == 0, ran.err
    return directory


def measured(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """Figures by source."""
    ran = bench(*arguments, *QUICK, "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "r.json").read_text())
    return {figures["source"]: figures for figures in document["summary"]["figures"]}


# Weights


@pytest.mark.parametrize(
    "spec",
    [
        small_spec(),
        S2MLPSpec(
            (Stage(Embedding((4, 4), (4, 4)), 8, 16, 1), Stage(Embedding((2, 2), (2, 2)), 12, 24, 2)),
            classes=5,
            image_size=(40, 24),
        ),
        with_biases(small_spec(), frozenset({"norm1", "fc2", "fc"})),
        with_biases(small_spec(), frozenset()),
    ],
    ids=["small", "two stages", "few biases", "no biases"],
)
def test_weights_read_back_from_a_bundle_are_the_same_network(tmp_path: Path, spec: S2MLPSpec) -> None:
    bundle = read_bundle(export(tmp_path, "bundle", spec))
    model = weights_from_onnx.read(bundle)
    expected = golden_tensors.load(bundle.golden)
    module = S2MLP.of(model.spec, {name: torch.from_numpy(np.array(w)) for name, w in model.weights.items()})
    for case, images in expected.inputs.items():
        found = logits(module.double(), torch.from_numpy(images).double()).numpy()
        np.testing.assert_allclose(found, expected.logits[case], rtol=1e-4, atol=1e-5)


def test_a_file_without_a_weight_is_no_source_of_weights(tmp_path: Path) -> None:
    bundle = read_bundle(export(tmp_path, "bundle", small_spec()))
    model = onnx.load(bundle.artifact.path)
    (weight,) = (i for i in model.graph.initializer if i.name == "stage0.blocks.1.fc2.weight")
    weight.name = "renamed"
    onnx.save(model, bundle.artifact.path)
    with pytest.raises(BundleError, match=r"holds no stages\.0\.blocks\.1\.fc2\.weight"):
        weights_from_onnx.read(bundle)


def test_weights_of_a_network_without_optional_biases_are_read_back_too(mixers: Path) -> None:
    """Norms whose affine part was folded are the identity; the biases of products over positions lose their second axis."""
    bundle = read_bundle(mixers / "mixer")
    model = weights_from_onnx.read(bundle)
    assert {name: w.shape for name, w in model.weights.items()} == bundle.manifest.spec.parameter_shapes()
    assert (model.weights["block0.norm2.weight"] == 1).all() and not model.weights["block0.norm2.bias"].any()
    assert (model.weights["block0.norm1.weight"] != 1).any() and model.weights["block0.token1.bias"].any()


# Each baseline


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.thorough)])
def test_pytorch_and_openvino_answer_as_the_bundle_does(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    names = ("torch-eager", "torch-compile", "openvino", "naive-onnx")
    found = measured(tmp_path, place / "paper", *(word for name in names for word in ("--baseline", name)))
    assert list(found) == ["paper", "torch-eager", "torch-compile", "openvino, paper", "naive-onnx"]
    for figures in found.values():
        assert figures["remark"] == "" and 0 < figures["distance"] < 1e-5, figures["name"]


def test_the_naive_export_computes_something_else_under_in_place_semantics_and_is_labelled(
    place: Path, tmp_path: Path
) -> None:
    options = ("--baseline", "naive-onnx", "--baseline", "torch-eager")
    found = measured(tmp_path, place / "inplace", *options)
    naive = found["naive-onnx"]
    assert naive["distance"] > 0.01 and naive["remark"].startswith("computes something else (relative L2 0.")
    assert naive["p50_ms"] > 0
    assert found["torch-eager"]["remark"] == "" and found["torch-eager"]["distance"] < 1e-5


def test_other_networks_are_timed_and_labelled(place: Path, tmp_path: Path) -> None:
    options = [word for name in ("mixer", "no-shift", "ort-static", "openvino-static") for word in ("--baseline", name)]
    found = measured(tmp_path, place / "paper", place / "int8", *options)
    assert found["mixer"]["remark"] == found["no-shift"]["remark"] == "another network"
    assert found["ort-static"]["remark"] == found["openvino-static"]["remark"]
    assert "noise" in found["ort-static"]["remark"]
    assert all(found[name]["distance"] is None for name in ("mixer", "no-shift", "ort-static"))
    assert found["int8"]["remark"] == "for speed only" and 0 < found["int8"]["distance"] < 0.1


@pytest.mark.thorough
def test_every_baseline_runs_at_every_point(place: Path, tmp_path: Path) -> None:
    kept = [name for name, baseline in registry.BASELINES.items() if "cpu" in baseline.providers]
    options = [word for name in kept if name != "torch-compile" for word in ("--baseline", name)]
    ran = bench(
        place / "paper", *options, *QUICK[:-2], "--threads", "1,2", "--batch", "3", "--json-file", tmp_path / "r.json"
    )
    assert ran.code == 0, ran.err
    figures = json.loads((tmp_path / "r.json").read_text())["summary"]["figures"]
    points = {(f["source"], f["point"]["threads"], f["point"]["batch"]) for f in figures}
    sources = {f["source"] for f in figures}
    assert len(sources) == len(kept) and len(points) == len(figures) == 2 * len(sources)


def test_the_image_size_is_swept_where_bundles_serve_any(tmp_path: Path) -> None:
    place = export(tmp_path, "any", small_spec(channels=16), "--dynamic-size")
    options = ("--image-size", "20x28,36x24", "--baseline", "torch-eager", "--baseline", "no-shift")
    ran = bench(place, *options, *QUICK, "--json-file", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    figures = json.loads((tmp_path / "r.json").read_text())["summary"]["figures"]
    assert {tuple(f["point"]["size"]) for f in figures} == {(20, 28), (36, 24)} and len(figures) == 6
    assert all(f["remark"] == "" for f in figures if f["source"] in ("any", "torch-eager"))


def test_an_mlp_mixer_runs_in_every_baseline_that_it_offers(mixers: Path, tmp_path: Path) -> None:
    names = ("torch-eager", "openvino", "ort-static")
    found = measured(tmp_path, mixers / "mixer", *(word for name in names for word in ("--baseline", name)))
    for source in ("torch-eager", "openvino, mixer"):
        assert found[source]["remark"] == "" and found[source]["distance"] < 1e-5, source
    assert "noise" in found["ort-static"]["remark"]
    assert naive_distance(mixers / "mixer", tmp_path) < 1e-5


def test_the_usual_code_is_exported_in_half_precision_too(place: Path, tmp_path: Path) -> None:
    assert 1e-5 < naive_distance(place / "paper", tmp_path, torch.float16) < registry.HALF_LIMIT


def naive_distance(directory: Path, scratch: Path, dtype: torch.dtype = torch.float32) -> float:
    """The distance of the naive export of the weights in a bundle from the bundle's golden logits."""
    bundle = read_bundle(directory)
    expected, spec = golden_tensors.load(bundle.golden), bundle.manifest.spec
    images = expected.inputs["noise"][:1]
    path = scratch / "naive" / "model.onnx"
    with warnings.catch_warnings():  # the exporter's own code uses what it deprecates
        warnings.simplefilter("ignore")
        export_naively(weights_from_onnx.read(bundle).save(scratch / "weights"), 1, spec.image_size, path, dtype)
    return compare(OnnxSession(path).run(images), expected.logits["noise"][:1]).relative_l2


@pytest.mark.thorough
def test_an_s2mlp_v2_runs_in_every_baseline_that_it_offers(tmp_path: Path) -> None:
    """The popular statements stand on slices of a block's three parts; exported, they are the paper's shift."""
    save_checkpoint(tmp_path / "small.pt", v2_spec())
    for name, options in (("paper", ()), ("inplace", ("--shift-semantics", "inplace"))):
        assert run("export", tmp_path / "small.pt", *options, "-o", tmp_path / name).code == 0
    found = measured(tmp_path, tmp_path / "inplace", "--baseline", "torch-eager", "--baseline", "no-shift")
    assert found["torch-eager"]["remark"] == "" and found["torch-eager"]["distance"] < 1e-5
    assert found["no-shift"]["remark"] == "another network"
    assert naive_distance(tmp_path / "paper", tmp_path) < 1e-5
    assert "--baseline mixer" in refused(2, tmp_path / "paper", "--baseline", "mixer")


# The copied statements


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_naive_shift_is_the_papers_where_nothing_overlaps(name: str) -> None:
    """With two rows and columns each statement reads what it does not write."""
    shift = Shift(DIRECTIONS[name])
    x = torch.randn(2, 2, 2, 13)
    assert torch.equal(slice_assignment_shift(x.clone(), shift), spatial_shift(x, shift))


def test_the_naive_shift_is_the_copied_statements_word_for_word() -> None:
    x = torch.randn(1, 5, 7, 13)
    ours = slice_assignment_shift(x.clone(), Shift())
    _, h, w, c = x.shape
    x[:, 1:, :, : c // 4] = x[:, : h - 1, :, : c // 4]
    x[:, : h - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : w - 1, c // 2 : c * 3 // 4]
    x[:, :, : w - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    assert torch.equal(ours, x)


def test_the_usual_code_copies_before_it_shifts_only_where_the_copied_statements_compute_something_else() -> None:
    x = torch.randn(1, 5, 7, 13)
    papers, in_place = spatial_shift(x, Shift()), slice_assignment_shift(x.clone(), Shift())
    assert not torch.equal(papers, in_place)
    assert torch.equal(trained_shift(x.clone(), Shift()), papers)
    assert torch.equal(trained_shift(x.clone(), Shift(semantics="inplace")), in_place)
    assert torch.equal(naive_shift(x.clone(), Shift()), in_place)
    zero = Shift(border="zero")
    assert torch.equal(naive_shift(x.clone(), zero), spatial_shift(x, zero))


def test_no_shift_computes_the_network_without_its_shift(tmp_path: Path) -> None:
    spec = small_spec()
    model = random_model(spec)
    path = tmp_path / "model.onnx"
    writer.write(S2MLPEmitter.emit(spec, weights_of(model), NoShift(), Axes(None, spec.image_size)), path)
    for block in model.stages[0].blocks:  # type: ignore[union-attr]
        block.shift = lambda x, shift: x  # type: ignore[assignment]
    images = np.random.default_rng(0).standard_normal((2, 3, *spec.image_size)).astype(np.float32)
    expected = logits(model, torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(OnnxSession(path).run(images), expected, rtol=1e-4, atol=1e-5)


# Bad input


def refused(code: int, *arguments: object) -> str:
    ran = bench(*arguments, *QUICK)
    assert (ran.code, ran.out) == (code, ""), (ran.code, ran.out, ran.err)
    return ran.err.splitlines()[-1]


def test_an_unknown_baseline_is_refused_with_those_that_there_are(place: Path) -> None:
    assert "torch-compile" in refused(2, place / "paper", "--baseline", "tensorflow")


def test_a_baseline_that_the_network_does_not_offer_is_refused_by_name(mixers: Path) -> None:
    assert "--baseline no-shift: MLP-Mixer has no shift" in refused(2, mixers / "mixer", "--baseline", "no-shift")
    assert "--baseline mixer: an MLP-Mixer is formed like" in refused(2, mixers / "mixer", "--baseline", "mixer")


def test_all_baselines_are_those_that_the_network_offers(mixers: Path, place: Path) -> None:
    heard = Heard()
    here = {name for name, baseline in registry.BASELINES.items() if "cpu" in baseline.providers}
    assert set(registry.all_offered([place / "paper"], [Point()], heard)) == here and heard.warnings == []
    offered = registry.all_offered([mixers / "mixer"], [Point(), Point(batch=2)], heard)
    assert here - set(offered) == {"mixer", "no-shift"}
    assert any("no-shift is left out: MLP-Mixer has no shift" in text for text in heard.warnings)


def test_all_baselines_on_a_gpu_are_those_that_run_there(place: Path) -> None:
    offered = registry.all_offered([place / "paper"], [Point(provider="cuda")], Listener())
    ways = {f"torch-{way}{half}" for way in ("eager", "compile", "cudagraph") for half in ("", "-fp16")}
    assert set(offered) == {*ways, "naive-onnx", "naive-onnx-fp16", "mixer", "no-shift"}
    assert registry.all_offered([place / "paper"], [Point(), Point(provider="cuda")], Listener()) == (
        "torch-eager",
        "torch-compile",
        "naive-onnx",
        "mixer",
        "no-shift",
    )


class Heard(Listener):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_baselines_need_the_weights_in_float32(tmp_path: Path) -> None:
    half = export(tmp_path, "half", small_spec(), "--precision", "fp16")
    assert "give an fp32 bundle" in refused(2, half, "--baseline", "torch-eager")


def test_a_bundle_for_speed_only_needs_a_verified_one_beside_it(place: Path) -> None:
    assert "calibrated on noise" in refused(3, place / "int8")


@pytest.mark.parametrize(
    ("name", "provider", "expected"),
    [
        ("openvino", "cuda", "it runs with --provider cpu alone"),
        ("torch-cudagraph", "cpu", "it runs with --provider cuda alone"),
        ("torch-eager", "openvino", "it runs with --provider cpu or cuda alone"),
    ],
)
def test_baselines_do_not_run_on_other_providers(place: Path, name: str, provider: str, expected: str) -> None:
    message = refused(2, place / "paper", "--baseline", name, "--provider", provider)
    assert f"--baseline {name}: {expected}" in message


def test_a_missing_package_is_told_before_anything_is_prepared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda module: None if module == "openvino" else object())
    message = refused(4, place / "paper", "--baseline", "naive-onnx", "--baseline", "openvino")
    assert pip_install("openvino") in message and "torch.onnx" not in message


def test_a_provider_that_is_not_here_is_refused(place: Path) -> None:
    assert "CUDAExecutionProvider" in refused(4, place / "paper", "--provider", "cuda")
    assert "--provider 'gpu'" in refused(2, place / "paper", "--provider", "gpu")


def test_a_size_that_a_bundle_does_not_serve_is_refused(place: Path) -> None:
    assert "--dynamic-size" in refused(2, place / "paper", "--image-size", "36x24")
    assert "--image-size '36y24'" in refused(2, place / "paper", "--image-size", "36y24")


def test_bundles_of_several_checkpoints_are_held_to_their_own_answers_at_other_sizes(tmp_path: Path) -> None:
    places = []
    for seed in (0, 1):
        checkpoint = save_checkpoint(tmp_path / f"seed{seed}.pt", small_spec(channels=16), seed=seed)
        places.append(tmp_path / f"any{seed}")
        assert run("export", checkpoint, "--dynamic-size", "-o", places[-1]).code == 0
    ran = bench(*places, "--image-size", "36x24", *QUICK)
    assert ran.code == 0, ran.err
