"""A whole benchmark with ``--provider cuda``, on a stand-in that computes on the processor."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import fake_gpu
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_bench import benchmark
from s2mlp_bench.benchmark import Plan, Result
from s2mlp_bench.interleaved_timing import Record, Schedule
from s2mlp_bench.report import pictures, tables
from s2mlp_bench.results import document
from s2mlp_bench.summary import compute_samples_ms
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate

WAYS = ("torch-eager", "torch-cudagraph", "torch-eager-fp16", "torch-cudagraph-fp16")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fp32`` and ``fp16`` (for GPUs) of one checkpoint, and ``int8`` of it for speed only."""
    directory = tmp_path_factory.mktemp("gpu")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec(channels=16))
    for name, options in {
        "fp32": (),
        "fp16": ("--precision", "fp16", "--target", "trt"),
        "int8": ("--precision", "int8", "--calibration", "synthetic", "--target", "trt"),
    }.items():
        assert run("export", checkpoint, *options, "-o", directory / name).code == 0
    return directory


@pytest.fixture(scope="module")
def measured(place: Path) -> tuple[Plan, Result]:
    """Bundles and baselines at two batches."""
    plan = Plan(
        tuple(place / name for name in ("fp32", "fp16", "int8")),
        WAYS,
        batches=(1, 3),
        providers=("cuda",),
        schedule=Schedule(0, 6, 0),
        cold=False,
        energy=False,
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_gpu.pretend(monkeypatch)
        return plan, benchmark.run(plan, Listener())


def test_every_way_of_pytorch_is_held_to_the_reference(measured: tuple[Plan, Result]) -> None:
    figures = {f.name: f for f in measured[1].summary.figures}
    for way in WAYS:
        for batch in ("", ", batch 3"):
            f = figures[f"{way}, cuda{batch}"]
            assert f.comparable and f.distance is not None and f.precision == ("fp16" if "fp16" in way else "fp32")
            assert 0 < f.distance < (0.02 if "fp16" in way else 1e-5)


def test_copies_are_left_out_of_what_is_compared(measured: tuple[Plan, Result]) -> None:
    _, result = measured
    found = {f.name: f for f in result.summary.figures}
    for name in ("fp32, cuda", "torch-eager, cuda"):
        f = found[name]
        assert f.on_device is not None and 0 < f.compute_ms == f.on_device.compute_ms and f.device_speed is not None
        assert len(result.compute_ms[name]) == len(result.samples_ms[name]) == 6
    assert found["fp32, cuda"].device_speed == Estimate(1, 1, 1)
    section = tables.on_device(result.summary)
    assert section is not None and len(section.rows) == 2 * (3 + len(WAYS))


def test_the_bound_is_the_products_of_cublas_and_int8_has_none(measured: tuple[Plan, Result]) -> None:
    figures = {f.name: f for f in measured[1].summary.figures}
    for name in ("fp32, cuda", "fp16, cuda", "fp32, cuda, batch 3"):
        assert figures[name].of_bound is not None
    assert figures["int8, cuda"].of_bound is None
    assert "fp16, products alone, cuda, batch 3" in measured[1].compute_ms


def test_the_roofline_is_the_gpus_own_at_each_precision_that_it_multiplies(measured: tuple[Plan, Result]) -> None:
    roof = measured[1].roofline
    assert roof is not None and {(r.device, r.precision, r.bytes_per_s) for r in roof.roofs} == {
        ("gpu", "fp16", 4.8e12),
        ("gpu", "fp32", 4.8e12),
    }
    assert {r.runtime for r in roof.roofs} == {"cuBLAS"}
    assert {(dot.name, dot.device) for dot in roof.dots} == {
        (f"{name}, cuda{batch}", "gpu") for name in ("fp32", "fp16") for batch in ("", ", batch 3")
    }
    assert measured[1].profiles == ()


def test_it_is_drawn_and_written(measured: tuple[Plan, Result], tmp_path: Path) -> None:
    plan, result = measured
    pictures.draw(result, tmp_path / "picture.png", replace=False)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    written = json.loads(json.dumps(document.document(plan, result, {})))
    assert len(written["compute_ms"]["torch-cudagraph-fp16, cuda, batch 3"]) == 6


def test_times_without_copies_are_those_of_the_rounds_that_count() -> None:
    """Warm-up rounds come first; one more run may follow the last whole round, where an interruption cut the next."""
    times = [Times(1.0, ms, 1.0) for ms in (90.0, 80.0, 1.0, 2.0, 3.0, 70.0)]
    runner: Any = SimpleNamespace(candidate=SimpleNamespace(name="it"), parts=times)
    record = Record({"it": (5.0, 6.0, 7.0)}, warmup_rounds=2, complete=False)
    assert compute_samples_ms(runner, record) == [1.0, 2.0, 3.0]
