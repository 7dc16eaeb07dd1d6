"""Latency on the command line: interleaved, by an injected clock, and never part of a bundle."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.cli import tables
from s2mlp_deploy.pipeline import latency
from s2mlp_deploy.pipeline.comparison import Row
from s2mlp_deploy.pipeline.latency import FEWEST_ROUNDS, MOST_ROUNDS, SECONDS, WARMUP, Latency, Method, measure
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.timing import Estimate

pytestmark = pytest.mark.slow  # times for seconds


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """One checkpoint at two precisions."""
    directory = tmp_path_factory.mktemp("timed")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec())
    for precision in ("fp32", "fp16"):
        assert run("export", checkpoint, "--precision", precision, "-o", directory / precision).code == 0
    return [read_bundle(directory / precision) for precision in ("fp32", "fp16")]


def ticking(step_s: float) -> Iterator[float]:
    """Seconds that go by in equal steps, one each time somebody looks."""
    now = 0.0
    while True:
        yield now
        now += step_s


def shown(content: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("step_s", "rounds"),
    # Two bundles look at the clock four times a round, and measure() once before and once after the warm-up.
    [(100.0, FEWEST_ROUNDS), (1e-9, MOST_ROUNDS), (SECONDS * WARMUP / (59.5 * (4 * WARMUP + 1)), 60)],
)
def test_the_rounds_fill_the_time_within_bounds(bundles: list[Bundle], step_s: float, rounds: int) -> None:
    clock = ticking(step_s)
    measured = measure(bundles, lambda: next(clock))
    assert measured is not None and measured.method.rounds == rounds
    assert list(measured.results) == [bundle.directory for bundle in bundles]
    for result in measured.results.values():
        assert result.milliseconds.median == pytest.approx(1e3 * step_s, rel=1e-3)


def test_equal_times_show_no_difference(bundles: list[Bundle]) -> None:
    clock = ticking(0.5)
    measured = measure(bundles, lambda: next(clock))
    assert measured is not None
    assert measured.results[bundles[1].directory] == Latency(Estimate(500, 500, 500), Estimate(1, 1, 1))
    assert not measured.results[bundles[1].directory].differs
    assert Latency(Estimate(1, 1, 1), Estimate(1.2, 1.1, 1.3)).differs
    assert Latency(Estimate(1, 1, 1), Estimate(0.8, 0.7, 0.9)).differs


class _Recorder:
    """A format whose session keeps what it was given."""

    def __init__(self) -> None:
        self.images: list[Array] = []

    def open_with_threads(self, _: Artifact, threads: int | None) -> _Recorder:
        assert threads is None
        return self

    def run(self, images: Array) -> Array:
        self.images.append(images)
        return images


def seen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> tuple[Array, Method]:
    """What ``bundle``'s session is timed on."""
    recorder, clock = _Recorder(), ticking(1.0)
    monkeypatch.setattr(latency.registry, "find", lambda name: recorder)
    measured = measure([bundle], lambda: next(clock))
    assert measured is not None and len(recorder.images) == WARMUP + FEWEST_ROUNDS
    return recorder.images[0], measured.method


def test_one_golden_input_is_what_runs(bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    images, method = seen(bundles[0], monkeypatch)
    assert images.shape == (1, 3, 20, 28) and (method.batch, method.input) == (1, "a golden input")


@pytest.mark.parametrize("options", [["--no-gate"], ["--no-gate", "--dynamic-size"]], ids=" ".join)
def test_without_golden_tensors_noise_of_the_models_size_runs(
    checkpoint: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("export", checkpoint, *options, "-o", tmp_path / "bundle").code == 0
    images, method = seen(read_bundle(tmp_path / "bundle"), monkeypatch)
    assert images.shape == (1, 3, 20, 28) and images.dtype == np.float32 and method.input == "noise"


def test_a_fixed_batch_is_filled(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("export", checkpoint, "--batch", "3", "-o", tmp_path / "bundle").code == 0
    images, method = seen(read_bundle(tmp_path / "bundle"), monkeypatch)
    assert images.shape == (3, 3, 20, 28) and method.batch == 3
    np.testing.assert_array_equal(images[0], images[2])


def test_what_waits_for_a_device_is_not_timed_here(bundles: list[Bundle]) -> None:
    waiting = replace(bundles[0], manifest=bundles[0].manifest.model_copy(update={"verdict": "pending a device"}))
    clock = ticking(1.0)
    assert measure([waiting], lambda: next(clock)) is None
    measured = measure([waiting, bundles[1]], lambda: next(clock))
    assert measured is not None and list(measured.results) == [bundles[1].directory]


# The command


def test_export_shows_latency_and_how_it_was_measured_and_no_bundle_holds_it(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "-o", tmp_path / "timed", "--latency")
    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    assert "ms a batch" in text and "rounds in one process" in text and "batch 1, a golden input" in text
    assert "× first" not in text
    assert ran.err.splitlines()[-1] == "timing what was exported …"
    assert run("export", checkpoint, "-o", tmp_path / "plain").code == 0
    for name in ("manifest.json", "model.onnx", "golden.safetensors"):
        assert (tmp_path / "timed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert "latency" not in (tmp_path / "timed" / "report.json").read_text()


def test_json_compares_what_the_tables_compare(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--format", "onnx", "--format", "ort", "--latency")
    found = run("export", checkpoint, *options, "--json").json
    first, second = found["comparison"]
    assert (first["bundle"], second["bundle"]) == ("small-onnx-fp32", "small-ort-fp32")
    assert first["size_ratio"] == 1 and second["size_ratio"] == second["size_bytes"] / first["size_bytes"]
    assert 0 < second["relative_l2"] < 1e-5 and second["cosine"] == pytest.approx(1)
    assert second["latency"]["milliseconds"]["low"] <= second["latency"]["milliseconds"]["median"]
    assert first["latency"]["speed"] == {"median": 1, "low": 1, "high": 1}
    assert found["latency"].keys() == {"rounds", "batch", "cores", "input"} and found["plot"] is None
    assert FEWEST_ROUNDS <= found["latency"]["rounds"] <= MOST_ROUNDS
    text = run("export", checkpoint, *options, "--force").out
    assert "× first" in text and "times as fast as the first" in " ".join(text.split())


def test_without_latency_nothing_is_timed(checkpoint: Path, tmp_path: Path) -> None:
    found = run("export", checkpoint, "-o", tmp_path / "bundle", "--json").json
    assert found["latency"] is None and found["comparison"][0]["latency"] is None


# The tables


ROWS = [
    Row(
        "model-onnx-fp32",
        200_000,
        1.0,
        2.8e-7,
        1.0,
        1.0,
        0.895,
        Latency(Estimate(12.345, 12.0, 12.9), Estimate(1, 1, 1)),
    ),
    Row(
        "model-onnx-fp16",
        100_000,
        0.5,
        2.8e-4,
        1.0,
        1.0,
        0.895,
        Latency(Estimate(12.1, 12, 13), Estimate(1.01, 0.99, 1.04)),
    ),
    Row(
        "model-ort-int8",
        50_000,
        0.25,
        None,
        None,
        0.995,
        None,
        Latency(Estimate(0.85, 0.8, 0.9), Estimate(1.5, 1.4, 1.6)),
    ),
    Row("model-trt-fp32", 300_000, 1.5, None, None, None, None),
]


def test_a_ratio_whose_interval_holds_1_is_called_no_difference() -> None:
    text = shown(tables.latencies(ROWS, Method(321, 4, 2, "noise")))
    lines = {row.bundle: next(line for line in text.splitlines() if row.bundle in line) for row in ROWS}
    assert "12.3" in lines["model-onnx-fp32"] and "12.0 … 12.9" in lines["model-onnx-fp32"]
    assert "1.01" in lines["model-onnx-fp16"] and "0.99 … 1.04 ≈" in lines["model-onnx-fp16"]
    assert "0.850" in lines["model-ort-int8"] and "no difference" not in lines["model-ort-int8"]
    assert "cannot run here" in lines["model-trt-fp32"]
    assert "321 rounds" in text and "batch 4, noise" in text


def test_the_tables_fit_100_columns_and_only_names_fold() -> None:
    long = [
        replace(row, bundle=f"a-name-that-somebody-thought-was-a-good-idea-at-the-time-{row.bundle}") for row in ROWS
    ]
    for table in (tables.comparison(long), tables.latencies(long, Method(10, 1, 2, "noise"))):
        text = shown(table)
        assert max(map(len, text.splitlines())) <= 100 and "…│" not in text
    text = shown(tables.comparison(long))
    for figure in ("0.2 MB", "50.0 kB", "1.000", "2.8e-07", "1.000000", "99.50%", "89.50%"):
        assert figure in text
