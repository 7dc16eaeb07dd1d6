"""The exports of networks with shifts, from both exporters: no scatter is left, bits stay, and in-place results come back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from helpers.moving_faults import MAP_FAULTS
from helpers.moving_graphs import operators, outputs, same_bits
from helpers.shift_nets import BATCHES, EXPORTERS, NETS, Batch, ShiftNet
from s2mlp_deploy.passes.data_movement import Repair, repair
from s2mlp_deploy.schema.array import Array
from s2mlp_studies.shift_nets.export import Exporter

MOST_NODES = {"s2mlp": 60, "s2mlpv2": 82, "detector": 52, "shiftvit": 39, "tsm": 22, "asmlp": 36}
"""The nodes of each repaired file, at most: both exporters write several hundred."""


def input_of(model: ir.Model) -> str:
    return str(model.graph.inputs[0].name)


def samples(net: ShiftNet, batch: int) -> Array:
    return np.random.default_rng(batch).standard_normal((batch, *net.shape)).astype(np.float32)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_a_repaired_network_has_no_scatter_and_the_same_bits(name: str, exporter: Exporter, batch: Batch) -> None:
    net = NETS[name]
    model = ir.load(net.file(exporter, batch))
    result = repair(model)
    found = operators(result.model)
    assert result.left_alone == () and len(result.statements) == net.overlapping
    assert found["ScatterND"] == 0 and found.total() - found["Constant"] <= MOST_NODES[name]
    for size in (2,) if batch == "fixed" else (1, 3):
        feeds = {input_of(model): samples(net, size)}
        assert same_bits(outputs(model, feeds), outputs(result.model, feeds))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.overlapping])
def test_in_place_results_come_back(name: str, exporter: Exporter) -> None:
    net = NETS[name]
    recorded = load_file(net.recording)
    result = repair(ir.load(net.file(exporter, "free")), prefer="slice", semantics="inplace")
    assert operators(result.model)["ScatterND"] == 0
    for output, found in zip(
        net.outputs, outputs(result.model, {input_of(result.model): recorded["input"]}), strict=True
    ):
        assert np.linalg.norm(found - recorded[output]) <= 1e-6 * np.linalg.norm(recorded[output])


@pytest.fixture(scope="module")
def detector() -> tuple[ir.Model, dict[str, Array], list[Array]]:
    """A network, inputs, and its outputs."""
    net = NETS["detector"]
    model = ir.load(net.file("dynamo", "free"))
    feeds = {input_of(model): samples(net, 2)}
    return model, feeds, outputs(model, feeds)


@pytest.mark.parametrize("fault", MAP_FAULTS)
def test_every_fault_changes_bits(fault: str, detector: tuple[ir.Model, dict[str, Array], list[Array]]) -> None:
    model, feeds, expected = detector
    wrong: Repair = repair(model, change_map=MAP_FAULTS[fault])
    assert not same_bits(expected, outputs(wrong.model, feeds))
