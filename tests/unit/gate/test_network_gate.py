"""The gate of networks with any inputs and outputs, and their golden tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from s2mlp_deploy.bundle import network_golden
from s2mlp_deploy.bundle.network_golden import NetworkGolden
from s2mlp_deploy.errors import BundleError, ParityError, RuntimeMissingError
from s2mlp_deploy.gate import network_gate
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.schema.tolerance import Tolerance

LIMIT = Tolerance(relative_l2=1e-5, top1_agreement=1.0)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)
BOXES, KEEP = RNG.standard_normal((3, 5, 2)).astype(np.float32), np.array([[1], [0], [2]], np.int64)
NETWORK = OnnxNetwork(
    inputs=(TensorEntry(name="x", dtype="float32", shape=("batch", 4)),),
    outputs=(
        TensorEntry(name="boxes/all", dtype="float32", shape=("batch", 5, 2)),
        TensorEntry(name="keep", dtype="int64", shape=("batch", 1)),
    ),
    parameters=7,
)
GOLDEN = NetworkGolden({"noise": {"x": X}}, {"noise": {"boxes/all": BOXES, "keep": KEEP}})


@dataclass
class Fixed:
    """A session that gives the same outputs whatever it takes."""

    outputs: Mapping[str, Array]

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        assert inputs["x"] is X
        return self.outputs


def failures(**changes: Array | None) -> list[tuple[str, str]]:
    given = {"boxes/all": BOXES, "keep": KEEP} | {k.replace("boxes", "boxes/all"): v for k, v in changes.items()}
    session = Fixed({name: array for name, array in given.items() if array is not None})
    return [(check.case, check.quantity) for check in network_gate.gate(session, GOLDEN, LIMIT).failures]


def test_the_expected_outputs_pass() -> None:
    assert failures() == []
    assert network_gate.gate(Fixed(GOLDEN.outputs["noise"]), GOLDEN, LIMIT, twice=True).passed


@dataclass
class WrongOnce(Fixed):
    """A session whose run of that number is off, from 0 on."""

    wrong: int
    runs: int = 0

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        factor = np.float32(1.001 if self.runs == self.wrong else 1)
        self.runs += 1
        return {**self.outputs, "boxes/all": factor * self.outputs["boxes/all"]}


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_device_runs_every_case_twice_and_the_worse_run_counts(wrong: int) -> None:
    verdict = network_gate.gate(WrongOnce(GOLDEN.outputs["noise"], wrong), GOLDEN, LIMIT, twice=True)
    assert [check.case for check in verdict.failures] == ["noise, boxes/all"]
    assert verdict.distances["noise, boxes/all"].relative_l2 > LIMIT.relative_l2
    assert network_gate.gate(WrongOnce(GOLDEN.outputs["noise"], 1), GOLDEN, LIMIT).passed


def test_one_sample_that_is_off_fails() -> None:
    off = BOXES.copy()
    off[2, 4, 1] += 1e-3
    assert failures(boxes=off) == [("noise, boxes/all", "relative L2")]


def test_rounding_passes() -> None:
    assert failures(boxes=np.nextafter(BOXES, np.float32(np.inf))) == []


def test_whole_numbers_must_be_the_same() -> None:
    assert failures(keep=KEEP + np.array([[0], [1], [0]])) == [("noise, keep", "relative L2")]


def test_a_missing_output_and_other_shapes_and_types_fail() -> None:
    assert failures(keep=None) == [("noise, keep", "shape and dtype")]
    assert failures(boxes=BOXES[:, :4]) == [("noise, boxes/all", "shape and dtype")]
    assert failures(boxes=BOXES.astype(np.float64)) == [("noise, boxes/all", "shape and dtype")]


def test_infinities_must_be_where_they_are_expected() -> None:
    infinite = BOXES.copy()
    infinite[0, 0, 0] = np.inf
    assert network_gate.compare(infinite, infinite).relative_l2 == 0
    assert network_gate.compare(BOXES, infinite).relative_l2 == np.inf
    assert network_gate.compare(infinite, BOXES).relative_l2 == np.inf


def test_bits_differ_where_values_only_compare_equal() -> None:
    zeros, negative = np.zeros(3, np.float32), -np.zeros(3, np.float32)
    assert network_gate.different_bits({"y": zeros}, {"y": zeros}) == {}
    assert list(network_gate.different_bits({"y": negative}, {"y": zeros})) == ["y"]
    assert list(network_gate.different_bits({}, {"y": zeros})) == ["y"]


def test_a_failure_is_raised_where_it_is_required() -> None:
    with pytest.raises(ParityError, match="noise, keep"):
        network_gate.require(Fixed({"boxes/all": BOXES, "keep": KEEP + 1}), GOLDEN, LIMIT)


def test_sessions_of_images_alone_are_refused() -> None:
    class Images:
        def run(self, images: Array) -> Array:
            return images

    with pytest.raises(RuntimeMissingError, match="other inputs and outputs"):
        network_gate.tensors_of(Images())


def test_golden_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    network_golden.save(GOLDEN, tmp_path / "golden.safetensors")
    again = network_golden.load(tmp_path / "golden.safetensors", NETWORK)
    np.testing.assert_array_equal(again.inputs["noise"]["x"], X)
    np.testing.assert_array_equal(again.outputs["noise"]["boxes/all"], BOXES)
    assert again.outputs["noise"]["keep"].dtype == np.int64


DAMAGED = {
    "no output": {"input/noise/x": X},
    "another shape": {"input/noise/x": X, "output/noise/boxes/all": BOXES[:, :4], "output/noise/keep": KEEP},
    "another type": {"input/noise/x": X.astype(np.float64), "output/noise/boxes/all": BOXES, "output/noise/keep": KEEP},
    "another name": {"input/noise/x": X, "output/noise/boxes/all": BOXES, "output/noise/keep": KEEP, "trace/a": X},
    "one too many": {
        "input/noise/x": X,
        "input/noise/z": X,
        "output/noise/boxes/all": BOXES,
        "output/noise/keep": KEEP,
    },
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_golden_tensors_are_refused(damage: str, tmp_path: Path) -> None:
    save_file(DAMAGED[damage], tmp_path / "golden.safetensors")
    with pytest.raises(BundleError, match="opy the bundle again"):
        network_golden.load(tmp_path / "golden.safetensors", NETWORK)


def test_a_network_is_read_as_it_was_written() -> None:
    assert OnnxNetwork.from_json(NETWORK.to_json()) == NETWORK
