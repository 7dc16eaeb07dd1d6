"""Repair what both exporters wrote for several kinds of networks: no scatter is left, and every bit is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.damaged_bundles import rehash
from helpers.shift_nets import BATCHES, EXPORTERS, NETS, Batch, ShiftNet, recorded
from helpers.support import command, run
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.pipeline.repair.repair import repair_file
from s2mlp_deploy.pipeline.repair.request import Preferred, RepairRequest, RepairResult
from s2mlp_deploy.pipeline.request import OutputOptions
from s2mlp_deploy.pipeline.verify import LATENCY_RUNS
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_studies.shift_nets.export import Exporter

CASES = [(name, exporter, batch) for name in NETS for exporter in EXPORTERS for batch in BATCHES]


def repaired(
    net: ShiftNet, exporter: Exporter, batch: Batch, out: Path, *, reference: bool, prefer: Preferred = "auto"
) -> RepairResult:
    return repair_file(
        RepairRequest(
            net.file(exporter, batch),
            net.recording if reference else None,
            prefer=prefer,
            output=OutputOptions(out),
        )
    )


def outputs(path: Path, x: np.ndarray, *, optimize: bool) -> list[np.ndarray]:
    """By ONNX Runtime itself, not by this project's sessions."""
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    )


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


FEW = [(name, exporter, "free") for name in ("s2mlp", "detector", "tsm") for exporter in EXPORTERS]
MARKED = [pytest.param(*case, marks=[] if case in FEW else [pytest.mark.thorough]) for case in CASES]


@pytest.mark.parametrize(("name", "exporter", "batch"), MARKED)
def test_no_scatter_is_left_and_every_bit_is_the_same(
    name: str, exporter: Exporter, batch: Batch, tmp_path: Path
) -> None:
    net = NETS[name]
    result = repaired(net, exporter, batch, tmp_path / "out", reference=False)
    before, after = net.file(exporter, batch), tmp_path / "out/model.onnx"
    assert "ScatterND" not in operators(after)
    assert result.record.nodes[1] < result.record.nodes[0]
    assert len(result.record.statements) == net.overlapping
    for samples in (1, 2, 5) if batch == "free" else (2,):
        x = net.inputs(samples).numpy()
        for old, new in zip(outputs(before, x, optimize=False), outputs(after, x, optimize=False), strict=True):
            assert old.tobytes() == new.tobytes()
        for old, new in zip(outputs(before, x, optimize=True), outputs(after, x, optimize=True), strict=True):
            assert distance(new, old) < 1e-6


@pytest.mark.parametrize(("name", "exporter", "batch"), MARKED)
def test_a_recording_brings_back_the_shift_that_was_trained(
    name: str, exporter: Exporter, batch: Batch, tmp_path: Path
) -> None:
    net = NETS[name]
    result = repaired(net, exporter, batch, tmp_path / "out", reference=True)
    tensors = recorded(net)
    found = outputs(tmp_path / "out/model.onnx", tensors["input"].numpy(), optimize=True)
    assert max(distance(y, tensors[key].numpy()) for key, y in zip(net.outputs, found, strict=True)) < 1e-6
    (evidence,) = result.evidence
    assert evidence.supports == ("inplace" if net.overlapping else "none")
    network = read_bundle(tmp_path / "out").manifest.spec
    assert isinstance(network, OnnxNetwork)
    assert (network.golden, network.shift) == ("recording", "inplace" if net.overlapping else None)


@pytest.mark.parametrize("prefer", ["gather", "slice"])
def test_the_preferred_operators_are_written(prefer: Preferred, tmp_path: Path) -> None:
    repaired(NETS["s2mlp"], "dynamo", "free", tmp_path / "out", reference=False, prefer=prefer)
    found = operators(tmp_path / "out/model.onnx")
    assert ("Gather" in found) == (prefer == "gather") and ("Concat" in found) == (prefer == "slice")


def test_a_repaired_detector_is_a_bundle_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, out = NETS["detector"], tmp_path / "out"
    ran = run("repair", net.file("dynamo", "free"), "--reference", net.recording, "--json", "-o", out)
    assert ran.code == 0 and ran.json["passed"], ran.err
    assert ran.json["repair"]["scatter_nds"] == [24, 0] and ran.json["repair"]["compared"][0] == {
        "input": [2, 3, 80, 48]
    }
    runs, compute = [], OnnxSession.compute
    with monkeypatch.context() as patch:
        patch.setattr(OnnxSession, "compute", lambda self, inputs: runs.append(1) or compute(self, inputs))
        verified = run("verify", out, "--json")
    assert verified.code == 0 and {check["case"] for check in verified.json["checks"]} == {
        f"recording, {name}" for name in net.outputs
    }
    assert len(runs) == 2 + LATENCY_RUNS  # the one recording twice, and timed
    inspected = run("inspect", out)
    assert inspected.code == 0 and "boxes ['batch', 4, 75] float32" in inspected.out
    made = run("export", out, "--format", "ort", "-o", tmp_path / "ort")
    assert made.code == 0 and run("verify", tmp_path / "ort").code == 0, made.err
    other = run("export", out, "--format", "openvino", "-o", tmp_path / "openvino")
    assert other.code == 0 and run("verify", tmp_path / "openvino").code == 0, other.err
    timing = ("--min-seconds", "0.01", "--min-rounds", "6", "--no-cold", "--no-energy", "--json")
    timed = command("s2mlp-bench", "s2mlp_bench.cli", "main", out, tmp_path / "ort", *timing)
    assert timed.code == 0 and {"out", "ort"} <= timed.json["samples_ms"].keys(), timed.err
    refused = run("export", out, "--format", "web", "-o", tmp_path / "web")
    assert refused.code == 2 and "--format web is for image classifiers" in refused.err
    assert not (tmp_path / "web").exists()
    rehash(out, lambda m: m.update(labels=["person"]))
    contradicted = run("verify", out)
    assert contradicted.code == 3 and "labels belongs to image classifiers" in contradicted.err


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    net = NETS["shiftvit"]
    for name in ("one", "other"):
        repaired(net, "torchscript", "free", tmp_path / name, reference=True)
    for file in ("model.onnx", "manifest.json", "golden.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
