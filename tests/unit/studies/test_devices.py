"""The measurements of runtimes for devices: their artifacts, goals and tables, and a small network that is timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers.studies import synthetic_benchmark
from helpers.support import save_checkpoint, small_spec
from s2mlp_bench import environment
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_deploy.system.process_cost import ProcessCost
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.benchmark import on
from s2mlp_studies.devices import artifacts
from s2mlp_studies.devices.artifacts import Subject
from s2mlp_studies.devices.goals import DEEP, OPENVINO_STATIC, SMALL, device_goals, fastest_int8
from s2mlp_studies.devices.measure import Devices, Schedules, Writing, measure_devices
from s2mlp_studies.devices.table import device_tables, document

TIMES_MS = {
    "onnx-fp32": 210.0,
    "onnx-int8": 70.0,
    "litert-fp32": 200.0,
    "litert-int8w": 60.0,
    "litert-int8": 50.0,
    "executorch-fp32": 210.0,
}


def synthetic(subject: str = DEEP, left_out: str = "executorch-int8") -> Devices:
    """LiteRT's static int8 is the fastest; all int8 files take a quarter of float32's."""
    times = {f"{subject}-{name}": ms for name, ms in TIMES_MS.items() if name != left_out}
    sizes = {name: 400 if name.endswith("fp32") else 100 for name in times}
    candidates = {on(name): ms for name, ms in {**times, OPENVINO_STATIC: 80.0}.items()}
    benchmark = synthetic_benchmark(candidates, times)
    writing = Writing(100, (ProcessCost(2.5, 2.0, 600),), ProcessCost(1.0, 1.0, 350))
    return Devices(subject, benchmark, sizes, {f"{subject}-{left_out}": "no such"}, writing, environment.describe())


def test_each_runtime_is_held_to_its_own_promise() -> None:
    goals = device_goals(synthetic())
    measured = [1.05, 1.4, 1.6, 1.0, 0.25, 0.25, 2.0, 2.5]
    assert [goal.measured.median for goal in goals] == pytest.approx(measured)
    limits = [1.05, 1.15, 1.3, 0.95, 0.27, 0.27, 3, 3]
    assert [goal.at_least or goal.at_most for goal in goals] == limits
    assert all(goal.holds for goal in goals)


def test_the_small_network_is_held_to_more_speed_and_to_no_size() -> None:
    goals = device_goals(synthetic(SMALL))
    assert [goal.at_least for goal in goals] == [1.2, 1.6, 0.95]


def test_the_faster_kind_of_int8_counts() -> None:
    assert fastest_int8(synthetic()) == "deep-litert-int8"
    assert fastest_int8(synthetic(left_out="litert-int8")) == "deep-litert-int8w"
    assert fastest_int8(synthetic(left_out="onnx-int8")) is None


def test_goals_of_artifacts_that_are_left_out_are_left_out() -> None:
    whats = [goal.what for goal in device_goals(replace(synthetic(left_out="litert-fp32"), writing=None))]
    assert not any("litert-fp32" in what or "write" in what for what in whats) and len(whats) == 3


def test_tables_and_document_show_sizes_reasons_and_costs() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(device_tables(synthetic()))
    text = capture.get()
    assert "deep-executorch-int8 is left out: no such" in text and "2.50 [2.50, 2.50]" in text
    found = json.loads(json.dumps(document(synthetic())))
    assert found["writing"]["imports"]["peak_rss_bytes"] == 350 and found["file_bytes"]["deep-litert-int8w"] == 100


@pytest.mark.thorough
def test_a_small_network_is_timed_in_every_runtime_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    kept = (
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("litert", "fp32"),
        ("litert", "int8w"),
        ("litert", "fp64"),
        ("m", "fp32"),
    )
    monkeypatch.setattr(artifacts, "ARTIFACTS", kept)
    subject = Subject("small", "small", save_checkpoint(tmp_path / "small.pt", small_spec(channels=16)), "synthetic")
    found = measure_devices(subject, tmp_path, Schedules(Schedule(0, 6, 0), 1, (), Listener()))
    assert list(found.file_bytes) == ["small-onnx-fp32", "small-onnx-int8", "small-litert-fp32", "small-litert-int8w"]
    assert all(found.has(on(name)) for name in found.file_bytes)
    assert found.left_out == {
        "small-litert-fp64": "--format litert has no fp64",
        "small-m-fp32": "there is no format m",
    }
    assert found.writing and found.writing.file_bytes == found.file_bytes["small-litert-fp32"]
    assert found.writing.rounds[0].peak_rss_bytes > found.writing.file_bytes
