"""Sessions on an NVIDIA GPU: buffers that stay, a graph for each shape, turns, and memory that is given back; on a recorded fake."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from helpers.fake_cuda import RECORDING, REFUSED, FakeGpu, install
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_bench.candidate import Point
from s2mlp_bench.inputs import of_bundle
from s2mlp_bench.load import candidate_of
from s2mlp_bench.runner import Runner
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.runtime import cuda_session
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession
from s2mlp_deploy.runtime.opening import open_session
from s2mlp_deploy.schema.array import Array

ON_CUDA = Loading("cuda")

OPTIONS = {"device_id": "0", "use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1", "enable_cuda_graph": "1"}
"""The provider's, as ONNX Runtime calls them, where nothing is chosen."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fp32``, ``fp16`` and ``top5``: ONNX bundles of a small checkpoint, for any batch."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    for name, options in {
        "fp32": (),
        "fp16": ("--precision", "fp16", "--target", "trt", "--io-dtype", "fp16"),
        "top5": ("--answer", "top5"),
    }.items():
        assert run("export", checkpoint, *options, "-o", place / name).code == 0
    return place


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return install(FakeGpu(), monkeypatch)


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 20, 28)).astype(np.float32)


def session(path: Path, loading: Loading = ON_CUDA) -> CudaSession:
    found = open_session(path / "model.onnx", loading)
    assert isinstance(found, CudaSession)
    return found


# The same numbers


@pytest.mark.parametrize("name", ["fp32", "fp16", "top5"])
def test_bound_buffers_change_no_bit_in_the_real_onnx_runtime(made: Path, name: str) -> None:
    plain, bound = OnnxSession(made / name / "model.onnx"), CudaSession(made / name / "model.onnx", Loading("cpu"))
    for count in (2, 2, 3, 2):
        x = images(count, seed=count)
        np.testing.assert_array_equal(bound.run(x), plain.run(x))
        if name == "top5":
            for mine, theirs in zip(bound.rank(x), plain.rank(x), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    feeds = {"input": images(2).astype(np.float16 if name == "fp16" else np.float32)}
    for output, value in plain.compute(feeds).items():
        np.testing.assert_array_equal(bound.compute(feeds)[output], value)


def test_a_gpu_gives_the_numbers_of_each_input_and_keeps_none(made: Path, gpu: FakeGpu) -> None:
    plain, on_gpu = OnnxSession(made / "fp32" / "model.onnx"), session(made / "fp32")
    first = on_gpu.run(images(2, seed=1))
    before = first.copy()
    for seed in range(4):
        np.testing.assert_array_equal(on_gpu.run(images(2, seed)), plain.run(images(2, seed)))
    np.testing.assert_array_equal(first, before)
    assert gpu.count("record") == 1 and gpu.count("replay") == 4


def test_an_input_that_is_not_contiguous_is_copied_right(made: Path, gpu: FakeGpu) -> None:
    x = np.asfortranarray(images(3))
    np.testing.assert_array_equal(session(made / "fp32").run(x), OnnxSession(made / "fp32" / "model.onnx").run(x))


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({"input": images(2).astype(np.float64)}, "the input input is float64: expected tensor.float."),
        ({"input": images(2), "mask": images(2)}, "inputs called input, mask: expected input"),
        ({}, "expected input"),
    ],
)
def test_an_input_of_another_type_or_name_is_refused_also_after_a_right_one(
    made: Path, gpu: FakeGpu, feeds: dict[str, Array], reason: str
) -> None:
    on_gpu = session(made / "fp32")
    right = on_gpu.run(images(2))
    with pytest.raises(BundleError, match=reason):
        on_gpu.compute(feeds)
    np.testing.assert_array_equal(on_gpu.run(images(2)), right)


def test_an_input_of_another_shape_is_refused_and_the_session_runs_on(made: Path, gpu: FakeGpu) -> None:
    on_gpu = session(made / "fp32")
    right = on_gpu.run(images(2))
    with pytest.raises(BundleError, match=r"cannot run the model on an input of \[2, 1, 20, 28\]"):
        on_gpu.run(images(2)[:, :1])
    assert len(on_gpu._kept) == 1
    np.testing.assert_array_equal(on_gpu.run(images(2)), right)


# Options


def test_tf32_is_off_and_a_cuda_graph_on_unless_chosen(made: Path, gpu: FakeGpu) -> None:
    session(made / "fp32").run(images(1))
    assert gpu.options == [OPTIONS]
    other = CudaSession(made / "fp32" / "model.onnx", Loading("cuda", tf32=True))
    other.run(images(1))
    other.run(images(1))
    assert gpu.options[1:] == [{**OPTIONS, "use_tf32": "1", "enable_cuda_graph": "0"}]
    assert gpu.done[-8:].count("run") == 2 and other.execution().without_graph == "it was switched off"


def test_the_execution_names_the_gpu_and_how_it_is_used(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = install(FakeGpu(names=("NVIDIA H200", "NVIDIA L4")), monkeypatch)
    on_gpu = session(made / "fp32", Loading("cuda", device=1))
    on_gpu.run(images(1))
    assert gpu.options[0]["device_id"] == "1"
    assert str(on_gpu.execution()) == "cuda, GPU 1 (NVIDIA L4), TF32 off, CUDA graphs"
    assert "clock" in on_gpu.execution().clock


# Graphs by shape


def test_each_shape_has_a_graph_and_buffers_of_its_own(made: Path, gpu: FakeGpu) -> None:
    plain, on_gpu = OnnxSession(made / "fp32" / "model.onnx"), session(made / "fp32")
    for count in (1, 2, 1, 3, 2, 1):
        np.testing.assert_array_equal(on_gpu.run(images(count, seed=count)), plain.run(images(count, seed=count)))
    assert gpu.count("record") == 3 and gpu.count("replay") == 3 and gpu.count("allocate") == 6


def test_of_many_shapes_the_least_recently_used_is_dropped(
    made: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_session, "MOST_SHAPES", 2)
    on_gpu = session(made / "fp32")
    for count in (1, 2, 1, 3):  # 3 takes the place of 2
        on_gpu.run(images(count))
    assert gpu.count("release") == 1 and len(on_gpu._kept) == 2
    on_gpu.run(images(1))
    assert gpu.count("record") == 3
    on_gpu.run(images(2))
    assert gpu.count("record") == 4 and gpu.count("load") == 1


def test_after_many_graphs_the_model_is_loaded_again(made: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_session, "MOST_SHAPES", 1)
    monkeypatch.setattr(cuda_session, "MOST_GRAPHS", 3)
    plain, on_gpu = OnnxSession(made / "fp32" / "model.onnx"), session(made / "fp32")
    for count in (1, 2, 1, 2, 1):
        np.testing.assert_array_equal(on_gpu.run(images(count)), plain.run(images(count)))
    assert gpu.count("load") == 2 and gpu.count("record") == 5


# Without a graph


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        ("load with graph", REFUSED, "the model has loops or branches, which cannot be recorded"),
        ("record", RECORDING, "ONNX Runtime ran the model, and could not record it"),
    ],
)
def test_a_model_that_cannot_be_recorded_runs_as_it_is_and_the_reason_is_given(
    made: Path, gpu: FakeGpu, call: str, error: str, reason: str
) -> None:
    gpu.fails[call] = error
    on_gpu = session(made / "fp32")
    expected = OnnxSession(made / "fp32" / "model.onnx").run(images(2))
    for _ in range(2):
        np.testing.assert_array_equal(on_gpu.run(images(2)), expected)
    assert gpu.options[-1]["enable_cuda_graph"] == "0" and gpu.count("run") == 2
    assert on_gpu.execution().without_graph == reason
    assert str(on_gpu.execution()).endswith(f"no CUDA graph: {reason}")


@pytest.fixture
def picking(tmp_path: Path) -> Path:
    """A model whose output is as long as its input has positive numbers."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Compress", ["x", "positive"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    graph = helper.make_graph(nodes, "picking", [x], [y], [zero])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "model.onnx"
    )
    return tmp_path


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_outputs_whose_size_follows_from_the_values_are_right_each_time(
    provider: str, picking: Path, gpu: FakeGpu
) -> None:
    running = CudaSession(picking / "model.onnx", Loading(provider))
    for values in ([1.0, -1, 2], [-1.0, -1, 5], [1.0, 2, 3]):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(running.compute({"x": x})["y"], x[x > 0])
    assert gpu.count("record") == 0
    assert "sizes of its outputs follow from values" in str(
        open_session(picking / "model.onnx", ON_CUDA).execution().without_graph
    )


# Turns, times, memory


def test_threads_take_turns(made: Path, gpu: FakeGpu) -> None:
    sessions = [session(made / "fp32"), session(made / "fp16")]
    expected = [[each.run(images(2, seed)) for seed in range(8)] for each in sessions]
    with ThreadPoolExecutor(4) as pool:
        found = [list(pool.map(lambda seed, each=each: each.run(images(2, seed)), range(8))) for each in sessions]
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    one = ["copy in", "replay", "copy out"]
    assert gpu.done[-3 * 16 :] == one * 16


def test_copies_and_computation_are_timed_apart(made: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 7.0])
    on_gpu = session(made / "fp32")
    on_gpu.run(images(2))
    monkeypatch.setattr(cuda_session.time, "perf_counter", lambda: next(now))
    times = on_gpu.time(images(2))
    assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == (1e3, 2e3, 4e3)


def test_a_failure_of_a_profile_is_explained_and_the_session_runs_on(
    made: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = session(made / "fp16")
    wanted = on_gpu.run(images(2))

    def fail(self: OnnxSession, given: Array, runs: int) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(OnnxSession, "profile", fail)
        with pytest.raises(RuntimeMissingError, match="too little free memory for a batch of 2"):
            on_gpu.profile(images(2), 1)
    np.testing.assert_array_equal(on_gpu.run(images(2)), wanted)


def test_memory_is_given_back_and_taken_again(made: Path, gpu: FakeGpu) -> None:
    on_gpu = session(made / "fp32")
    expected = on_gpu.run(images(2))
    on_gpu.close()
    assert not on_gpu._kept and on_gpu._loaded is None
    np.testing.assert_array_equal(on_gpu.run(images(2)), expected)
    assert gpu.count("load") == 2


def test_operators_are_profiled_without_a_graph(made: Path, gpu: FakeGpu) -> None:
    on_gpu = session(made / "fp32")
    kernels = on_gpu.profile(images(1), runs=1)
    assert {"Gemm", "Gather"} <= {kernel.operator for kernel in kernels}
    assert gpu.options[-1]["enable_cuda_graph"] == "0" and on_gpu._loaded is None


# Commands


@pytest.fixture(scope="module")
def engine(made: Path) -> Path:
    """An ort engine for CUDA."""
    with pytest.MonkeyPatch.context() as patch:
        install(FakeGpu(names=("NVIDIA H200", "NVIDIA L4")), patch)
        options = ("--format", "ort", "--provider", "cuda", "--ort-style", "onnx", "--device", 1)
        ran = run("export", made / "fp32", *options, "-o", made / "engine")
        assert ran.code == 0, ran.err
    return made / "engine"


def test_an_export_for_cuda_is_checked_on_the_chosen_gpu_and_reports_it(engine: Path) -> None:
    report = json.loads((engine / "report.json").read_text())
    assert report["execution"] == {
        "provider": "cuda",
        "device": 1,
        "gpu": "NVIDIA L4",
        "tf32": False,
        "cuda_graph": True,
        "without_graph": None,
        "clock": cuda_session.CLOCK,
    }
    settings = json.loads((engine / "manifest.json").read_text())["engine"]
    assert settings["provider"] == "cuda" and not {"device", "tf32"} & settings.keys()


def test_verify_runs_it_there_and_says_so(engine: Path, gpu: FakeGpu) -> None:
    ran = run("verify", engine, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["execution"]["gpu"] == "NVIDIA H200" and gpu.count("replay") > 0
    ran = run("verify", engine)
    assert "cuda, GPU 0 (NVIDIA H200), TF32 off, CUDA graphs" in " ".join(ran.out.split())


def test_verify_runs_an_onnx_bundle_on_cuda_with_tf32_on_a_chosen_gpu(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = install(FakeGpu(names=("NVIDIA H200", "NVIDIA L4")), monkeypatch)
    ran = run("verify", made / "fp32", "--provider", "cuda", "--device", 1, "--tf32", "--json")
    assert ran.code == 0, ran.err
    assert gpu.options[-1] == {**OPTIONS, "device_id": "1", "use_tf32": "1"}
    assert ran.json["execution"] is not None and ran.json["execution"]["tf32"] is True


def test_accuracy_is_measured_on_the_same_gpu(made: Path, tmp_path: Path, gpu: FakeGpu) -> None:
    for label in range(7):
        (tmp_path / str(label)).mkdir()
        Image.fromarray(np.full((20, 28, 3), 30 * label, np.uint8)).save(tmp_path / str(label) / "one.png")
    here = run("verify", made / "fp32", "--data", tmp_path, "--json")
    assert here.code == 0 and gpu.done == []
    ran = run("verify", made / "fp32", "--data", tmp_path, "--provider", "cuda", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["accuracy"] == here.json["accuracy"] and ran.json["accuracy"]["images"] == 7
    assert gpu.count("load") == 2  # to verify, and for the images


def test_tf32_is_recorded_and_named_as_the_cause_where_numbers_are_off(
    made: Path, tmp_path: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--format", "ort", "--provider", "cuda", "--ort-style", "onnx", "--tf32")
    assert run("export", made / "fp32", *options, "-o", tmp_path / "good").code == 0
    assert json.loads((tmp_path / "good" / "manifest.json").read_text())["engine"]["tf32"] is True
    monkeypatch.setattr(CudaSession, "_values", _rounded(CudaSession._values))
    ran = run("export", made / "fp32", *options, "-o", tmp_path / "off")
    assert ran.code == 1 and "rounded to TF32" in ran.err and not (tmp_path / "off").exists()


def _rounded(values: object) -> object:
    return lambda *given: [array * (1 + 3e-4 * np.arange(array.shape[1])) for array in values(*given)]  # type: ignore[operator]


def test_an_export_warns_where_it_runs_without_a_graph(made: Path, tmp_path: Path, gpu: FakeGpu) -> None:
    gpu.fails["load with graph"] = REFUSED
    options = ("--format", "ort", "--provider", "cuda", "--ort-style", "onnx")
    ran = run("export", made / "fp32", *options, "-o", tmp_path / "engine")
    assert ran.code == 0 and "runs without a CUDA graph: the model has loops or branches" in " ".join(ran.err.split())


@pytest.mark.parametrize("fails", [False, True], ids=["graph", "no graph"])
def test_the_benchmark_times_the_same_session_and_remarks_on_a_missing_graph(
    fails: bool, made: Path, gpu: FakeGpu
) -> None:
    gpu.fails = {"load with graph": REFUSED} if fails else {}
    bundle = read_bundle(made / "fp32")
    runner = Runner(candidate_of(bundle, Point(2, provider="cuda"), [bundle]), of_bundle(bundle))
    assert runner.time_ms(lambda: 0.0) == 0 and len(runner.parts) == 1 and runner.candidate.device == "gpu"
    remark = "without a CUDA graph: the model has loops or branches, which cannot be recorded"
    assert runner.candidate.remark == (remark if fails else "")
    assert gpu.count("record") == (0 if fails else 1) and (gpu.count("replay") > 0) != fails


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("verify", "fp32", "--device", 1), "--device: for --provider cuda, and this runs on cpu"),
        (("verify", "fp32", "--provider", "cpu", "--tf32"), "--tf32: for --provider cuda"),
        (("verify", "fp32", "--provider", "abacus"), "--provider 'abacus': expected one of cpu, "),
        (("verify", "fp32", "--provider", "cuda", "--per-block"), "--per-block traces layers on the processor"),
        (("verify", "engine", "--provider", "cpu"), "was optimized for cuda"),
        (("export", "fp32", "--format", "ort", "--device", 1), "expected --provider cuda beside it"),
        (("export", "fp32", "--format", "ort", "--tf32"), "expected --provider cuda beside it"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    engine: Path, made: Path, tmp_path: Path, command: tuple[object, ...], reason: str
) -> None:
    name, bundle, *options = command
    ran = run(str(name), made / str(bundle), *options, *(("-o", tmp_path / "out") if name == "export" else ()))
    assert ran.code == 2 and reason in " ".join(ran.err.split())


def test_a_bundle_for_cuda_is_not_run_without_it_and_the_reason_is_given(engine: Path) -> None:
    ran = run("verify", engine)
    assert ran.code == 4 and ran.out == ""
    assert "CUDAExecutionProvider" in ran.err or "no NVIDIA driver" in ran.err  # the build of ONNX Runtime for GPUs
