"""Real builds with TensorRT for RTX, which needs no GPU to build: what it takes, what it refuses, what is published."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.bare import OPTIONAL, bare
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, run
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import CompilerError, RuntimeMissingError, UnverifiedError, UsageError
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import (
    EvidenceOptions,
    Export,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.quantization.settings import OPTIONS, SYNTHETIC, Float16, Int8, PrecisionOptions
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.hashing import sha256
from s2mlp_exporters.tensorrt.build import build
from s2mlp_exporters.tensorrt.engine import EngineFormat
from s2mlp_exporters.tensorrt.log import Log, summary
from s2mlp_exporters.tensorrt.options import configure
from s2mlp_exporters.tensorrt.profile import Profile
from s2mlp_exporters.tensorrt.runtime import find_gpu
from s2mlp_studies.random_weights import save_random

rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

GPU = find_gpu()
WHY_NOT = re.escape(str(GPU))
without_gpu = pytest.mark.skipif(not isinstance(GPU, str), reason="this is about machines without a GPU")

LOWERINGS = ("slice", "gather", "pad", "conv")
PRECISIONS = ("fp32", "fp16", "int8")

Graphs = Callable[..., Path]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """ONNX bundles of the bundled checkpoint, each exported once; ``judged`` ones have golden tensors."""
    place = tmp_path_factory.mktemp("graphs")

    def graph(
        lowering: str = "gather",
        precision: str = "fp16",
        *,
        batch: int | None = None,
        dynamic_size: bool = False,
        target: str = "trt",
        judged: bool = False,
    ) -> Path:
        name = f"{lowering}-{precision}-{batch}-{dynamic_size}-{target}-{judged}"
        if not (place / name).exists():
            options: dict[str, PrecisionOptions] = {
                "int8": Int8(TEST_IMAGES, target=target),
                "fp16": Float16(target=target),
            }
            request = ExportRequest(
                Source(PAPER_CHECKPOINT),
                graph=GraphOptions(lowering, dynamic_size, batch),
                precision=options.get(precision) or OPTIONS[precision](),
                evidence=EvidenceOptions(gate=judged),
                output=OutputOptions(place / name),
            )
            deploy(request)
        return place / name

    return graph


@pytest.fixture(scope="module")
def graph(graphs: Graphs) -> Path:
    """An fp16 bundle with golden tensors, whose batch is free."""
    return graphs(judged=True)


@pytest.fixture(scope="module")
def made(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """``graph`` as an engine that no test changes."""
    return engine(
        graph,
        tmp_path_factory.mktemp("made") / "engine",
        workspace_mib=512,
        compute_capability=("sm86", "sm89"),
        batch="1:4:16",
    )


def engine(source: Path, output: Path, *, format: str = "trt-rtx", allow: bool = True, **settings: Any) -> Export:
    """``source``, an ONNX bundle, compiled."""
    precision = json.loads((source / "manifest.json").read_text())["precision"]
    return deploy(
        ExportRequest(
            Source(source),
            precision=OPTIONS[precision](),
            format=FormatOptions(format, settings),
            evidence=EvidenceOptions(allow_unverified_engine=allow),
            output=OutputOptions(output),
        )
    )


def model(bundle: Path) -> Path:
    return bundle / "model.onnx"


def profile(*batches: int) -> dict[str, Profile]:
    return {"input": Profile(*((batch, 3, 28, 28) for batch in batches))}


# What it builds


QUICK = {
    ("gather", "fp32", True),
    ("slice", "fp16", True),
    ("pad", "int8", True),
    ("conv", "fp32", True),
    ("gather", "int8", False),
    ("slice", "int8", False),
    ("pad", "fp16", False),
    ("conv", "int8", False),
}
"""Every lowering at two precisions, with fixed sizes and with ranges of them. The others are tried by make thorough."""


@pytest.mark.parametrize(
    ("lowering", "precision", "free"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.thorough)
        for case in product(LOWERINGS, PRECISIONS, (False, True))
    ],
    ids=lambda value: {False: "static", True: "profile"}.get(value, value),
)
def test_every_lowering_builds_at_every_precision(
    lowering: str, precision: str, free: bool, graphs: Graphs, tmp_path: Path
) -> None:
    any_size = free and lowering != "gather"
    source = graphs(lowering, precision, batch=None if free else 2, dynamic_size=any_size)
    settings = {**({"batch": "1:3:5"} if free else {}), **({"size_profile": "20x24:28:32x40"} if any_size else {})}
    export = engine(source, tmp_path / "engine", **settings)
    recorded = export.bundle.manifest.engine
    assert recorded is not None
    smallest, largest = ("1", "5") if free else ("2", "2")
    assert recorded["smallest"] == (smallest, "3", *(("20", "24") if any_size else ("28", "28")))
    assert recorded["largest"] == (largest, "3", *(("32", "40") if any_size else ("28", "28")))
    assert (tmp_path / "engine" / "model.plan").stat().st_size == export.report.as_dict()["engine"]["engine_bytes"] > 0
    assert read_bundle(tmp_path / "engine").manifest.lowering == lowering


@pytest.mark.thorough
def test_the_wide_preset_builds(tmp_path: Path) -> None:
    checkpoint = save_random("wide", tmp_path / "wide.pt", seed=0)
    export = deploy(
        ExportRequest(
            Source(checkpoint),
            graph=GraphOptions(batch=1),
            precision=Float16(),
            format=FormatOptions("trt-rtx"),
            evidence=EvidenceOptions(gate=False),
            output=OutputOptions(tmp_path / "engine"),
        )
    )
    checkpoint.unlink()
    weights = 2 * 72_206_824
    assert export.report.as_dict()["engine"]["engine_bytes"] > weights
    assert export.report.engine.kernels > 12
    assert sorted(file.name for file in tmp_path.iterdir()) == ["engine"]
    shutil.rmtree(tmp_path / "engine")


def test_an_engine_is_built_without_torch_and_is_the_same_to_the_byte(graphs: Graphs, tmp_path: Path) -> None:
    source = Path(shutil.copytree(graphs("slice"), tmp_path / "elsewhere" / "graph"))
    hidden = tuple(name for name in OPTIONAL if name != "tensorrt_rtx")
    step = ("s2mlp-export", str(source), "--format", "trt-rtx", "-o", str(tmp_path / "there"))
    there = bare(hidden, step)
    assert there.answers[step]["code"] == 0, there.answers[step]["err"]
    engine(graphs("slice"), tmp_path / "here")
    for name in ("model.plan", "model.onnx"):
        assert sha256(tmp_path / "here" / name) == sha256(tmp_path / "there" / name)


# What is published


def test_an_engine_that_cannot_be_judged_is_published_as_pending(made: Export) -> None:
    manifest = made.bundle.manifest
    if isinstance(GPU, str):
        assert (manifest.verdict, made.verdict) == ("pending a device", None)
    assert (manifest.format, manifest.artifact, manifest.graph) == ("trt-rtx", "model.plan", ("model.onnx",))
    assert manifest.tolerance is not None


def test_the_graph_and_the_golden_tensors_go_along_and_are_hashed(made: Export, graph: Path) -> None:
    directory = made.bundle.directory
    assert made.bundle.manifest.files.keys() == {"model.plan", "model.onnx", "golden.safetensors"}
    for name in ("model.onnx", "golden.safetensors"):
        assert (directory / name).read_bytes() == (graph / name).read_bytes()
    assert {file.name for file in directory.iterdir()} == {*made.bundle.manifest.files, "manifest.json", "report.json"}
    assert read_bundle(directory).artifact.files == ("model.plan",)


def test_the_manifest_says_how_the_engine_was_built(made: Export) -> None:
    assert made.bundle.manifest.engine == {
        "runtime": "tensorrt_rtx",
        "runtime_version": rtx.__version__,
        "built_for": ("sm86", "sm89"),
        "smallest": ("1", "3", "28", "28"),
        "usual": ("4", "3", "28", "28"),
        "largest": ("16", "3", "28", "28"),
        "options": ("compute_capability=sm86,sm89", "workspace_mib=512"),
    }
    assert rtx.__version__ in made.bundle.manifest.versions.values()


def test_the_report_holds_the_builders_log_and_what_it_fused(made: Export) -> None:
    report = json.loads((made.bundle.directory / "report.json").read_text())["engine"]
    assert any("Engine generation completed" in line for line in report["build_log"])
    assert not any(line.startswith("VERBOSE") for line in report["build_log"])
    assert 0 < report["shift_kernels"] <= report["kernels"] == sum(report["kernel_kinds"].values())
    assert 0 < report["shift_moved_bytes"] < report["moved_bytes"]


def test_the_log_tells_which_kernel_does_which_nodes(graphs: Graphs) -> None:
    source, log = graphs("gather", "fp16", batch=2), Log()
    plan = build(rtx, model(source), profile(2, 2, 2), {}, log)
    kernels = log.kernels()
    assert plan.nbytes > 0 and log.errors == []
    names = {node.name for node in onnx.load(model(source)).graph.node}
    done = {name for kernel in kernels for name in kernel.nodes}
    for block in range(6):
        assert {name for name in done & names if name.startswith(f"stage0/block{block:02d}/")}
        assert f"stage0/block{block:02d}/fc1" in done
    assert all(kernel.moved_bytes > 0 for kernel in kernels if kernel.kind != "shape_call")
    shifting = [kernel for kernel in kernels if kernel.only_shifts]
    assert len(shifting) == summary(kernels)["shift_kernels"] <= len(kernels)


def test_a_log_without_kernels_makes_no_figures() -> None:
    assert summary(Log([("INFO", "nothing of that kind")]).kernels()) == {}


@without_gpu
def test_an_engine_that_cannot_be_judged_is_refused_unless_that_is_allowed(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UnverifiedError, match=rf"not checked \({WHY_NOT}.*--allow-unverified-engine") as caught:
        engine(graph, tmp_path / "new" / "engine", allow=False)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@without_gpu
def test_the_command_refuses_it_too(graph: Path, tmp_path: Path) -> None:
    ran = run("export", graph, "--format", "trt-rtx", "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (1, "") and "--allow-unverified-engine" in ran.err
    assert list(tmp_path.iterdir()) == []


@without_gpu
def test_from_a_checkpoint_the_graph_is_judged_and_the_engine_is_pending(tmp_path: Path) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        precision=Float16(),
        format=FormatOptions("trt-rtx"),
        evidence=EvidenceOptions(allow_unverified_engine=True),
        output=OutputOptions(tmp_path / "engine"),
    )
    export = deploy(request)
    assert export.bundle.manifest.verdict == "pending a device"
    assert export.report.engine.kernels > 0
    assert [file.name for file in tmp_path.iterdir()] == ["engine"]


@without_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_may_take_bytes(precision: str, tmp_path: Path) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        graph=GraphOptions(interface=Interface(input="uint8")),
        precision=OPTIONS[precision](),
        format=FormatOptions("trt-rtx"),
        evidence=EvidenceOptions(allow_unverified_engine=True),
        output=OutputOptions(tmp_path / "engine"),
    )
    manifest = deploy(request).bundle.manifest
    assert (manifest.input.dtype, manifest.input.layout, manifest.input.shape) == (
        "uint8",
        "NHWC",
        ("batch", 28, 28, 3),
    )
    assert manifest.engine is not None
    assert (manifest.engine["smallest"], manifest.engine["largest"]) == (("1", "28", "28", "3"), ("8", "28", "28", "3"))


# Verifying where there is no GPU


@without_gpu
def test_a_pending_bundle_is_not_verified_without_a_gpu(made: Export) -> None:
    ran = run("verify", made.bundle.directory)
    assert (ran.code, ran.out) == (4, "") and f"needs an NVIDIA GPU: {GPU}" in ran.err


def test_a_changed_engine_is_never_given_to_the_runtime(
    made: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(made.bundle.directory, tmp_path / "engine"))
    content = bytearray((bundle / "model.plan").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.plan").write_bytes(content)
    monkeypatch.setattr(EngineFormat, "open", lambda *_: pytest.fail("the changed engine was opened"))
    ran = run("verify", bundle)
    assert ran.code == 3 and "model.plan is not the file that was exported" in ran.err


def test_a_runtime_that_is_not_installed_is_named_with_its_remedy(
    made: Export, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    ran = run("verify", made.bundle.directory)
    assert ran.code == 4 and "TensorRT for RTX cannot be loaded" in ran.err
    assert pip_install("trt-rtx") in ran.err
    with pytest.raises(RuntimeMissingError, match=re.escape(pip_install("trt-rtx"))):
        engine(graph, tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [{"runtime_version": 7}, {"surprise": True}, {"options": "workspace_mib"}, {"smallest": None}], ids=str
)
def test_damaged_settings_of_an_engine_are_a_bad_bundle(damage: dict[str, Any], made: Export, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(made.bundle.directory, tmp_path / "engine"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, value in damage.items():
        manifest["engine"] |= {name: value}
        if value is None:
            del manifest["engine"][name]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    ran = run("verify", bundle)
    assert ran.code == 3 and next(iter(damage)) in ran.err


# What does not fit


@pytest.mark.parametrize("batch", ["4:2:8", "1:9:8", "0:1:8", "1:8", "1:2:x", "-1:2:3"])
def test_a_range_of_batches_that_is_none_is_refused(batch: str, graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--batch '{batch}': expected MIN:OPT:MAX"):
        engine(graph, tmp_path / "engine", batch=batch)
    assert list(tmp_path.iterdir()) == []


def test_a_range_of_batches_is_not_for_a_graph_with_a_fixed_one(graphs: Graphs, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch 1:4:16: the bundle's graph has a fixed batch of 2"):
        engine(graphs(batch=2), tmp_path / "engine", batch="1:4:16")


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ("28:20:36", "rising order"),
        ("28x40:32x36:36x32", "rising order"),
        ("20:28", "expected MIN:OPT:MAX"),
        ("0:28:36", "0"),
        ("20:28:37", "37"),
        ("32:36:40", "leaves out 28"),
    ],
)
def test_a_range_of_sizes_that_does_not_fit_is_refused(
    sizes: str, complaint: str, graphs: Graphs, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"--size-profile.*{complaint}"):
        engine(graphs("slice", "fp16", dynamic_size=True), tmp_path / "engine", size_profile=sizes)


def test_a_range_that_leaves_out_the_golden_sizes_is_refused(graphs: Graphs, tmp_path: Path) -> None:
    source = graphs("slice", "fp16", dynamic_size=True, judged=True)
    with pytest.raises(UsageError, match=r"--size-profile leaves out \S+, which the golden inputs have"):
        engine(source, tmp_path / "engine", size_profile="28:28:28")


def test_a_range_that_ends_before_the_large_golden_size_is_built_for_and_not_judged_beyond(
    graphs: Graphs, tmp_path: Path
) -> None:
    source = graphs("slice", "fp16", dynamic_size=True, judged=True)
    whole = golden_tensors.load(source / "golden.safetensors")
    made = engine(source, tmp_path / "engine", size_profile="4:28:36")
    kept = golden_tensors.load(made.bundle.golden)
    assert whole.inputs.keys() - kept.inputs.keys() == {"large-124x132"} == whole.logits.keys() - kept.logits.keys()
    assert all(np.array_equal(kept.trace[name], array) for name, array in whole.trace.items())
    everything = engine(source, tmp_path / "all")
    assert golden_tensors.load(everything.bundle.golden).inputs.keys() == whole.inputs.keys()


def test_a_range_of_sizes_is_not_for_a_graph_of_one_size(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--size-profile 20:28:36: the bundle's graph has the fixed size 28"):
        engine(graph, tmp_path / "engine", size_profile="20:28:36")


def test_a_compute_capability_that_the_runtime_does_not_know_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--compute-capability sm42: .* builds for sm75, .*sm89"):
        engine(graph, tmp_path / "engine", compute_capability=("sm86", "sm42"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["timing_cache", "opt_level", "hardware_compatible", "version_compatible", "bf16"])
def test_a_setting_that_the_format_does_not_know_is_refused(option: str, graph: Path, tmp_path: Path) -> None:
    flag = "--" + option.replace("_", "-")
    with pytest.raises(UsageError, match=f"{flag}: not for --format trt-rtx"):
        engine(graph, tmp_path / "engine", **{option: 1})


def test_too_little_workspace_is_told_with_the_option_that_gives_more(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"workspace.*--workspace-mib"):
        build(rtx, model(graph), profile(1, 1, 8), {"workspace_mib": 0}, Log())
    with pytest.raises(UsageError, match=r"--workspace-mib 0: expected a number greater than or equal to 1"):
        engine(graph, tmp_path / "engine", workspace_mib=0)
    assert list(tmp_path.iterdir()) == []


def test_int8_with_float16_between_the_products_moves_fewer_bytes(tmp_path: Path) -> None:
    moved = {}
    shape = (1, 3, 28, 28)
    for between in ("fp32", "fp16"):
        request = ExportRequest(
            Source(PAPER_CHECKPOINT),
            graph=GraphOptions("gather", batch=1),
            precision=Int8(SYNTHETIC, target="trt", between=between),  # type: ignore[arg-type]
            output=OutputOptions(tmp_path / between),
        )
        log = Log()
        build(rtx, deploy(request).bundle.artifact.path, {"input": Profile(shape, shape, shape)}, {}, log)
        moved[between] = summary(log.kernels())["moved_bytes"]
    assert moved["fp16"] < 0.8 * moved["fp32"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_turing_takes_fp16_alone_and_the_error_says_so(precision: str, graphs: Graphs, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"Turing.*Leave out --compute-capability sm75, or use --precision fp16"):
        engine(graphs("gather", precision), tmp_path / "engine", compute_capability=("sm75",))
    if precision == "fp32":
        assert engine(graphs("gather", "fp16"), tmp_path / "fp16", compute_capability=("sm75",))


@without_gpu
def test_engines_without_weights_are_refused_where_there_is_no_gpu_to_ask(
    graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeMissingError, match=rf"--strip-weights .*{WHY_NOT}.*leave it out"):
        engine(graph, tmp_path / "engine", strip_weights=True)
    assert capfd.readouterr() == ("", "")


def test_building_prints_nothing(graph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine(graph, tmp_path / "engine")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("target", ["x86", "arm"])
def test_an_int8_graph_for_cpus_is_refused_before_the_runtime_sees_it(
    target: str, graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = graphs("gather", "int8", target=target)
    monkeypatch.setattr(EngineFormat, "compile", lambda *_: pytest.fail("the graph was compiled"))
    with pytest.raises(UsageError, match=f"quantized for {target}, and --format trt-rtx takes graphs for trt"):
        engine(source, tmp_path / "engine")


@pytest.mark.parametrize("target", ["x86", "arm"])
def test_the_runtime_would_refuse_such_a_graph_and_is_quoted_with_the_node(target: str, graphs: Graphs) -> None:
    source = graphs("gather", "int8", target=target)
    with pytest.raises(CompilerError, match=r"at stage0/block00/fc1/\S+ \(\w+\): .*[Zz]ero point"):
        build(rtx, model(source), profile(1, 1, 8), {}, Log())


def test_a_file_that_is_no_graph_is_told_without_a_node(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(CompilerError, match=r"does not take the graph: (?!at ).*Failed to parse"):
        build(rtx, tmp_path / "model.onnx", profile(1, 1, 1), {}, Log())


def test_a_profile_that_the_graph_does_not_take_is_told(graphs: Graphs) -> None:
    with pytest.raises(UsageError, match=r"4x3x28x28 to 2x3x28x28: .*MIN<=OPT<=MAX"):
        build(rtx, model(graphs()), profile(4, 3, 2), {}, Log())
    with pytest.raises(CompilerError, match="static dimensions"):
        build(rtx, model(graphs(batch=2)), profile(1, 3, 4), {}, Log())


def test_tf32_is_off_unless_asked_for() -> None:
    logger = Log().into(rtx)
    config = rtx.Builder(logger).create_builder_config()
    assert config.get_flag(rtx.BuilderFlag.TF32)  # the runtime's own default
    configure(rtx, config, {})
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    configure(rtx, config, {"tf32": True})
    assert config.get_flag(rtx.BuilderFlag.TF32)
    configure(rtx, config, {"workspace_mib": 3, "compute_capability": ("sm89", "sm86")})
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 3 * 2**20
    found = [config.get_compute_capability(i) for i in range(config.num_compute_capabilities)]
    assert found == [rtx.ComputeCapability.SM86, rtx.ComputeCapability.SM89]


# --format trt where TensorRT is not


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without TensorRT."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt_a_checkpoint_gets_as_far_as_the_verified_graph_and_the_way_on_is_told(
    tmp_path: Path,
) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        precision=Float16(),
        format=FormatOptions("trt", {"workspace_mib": 512, "batch": "1:4:16"}),
        output=OutputOptions(tmp_path / "engine"),
    )
    with pytest.raises(RuntimeMissingError) as caught:
        deploy(request)
    graph = tmp_path / "engine-onnx-fp16"
    steps = (
        "TensorRT cannot be loaded",
        str(graph),
        "to the device",
        "s2mlp-export engine-onnx-fp16 --format trt --workspace-mib 512 --batch 1:4:16",
        "--format trt-rtx",
    )
    places = [str(caught.value).index(step) for step in steps]
    assert places == sorted(places) and caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == [graph]
    assert run("verify", graph).code == 0


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt_a_bundle_is_the_one_to_copy(graph: Path, tmp_path: Path) -> None:
    ran = run("export", graph, "--format", "trt", "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (4, "") and "TensorRT cannot be loaded" in ran.err
    assert f"{graph} to the device" in ran.err and f"s2mlp-export {graph.name} --format trt" in ran.err
    assert list(tmp_path.iterdir()) == []
