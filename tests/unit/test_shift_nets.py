"""The committed exports of networks with a shift: of the right networks, and what both exporters write today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.shift_nets import BATCHES, EXAMPLE, EXPORTERS, NETS, Batch, exported, record, recorded
from s2mlp_studies.shift_nets.export import Exporter


def outputs(path: Path, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": x}))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


@pytest.mark.parametrize("name", NETS)
def test_a_recording_is_of_the_network(name: str) -> None:
    net, tensors = NETS[name], recorded(NETS[name])
    assert list(tensors["input"].shape[1:]) == list(net.shape)
    for key, tensor in record(net, net.model()).items():
        assert distance(tensors[key].numpy(), tensor.numpy()) < 1e-6, key


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_a_file_computes_the_recording_but_for_overlapping_statements(
    name: str, exporter: Exporter, batch: Batch
) -> None:
    """Those are what no exporter writes as the network computes them on one thread."""
    net, tensors = NETS[name], recorded(NETS[name])
    found = outputs(net.file(exporter, batch), tensors["input"].numpy())
    distances = [distance(y, tensors[key].numpy()) for key, y in zip(net.outputs, found, strict=True)]
    assert len(distances) == len(net.outputs)
    assert max(distances) > 1e-4 if net.overlapping else max(distances) < 1e-6


def test_the_example_is_one_of_them() -> None:
    detector = NETS["detector"]
    assert EXAMPLE.read_bytes() == detector.file("dynamo", "free").read_bytes()
    assert EXAMPLE.with_suffix(".safetensors").read_bytes() == detector.recording.read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_the_exporters_that_are_installed_write_the_same_operators(
    name: str, exporter: Exporter, batch: Batch, tmp_path: Path
) -> None:
    net = NETS[name]
    path = exported(net, net.model(), exporter, batch, tmp_path / "model.onnx")
    new, old = (sorted(node.op_type for node in onnx.load(p).graph.node) for p in (path, net.file(exporter, batch)))
    assert new == old
