"""What candidates are held against: their products alone, the parts of their time, and what the machine can do."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.benchmarks import PAIR, made_up
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_bench import profile
from s2mlp_bench.backends import BundleBackend, ProductsBackend
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.profile import Part, Profile
from s2mlp_bench.report import tables
from s2mlp_bench.roofline import lower_bound, peaks, roofline
from s2mlp_bench.roofline.lower_bound import ProductTypes, block_macs, bound_of
from s2mlp_bench.roofline.peaks import LEAST, SHARE, Probe, Probes, Reached
from s2mlp_bench.roofline.roofline import Dot, Roof, Roofline
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.families.s2mlp.spec import PRESETS, S2MLPSpec, Stage
from s2mlp_deploy.runtime.session import Kernel, ProfilingSession
from s2mlp_deploy.schema.precision import FP32, INT8, precision
from s2mlp_deploy.schema.spec import Embedding

SPEC = small_spec(channels=16, depth=2)
IN_FLOAT32 = FP32.on_gpu
ONCE = Point()
PYRAMID = S2MLPSpec(
    (Stage(Embedding((4, 4), (4, 4)), 8, 16, 1), Stage(Embedding((2, 2), (2, 2)), 12, 24, 2)),
    classes=5,
    image_size=(40, 24),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fp32``, ``fp16``, ``int8`` and ``ort`` (of int8) of one checkpoint, and ``pyramid`` of several stages."""
    directory = tmp_path_factory.mktemp("bound")
    checkpoint = save_checkpoint(directory / "small.pt", SPEC)
    for name, options in {
        "fp32": (),
        "fp16": ("--precision", "fp16"),
        "int8": ("--precision", "int8", "--calibration", "synthetic"),
        "ort": ("--format", "ort"),
    }.items():
        assert run("export", checkpoint, *options, "-o", directory / name).code == 0
    other = save_checkpoint(directory / "pyramid.pt", PYRAMID)
    assert run("export", other, "-o", directory / "pyramid").code == 0
    return directory


def entry(directory: Path, point: Point = ONCE) -> tuple[Candidate, Bundle]:
    bundle = read_bundle(directory)
    backend = BundleBackend(bundle)
    return Candidate(
        directory.name, "bundle", backend, point, bundle.manifest.precision, 1, None, golden_bundle=directory
    ), bundle


def operators(path: Path, scratch: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(scratch / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(scratch / "optimized.onnx").graph.node)


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_products_run_as_the_operator_that_the_bundle_has(place: Path, tmp_path: Path, name: str) -> None:
    """In int8 that is QGemm, which reads bytes, in fp16 on a CPU float32's, without a cast; anything slower would move the bound."""
    candidate, bundle = entry(place / name)
    found = bound_of(candidate, bundle.manifest, tmp_path)
    assert found is not None and isinstance(found.backend, ProductsBackend)
    alone, whole = operators(found.backend.path, tmp_path), operators(bundle.artifact.path, tmp_path)
    operator = "QGemm" if name == "int8" else "Gemm"
    assert alone == {operator: 8} and whole[operator] >= 8


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "ort", "pyramid"])
def test_each_bundle_that_onnxruntime_runs_has_a_bound_at_every_point(place: Path, tmp_path: Path, name: str) -> None:
    point = Point(batch=3, threads=1)
    candidate, bundle = entry(place / name, point)
    found = bound_of(candidate, bundle.manifest, tmp_path)
    assert found is not None and found.of == candidate.name and found.point == point and found.limit is None
    spec = bundle.manifest.spec
    graph = onnx.load(found.backend.path).graph  # type: ignore[attr-defined]
    sizes = spec.map_sizes(spec.image_size)
    rows = {3 * h * w for stage, (h, w) in zip(spec.stages, sizes, strict=True) if stage.depth}
    assert {x.type.tensor_type.shape.dim[0].dim_value for x in graph.input} == rows
    assert len(graph.output) == 4 * spec.depth
    assert found.backend.open(point).run(np.empty((0, 0), np.float32)).size == 0


def test_layers_that_stay_in_float_do_so_in_the_bound(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.onnx"
    types = ProductTypes("int8", INT8.on_gpu, "x86", ("stage0/block00/fc1", "stage0/block01/fc4"))
    lower_bound.write_twin(SPEC, Point(), types, path)
    assert operators(path, tmp_path) == {"QGemm": 6, "Gemm": 2}


def test_engines_of_other_runtimes_have_no_bound(place: Path, tmp_path: Path) -> None:
    candidate, bundle = entry(place / "fp32")
    assert bound_of(candidate, bundle.manifest.model_copy(update={"format": "trt"}), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_multiply_adds_of_the_blocks_are_the_papers() -> None:
    """M(2c² + 2c·c̄) for each block; the rest of the network adds less than two percent."""
    for name, spec in PRESETS.items():
        macs = block_macs(spec, Point())
        assert 0.98 < macs / spec.macs() < 1, name
    assert block_macs(PRESETS["deep"], Point(size=(448, 448))) == 4 * block_macs(PRESETS["deep"], Point())


# Profile


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_the_profile_accounts_for_every_layer(place: Path, name: str) -> None:
    candidate, _ = entry(place / name)
    session = candidate.backend.open(candidate.point)
    assert isinstance(session, ProfilingSession)
    images = np.zeros((1, 3, *SPEC.image_size), np.float32)
    found = profile.take("it", session, images, SPEC, Point(), weight_bytes=4)
    parts = {part.kind: part for part in found.parts}
    assert (parts["FC₁, FC₂"].calls, parts["FC₃"].calls, parts["FC₄"].calls) == (4, 2, 2)
    assert (parts["LayerNorm"].calls, parts["GELU"].calls, parts["residual sums"].calls) == (4, 4, 4)
    assert parts["shift"].calls >= 2 and parts["shift"].operations == 0
    assert ("quantize" in parts) == (name == "int8")
    assert sum(parts[kind].operations for kind in ("FC₁, FC₂", "FC₃", "FC₄")) == 2 * block_macs(SPEC, Point())
    assert sum(found.share(part) for part in found.parts) == pytest.approx(1)
    assert [p.time_ms for p in found.parts] == sorted((p.time_ms for p in found.parts), reverse=True)
    assert "other" not in parts or found.share(parts["other"]) < 0.2


def test_a_profile_is_the_mean_of_its_runs() -> None:
    class Known:
        def run(self, images: np.ndarray) -> np.ndarray:
            return images

        def profile(self, images: np.ndarray, runs: int) -> tuple[Kernel, ...]:
            one = [
                Kernel("stage0/block00/fc3", "Gemm", 30.0, 100, 200),
                Kernel("stage0/block00/gelu2", "Gelu", 10.0, 40, 80),
                Kernel("unheard of", "Sum", 5.0, 4, 4),
            ]
            return tuple(one * runs)

    found = profile.take("it", Known(), np.zeros(1), SPEC, Point(batch=2), weight_bytes=1)
    tokens, weights = 2 * 5 * 7, 16 * 48
    assert found.parts == (
        Part("FC₃", ("Gemm",), 1, 0.03, 2 * tokens * weights, 300 + weights),
        Part("GELU", ("Gelu",), 1, 0.01, 8 * 20, 120),
        Part("other", ("Sum",), 1, 0.005, 0, 8),
    )


# Roofline


def test_a_roof_is_the_lower_of_its_two_lines() -> None:
    roof = Roof(1, "fp32", 100e9, 10e9)
    assert (roof.at(2), roof.at(10), roof.at(1000)) == (20e9, 100e9, 100e9)


def test_a_dot_stands_below_the_roof_of_its_own_precision_and_threads() -> None:
    roofs = tuple(Roof(t, p, r, 1.0) for t, p, r in ((1, "fp32", 1.0), (2, "fp32", 2.0), (1, "int8", 4.0)))
    found = Roofline(roofs, ())
    assert found.roof(Dot("a", "candidate", "fp32", 2, 1.0, 1.0)) is roofs[1]
    assert found.roof(Dot("a", "layer", "fp16", 1, 1.0, 1.0)) is None


def test_products_move_what_they_read_their_weights_and_what_they_write() -> None:
    tokens, c, hidden = 35, 16, 48
    read = tokens * (3 * c + hidden)
    written = tokens * (3 * c + hidden)
    weights = 2 * c * c + 2 * c * hidden
    assert roofline.product_bytes(SPEC, Point(), IN_FLOAT32) == 2 * 4 * (read + written + weights)
    assert roofline.product_bytes(SPEC, Point(), INT8.on_gpu) == 2 * (read + 4 * written + weights)
    at_batch = roofline.product_bytes(SPEC, Point(batch=4), IN_FLOAT32)
    assert at_batch == 2 * 4 * (4 * (read + written) + weights)


def test_float16_weights_of_a_cpu_bundle_are_multiplied_as_float32_and_a_gpu_s_as_they_are(place: Path) -> None:
    _, bundle = entry(place / "fp16")
    widened = ProductTypes.of(bundle.manifest)
    assert widened.in_float32 and widened.arithmetic.item_bytes == IN_FLOAT32.item_bytes
    kept = ProductTypes.of(bundle.manifest.model_copy(update={"arithmetic": "float16"}))
    assert not kept.in_float32 and kept.arithmetic.item_bytes == (2, 2, 2)


def test_a_candidate_s_rate_is_its_blocks_operations_in_its_median_time(place: Path) -> None:
    candidate, _ = entry(place / "fp32", Point(batch=2))
    dot = roofline.candidate_dot(candidate, SPEC, IN_FLOAT32, 4.0)
    assert dot.operations_per_s == pytest.approx(2 * 2 * block_macs(SPEC, Point()) / 4e-3)
    moved = roofline.product_bytes(SPEC, Point(batch=2), IN_FLOAT32)
    assert dot.intensity == pytest.approx(4 * block_macs(SPEC, Point()) / moved)


def test_layers_without_arithmetic_have_no_dot() -> None:
    parts = (Part("FC₃", ("Gemm",), 1, 2.0, 4_000_000, 1000), Part("shift", ("Gather",), 1, 1.0, 0, 1000))
    (dot,) = roofline.layer_dots(Profile("it", parts), "fp32", 1)
    assert (dot.name, dot.intensity, dot.operations_per_s) == ("FC₃", 4000.0, 2e9)


def taking(clock: list[float], *seconds: float) -> Probe:
    """A probe of 100 operations whose runs take so many ``seconds``, the last ones over and over."""
    costs = iter(seconds)
    last = seconds[-1]

    def run() -> None:
        clock[0] += next(costs, last)

    return Probe("fp32", 1, "a runtime", "products", 100, run)


def test_probes_take_no_more_than_their_share_of_the_time_and_turns_among_themselves() -> None:
    clock = [0.0]
    each = [taking(clock, 1.0), taking(clock, 3.0)]
    probes = Probes(each, lambda: clock[0])
    for _ in range(1000):
        clock[0] += 0.1  # a round
        probes.turn()
    spent = each[0].runs * 1.0 + each[1].runs * 3.0
    assert each[0].runs - each[1].runs in (0, 1) and each[1].runs > 4
    assert SHARE * clock[0] - 3.0 <= spent <= SHARE * clock[0] + 3.0
    Probes((), lambda: clock[0]).turn()


def test_the_fastest_run_of_a_probe_counts_and_all_run_often_enough() -> None:
    clock = [0.0]
    probes = Probes([taking(clock, 4.0, 1.0, 2.0), taking(clock, 8.0)], lambda: clock[0])
    probes.turn()
    assert [one.operations_per_s for one in probes.finish()] == [100.0, 12.5]
    assert [probe.runs for probe in probes.probes] == [LEAST, LEAST]


@pytest.mark.parametrize(("name", "target"), [("fp32", None), ("fp16", None), ("int8", "x86")])
def test_every_runtime_here_computes_every_shape(name: str, target: str | None, tmp_path: Path) -> None:
    row = precision(name)
    assert row.on_cpu
    types = ProductTypes(name, row.on_cpu, target)
    found = list(peaks.prepare([types], (1, 2), tmp_path))
    runtimes = [peaks.ONNXRUNTIME, *([peaks.OPENVINO] if find_spec("openvino") else [])]
    runtimes += [peaks.TORCH] if types.in_float32 else []
    assert [(p.threads, p.runtime) for p in found] == 2 * [(n, runtime) for n in (1, 2) for runtime in runtimes]
    assert {p.products for p in found} == {"1,024 × 1,024 × 1,024", "196 × 384 × 1,536"}
    assert {p.operations for p in found} == {8 * 1024**3, 4 * 196 * (384**2 + 384 * 1536)}
    assert all(p.time(time.perf_counter) > 0 and p.fastest_s < float("inf") for p in found)


def test_a_roof_is_the_best_of_shapes_and_runtimes_and_more_threads_can_do_what_fewer_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roofline, "COPIED_BYTES", 1000)
    reached = [
        Reached("fp32", 1, "ONNX Runtime", "large", 50.0),
        Reached("fp32", 1, "OpenVINO", "small", 70.0),
        Reached("fp32", 2, "ONNX Runtime", "large", 60.0),
        Reached("int8", 2, "ONNX Runtime", "of the bundle", 300.0),
    ]
    ticks = iter(range(10_000))
    roofs = roofline.roofs_under(reached, lambda: next(ticks) * 0.1)
    assert [(r.precision, r.threads, r.operations_per_s, r.runtime, r.products, r.reached_on) for r in roofs] == [
        ("fp32", 1, 70.0, "OpenVINO", "small", 1),
        ("fp32", 2, 70.0, "OpenVINO", "small", 1),
        ("int8", 2, 300.0, "ONNX Runtime", "of the bundle", 2),
    ]
    assert roofs[0].bytes_per_s == pytest.approx(2 * 1000 / 0.1)


def test_what_is_above_the_peak_is_shown_as_measured_and_explained() -> None:
    _, result = made_up(PAIR)
    assert result.roofline is not None
    table = tables.roofline(result)
    assert table is not None and [row[-1] for row in table.rows] == ["81%", "19%"] and len(table.notes) == 1
    low = tuple(replace(r, operations_per_s=100e9, runtime="OpenVINO", products="small") for r in result.roofline.roofs)
    table = tables.roofline(replace(result, roofline=replace(result.roofline, roofs=low)))
    assert table is not None and [row[-1] for row in table.rows] == ["140%", "350%"]
    assert table.notes[0].endswith("fp32: OpenVINO, small; int8: OpenVINO, small.")
    assert table.notes[1].startswith("More than 100% of peak: fp32; int8. No machine does that")


def test_memory_is_copied_by_as_many_threads_as_the_runtime_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "usable_cores", lambda: 3)
    monkeypatch.setattr(roofline, "COPIED_BYTES", 1000)
    ticks = iter(range(10_000))
    assert roofline.memory_rate(None, lambda: next(ticks) * 0.1) == pytest.approx(2 * 3 * 1000 / 0.1)
