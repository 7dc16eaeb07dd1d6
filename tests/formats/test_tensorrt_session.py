"""Running engines, against recorded answers of the CUDA runtime and of an engine; no fake here pretends to build one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.fake_tensorrt import CLASSES, Fake, images
from helpers.support import ROOT
from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.tensorrt import engine as engines
from s2mlp_exporters.tensorrt import runtime
from s2mlp_exporters.tensorrt.engine import Settings
from s2mlp_exporters.tensorrt.log import Log
from s2mlp_exporters.tensorrt.options import TensorRtOptions, TensorRtRtxOptions
from s2mlp_exporters.tensorrt.runtime import Gpu, find_gpu
from s2mlp_exporters.tensorrt.session import Times, load
from s2mlp_exporters.tensorrt.trt import TensorRtEngine
from s2mlp_exporters.tensorrt.trt_rtx import TensorRtRtxEngine


def expected(x: Array) -> Array:
    return np.stack([x.sum((1, 2, 3)), x.max((1, 2, 3))], axis=1)


# Buffers


def test_buffers_are_allocated_once_for_the_largest_shape() -> None:
    fake = Fake(sizes=(8, 8, 16))
    session = fake.session()
    sizes = sorted(len(buffer) for buffer in fake.cuda.memory.values())
    assert sizes == sorted([4 * 3 * 16 * 12 * 4, 4 * CLASSES * 4] * 2)
    for x in (images(1), images(4, 16), images(2), images(3, 16), images(2)):
        np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)
    assert fake.cuda.count("Malloc", "MallocHost") == 4 and fake.cuda.count("StreamCreate") == 1


def test_closing_gives_everything_back_once() -> None:
    fake = Fake()
    session = fake.session()
    session.run(images(2))
    session.close()
    session.close()
    assert fake.cuda.memory == {}
    done = Counter(fake.cuda.done)
    for taken, given in (
        ("Malloc", "Free"),
        ("MallocHost", "FreeHost"),
        ("EventCreate", "EventDestroy"),
        ("StreamCreate", "StreamDestroy"),
        ("GraphInstantiate", "GraphExecDestroy"),
        ("StreamEndCapture", "GraphDestroy"),
    ):
        assert done[taken] == done[given] > 0, taken


def test_a_session_that_nobody_holds_gives_everything_back() -> None:
    fake = Fake()
    fake.session().run(images(2))
    assert fake.cuda.memory == {} and fake.cuda.count("StreamDestroy", "GraphExecDestroy") == 2


def test_a_closed_session_is_refused() -> None:
    session = Fake().session()
    session.run(images(2))
    session.close()
    with pytest.raises(UsageError, match="is closed"):
        session.run(images(2))


@pytest.mark.parametrize(
    "failing", ["StreamCreate1", "EventCreate3", "Malloc1", "Malloc2", "MallocHost1", "MallocHost2"]
)
def test_what_was_allocated_is_given_back_where_the_rest_does_not_fit(failing: str) -> None:
    fake = Fake(failing)
    with pytest.raises(RuntimeMissingError, match=r"cannot hold this engine's buffers .*smaller --batch"):
        fake.session()
    assert fake.cuda.memory == {}
    taken, given = Counter(fake.cuda.done), Counter(fake.cuda.done)
    taken[failing[:-1]] -= 1
    for make, free in (("StreamCreate", "StreamDestroy"), ("EventCreate", "EventDestroy"), ("Malloc", "Free")):
        assert taken[make] == given[free]


def test_an_engine_without_room_for_its_own_memory_says_so() -> None:
    fake = Fake()
    fake.engine.has_memory = False
    with pytest.raises(RuntimeMissingError, match=r"too little free memory .*smaller --batch"):
        fake.session()


# Batches


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_more_images_than_the_profile_takes_run_in_parts(count: int) -> None:
    fake = Fake()
    x = images(count)
    np.testing.assert_allclose(fake.session().run(x), expected(x), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_fewer_images_than_the_profile_takes_are_filled_up(count: int) -> None:
    fake = Fake(batches=(3, 3, 6))
    x = images(count)
    logits = fake.session().run(x)
    assert logits.shape == (count, CLASSES)
    np.testing.assert_allclose(logits, expected(x), rtol=1e-5)


def test_logits_are_a_copy_that_the_next_run_does_not_change() -> None:
    session = Fake().session()
    first = session.run(images(2, seed=1))
    kept = first.copy()
    session.run(images(2, seed=2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("height", [4, 20])
def test_a_size_outside_the_profile_is_refused(height: int) -> None:
    session = Fake(sizes=(8, 8, 16)).session()
    with pytest.raises(UsageError, match=rf"2x3x{height}x12: the engine was built for 1x3x8x12 to 4x3x16x12"):
        session.run(images(2, height))
    with pytest.raises(UsageError, match="5x3x8x12"):
        session.time(images(5))  # what is timed is one batch


def test_a_shape_that_the_engine_refuses_is_refused() -> None:
    fake = Fake()
    session = fake.session()
    fake.engine.takes_shapes = False
    with pytest.raises(UsageError, match="does not take an input of 2x3x8x12"):
        session.run(images(2))


def test_inputs_and_outputs_may_be_half_precision() -> None:
    fake = Fake(dtypes=("float16", "float16"))
    x = images(3)
    session = fake.session()
    logits = session.run(x)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected(x.astype(np.float16).astype(np.float32)), rtol=2e-3)
    assert 4 * 3 * 8 * 12 * 2 in [len(buffer) for buffer in fake.cuda.memory.values()]


def test_images_need_not_be_contiguous() -> None:
    x = images(4)[:, :, :, ::-1]
    np.testing.assert_allclose(Fake().session().run(x), expected(x), rtol=1e-5)


# CUDA graphs


def test_the_first_run_of_a_shape_captures_a_graph_and_the_others_replay_it() -> None:
    fake = Fake()
    session = fake.session()
    for seed in range(4):
        x = images(2, seed=seed)
        np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)
    assert fake.cuda.count("StreamBeginCapture") == 1 and fake.cuda.count("GraphLaunch") == 4
    assert fake.cuda.count("execute") == 2  # before capturing, and while


def test_another_shape_is_captured_again() -> None:
    fake = Fake()
    session = fake.session()
    for count in (2, 3, 3, 2):
        x = images(count)
        np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)
    assert fake.cuda.count("GraphInstantiate") == 3 and fake.cuda.count("GraphExecDestroy") == 2


def test_tensorrt_for_rtx_captures_by_itself() -> None:
    fake = Fake(rtx=True)
    session = fake.session()
    for count in (2, 3, 2):
        x = images(count)
        np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)
    assert fake.cuda.count("StreamBeginCapture", "GraphLaunch") == 0
    assert vars(fake.engine.config) == {
        "cuda_graph_strategy": "whole",
        "dynamic_shapes_kernel_specialization_strategy": "eager",
    }


def test_an_engine_that_cannot_be_captured_still_runs() -> None:
    fake = Fake("StreamEndCapture")
    session = fake.session()
    for seed in range(3):
        x = images(2, seed=seed)
        np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)
    assert fake.cuda.count("GraphInstantiate", "GraphLaunch") == 0
    assert fake.cuda.count("GetLastError") == 1  # an error that stays would be taken for the next call's


def test_a_graph_that_cannot_be_made_is_an_error_and_is_given_back() -> None:
    fake = Fake("GraphInstantiate")
    with pytest.raises(RuntimeMissingError, match="GPU failed"):
        fake.session().run(images(2))
    assert fake.cuda.count("GraphDestroy") == 1


def test_the_cuda_runtime_has_what_is_called_of_it() -> None:
    bindings = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    source = "".join(
        (ROOT / "exporters" / "s2mlp_exporters" / "tensorrt" / name).read_text("utf-8")
        for name in ("session.py", "runtime.py")
    )
    called = set(re.findall(r"\bcuda\.([A-Z]\w+)\(", source))
    called |= {name for pair in re.findall(r'_take\("(\w+)", "(\w+)"', source) for name in pair}
    called |= set(re.findall(r"self\._cuda\.([A-Z]\w+)\(", source))
    assert {"StreamCreate", "FreeHost", "MemcpyAsync", "GraphInstantiate", "DriverGetVersion"} <= called
    assert [name for name in called if not hasattr(bindings, f"cuda{name}")] == []


# Errors and times


@pytest.mark.parametrize("failing", ["MemcpyAsync2", "StreamSynchronize1", "StreamSynchronize2", "GraphLaunch"])
def test_a_gpu_that_fails_while_it_runs_is_told(failing: str) -> None:
    fake = Fake(failing)
    session = fake.session()
    with pytest.raises(RuntimeMissingError, match="the GPU failed while it ran the engine: cuda"):
        session.run(images(2))
    fake.cuda.fails = {"GraphExecDestroy", "Free", "StreamDestroy"}  # a GPU that failed does so from then on
    session.close()
    assert fake.cuda.count("Free") == 2 and fake.cuda.count("FreeHost") == 2


def test_an_engine_that_does_not_start_is_told() -> None:
    fake = Fake()
    session = fake.session()
    fake.engine.starts = False
    with pytest.raises(RuntimeMissingError, match="could not be started"):
        session.run(images(2))


def test_a_shape_that_failed_is_prepared_again() -> None:
    fake = Fake("StreamSynchronize1")
    session = fake.session()
    with pytest.raises(RuntimeMissingError):
        session.run(images(2))
    x = images(2)
    np.testing.assert_allclose(session.run(x), expected(x), rtol=1e-5)


@pytest.mark.parametrize("rtx", [False, True])
def test_times_are_those_of_the_gpu_copies_apart(rtx: bool) -> None:
    session = Fake(rtx=rtx).session()
    for _ in range(2):
        assert session.time(images(2)) == Times(to_device_ms=1.0, compute_ms=2.0, to_host_ms=4.0)


# Loading


class FakeRuntime:
    """``trt.Runtime`` and what refits; ``fails`` names the step that does."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.host_code, self.filled = fails, False, ""
        outer = self

        class Runtime:
            engine_host_code_allowed = False

            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, plan: bytes) -> object | None:
                outer.host_code = self.engine_host_code_allowed
                if outer.fails == "load":
                    self.logger.log(
                        SimpleNamespace(name="ERROR"),
                        "Error Code 1: Serialization (Magic tag is wrong. In f at a.cpp:1)",
                    )
                return None if outer.fails == "load" else "engine"

        def refit(path: str) -> bool:
            self.filled = path
            return self.fails != "parse"

        self.trt: Any = SimpleNamespace(
            __name__="tensorrt",
            __version__="10.3.0",
            ILogger=object,
            Runtime=Runtime,
            Refitter=lambda engine, logger: SimpleNamespace(refit_cuda_engine=lambda: self.fails != "refit"),
            OnnxParserRefitter=lambda refitter, logger: SimpleNamespace(refit_from_file=refit),
        )


def test_an_engine_that_the_runtime_does_not_take_is_a_bad_bundle() -> None:
    with pytest.raises(BundleError, match=r"tensorrt 10\.3\.0 cannot load the engine: Magic tag is wrong$"):
        load(FakeRuntime("load").trt, b"plan", Log())


def test_only_an_engine_that_brings_its_runtime_may_run_code_of_the_host() -> None:
    for brings in (False, True):
        fake = FakeRuntime()
        assert load(fake.trt, b"plan", Log(), brings_runtime=brings)[0] == "engine"
        assert fake.host_code is brings


@pytest.mark.parametrize("fails", ["", "parse", "refit"])
def test_an_engine_without_weights_is_filled_from_the_graph(fails: str, tmp_path: Path) -> None:
    fake = FakeRuntime(fails)
    if fails:
        with pytest.raises(BundleError, match=r"model\.onnx does not fill the engine's weights"):
            load(fake.trt, b"plan", Log(), weights=tmp_path / "model.onnx")
    else:
        load(fake.trt, b"plan", Log(), weights=tmp_path / "model.onnx")
    assert fake.filled == str(tmp_path / "model.onnx")


# The GPU at hand


def cuda_module(
    *, driver: int = 12090, needed: int = 12090, gpus: int = 1, broken: str = "", major: int = 8, minor: int = 7
) -> ModuleType:
    """``cuda.bindings.runtime`` with recorded answers: each is (status, values…)."""
    module: Any = ModuleType("cuda.bindings.runtime")
    properties = SimpleNamespace(name=b"Orin", major=major, minor=minor, totalGlobalMem=8 << 30)
    answers = {
        "DriverGetVersion": (driver,),
        "RuntimeGetVersion": (needed,),
        "GetDeviceCount": (gpus,),
        "GetDeviceProperties": (properties,),
        "GetErrorString": (b"initialization error",),
    }
    for name, values in answers.items():
        status = 3 if name == broken else 0
        setattr(module, f"cuda{name}", lambda *_, s=status, v=values: (s, *v))
    module.cudaError_t = SimpleNamespace(cudaSuccess=0)
    return module


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"driver": 0}, "no NVIDIA driver is installed"),
        ({"driver": 11080}, "the NVIDIA driver is too old: it serves CUDA 11.8, and CUDA 12 is needed"),
        ({"gpus": 0}, "no NVIDIA GPU is visible"),
        ({"broken": "GetDeviceCount"}, "CUDA does not start (cudaGetDeviceCount: initialization error)"),
        ({}, Gpu("Orin", (8, 7), 8 << 30)),
        ({"driver": 12020, "major": 12, "minor": 1}, Gpu("Orin", (12, 1), 8 << 30)),
    ],
)
def test_there_is_a_gpu_or_a_reason_why_not(
    given: dict[str, Any], answer: Gpu | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "import_module", lambda name: cuda_module(**given))
    found = find_gpu()
    assert found == answer
    if isinstance(found, Gpu):
        assert str(found) == f"Orin ({found.sm})" and found.sm == "sm{}{}".format(*found.capability)


def test_without_cuda_bindings_the_reason_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtime, "import_module", missing)
    assert "pip install cuda-bindings" in str(find_gpu())


# Which engine fits where

ORIN, THOR, TURING = Gpu("Orin", (8, 7), 0), Gpu("Thor", (11, 0), 0), Gpu("RTX 2080", (7, 5), 0)


def settings(version: str = "10.3.0", built_for: tuple[str, ...] = ("sm87", "Orin"), *options: str) -> Settings:
    shape = ("1", "3", "28", "28")
    return Settings(
        runtime="tensorrt",
        runtime_version=version,
        built_for=built_for,
        smallest=shape,
        usual=shape,
        largest=shape,
        options=options,
    )


WITHOUT_RUNTIME = ("version_compatible=true", "exclude_lean_runtime=true")


@pytest.mark.parametrize(
    ("made", "here", "gpu", "mismatch"),
    [
        (settings(), "10.3.0", ORIN, None),
        (settings(), "10.13.3", ORIN, "TensorRT 10.3.0, and this machine has 10.13.3"),
        (settings("10.13.3"), "10.3.0", ORIN, "TensorRT 10.13.3, and this machine has 10.3.0"),
        (settings("10.3.0", ("sm87", "Orin"), "version_compatible=true"), "10.13.3", ORIN, None),
        (settings("10.3.0", ("sm87", "Orin"), "version_compatible=true"), "11.4.0", ORIN, None),
        (settings("10.13.3", ("sm87", "Orin"), "version_compatible=true"), "10.3.0", ORIN, "TensorRT 10.13.3, "),
        (settings("10.3.0", ("sm87", "Orin"), "version_compatible=false"), "10.13.3", ORIN, "TensorRT 10.3.0, "),
        (settings("10.3.0", ("sm87", "Orin"), *WITHOUT_RUNTIME), "10.3.0", ORIN, None),
        (settings("10.3.0", ("sm87", "Orin"), *WITHOUT_RUNTIME), "10.13.3", ORIN, "TensorRT 10.3.0, "),
        (settings(), "10.3.0", THOR, "Orin sm87, and this machine has Thor (sm110)"),
        (settings("10.3.0", ("sm87", "Orin"), "hardware_compatible=true"), "10.3.0", THOR, None),
        (settings("10.3.0", ("sm87", "Orin"), "hardware_compatible=false"), "10.3.0", THOR, "Orin sm87, "),
        (settings("10.3.0", ("sm87", "Orin"), "hardware_compatible=true"), "10.3.0", TURING, "Orin sm87, "),
    ],
)
def test_a_tensorrt_engine_fits_its_version_and_gpu_and_what_it_was_widened_to(
    made: Settings, here: str, gpu: Gpu, mismatch: str | None
) -> None:
    found = TensorRtEngine()._mismatch(SimpleNamespace(__version__=here), b"plan", made, gpu)
    assert (found is None) if mismatch is None else (found or "").startswith(mismatch)


class Validity:
    """TensorRT for RTX's word on an engine."""

    __name__, __version__, ILogger = "tensorrt_rtx", "1.7.1", object
    EngineValidity = SimpleNamespace(VALID="valid", SUBOPTIMAL="suboptimal", INVALID="invalid")
    EngineInvalidityDiagnostics = SimpleNamespace(
        __members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
    )

    def __init__(self, validity: str, diagnostics: int) -> None:
        class Runtime:
            engine_header_size = 4

            def __init__(self, logger: Any) -> None: ...

            def get_engine_validity(self, header: bytes) -> tuple[str, int]:
                assert header == b"head"
                return validity, diagnostics

        self.Runtime = Runtime


@pytest.mark.parametrize(
    ("validity", "diagnostics", "mismatch"),
    [
        ("valid", 0, None),
        ("suboptimal", 0, None),
        ("invalid", 0, "tensorrt 1.6.0 and sm86, sm89, and this machine has 1.7.1 and Orin (sm87)"),
        ("invalid", 1, "tensorrt 1.6.0 and sm86, sm89, and this machine has 1.7.1 and Orin (sm87) (version mismatch)"),
        (
            "invalid",
            6,
            "tensorrt 1.6.0 and sm86, sm89, and this machine has 1.7.1 and Orin (sm87) (unsupported cc, old cuda driver)",
        ),
    ],
)
def test_tensorrt_for_rtx_says_itself_which_engine_fits(validity: str, diagnostics: int, mismatch: str | None) -> None:
    trt = Validity(validity, diagnostics)
    made = settings("1.6.0", ("sm86", "sm89"))
    assert TensorRtRtxEngine()._mismatch(trt, b"head and body", made, ORIN) == mismatch


RTX = SimpleNamespace(
    __version__="1.7.1",
    ComputeCapability=SimpleNamespace(
        __members__={
            "NONE": 0,
            "CURRENT": 1,
            "SM75": 75,
            "SM80": 80,
            "SM86": 86,
            "SM89": 89,
            "SM120": 120,
            "SM121": 121,
        }
    ),
)
"""TensorRT for RTX 1.7.1, as far as it lists GPUs."""

HOPPER, BLACKWELL = Gpu("H200", (9, 0), 0), Gpu("B200", (10, 0), 0)


@pytest.mark.parametrize("gpu", [HOPPER, BLACKWELL, ORIN, THOR], ids=str)
def test_no_engine_of_tensorrt_for_rtx_is_built_again_for_a_gpu_that_it_does_not_run_on(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.plan").write_bytes(b"plan")
    monkeypatch.setattr(engines, "find_gpu", lambda: gpu)
    monkeypatch.setattr(engines, "load", lambda *_, **__: pytest.fail("the engine was loaded"))
    monkeypatch.setattr(runtime, "import_module", lambda name: RTX)
    artifact = Artifact(tmp_path, "model.plan", ("model.plan",), settings("1.7.1").model_dump())
    way_on = "use --format trt, or --format ort --provider cuda"
    with pytest.raises(RuntimeMissingError, match=rf"7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1 and later, .*: {way_on}$"):
        TensorRtRtxEngine().open(artifact)
    reason = TensorRtRtxEngine().cannot_run(TensorRtRtxOptions())
    assert reason is not None and str(gpu) in reason and reason.endswith(way_on)


def test_the_gpus_of_tensorrt_for_rtx_are_those_of_its_own_list() -> None:
    later = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM90": 90, "SM75": 75}))
    assert runtime.capabilities(later) == ((7, 5), (9, 0))
    assert TensorRtRtxEngine()._built_for(later, TensorRtRtxOptions()) == ("sm90 and later",)
    assert TensorRtRtxEngine()._built_for(RTX, TensorRtRtxOptions()) == ("sm80", "sm86", "sm89", "sm120 and later")
    assert TensorRtRtxEngine()._refusal(later, HOPPER) is None


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 0)])
def test_it_runs_on_desktops_from_turing_on(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda: Gpu("RTX", capability, 0))
    monkeypatch.setattr(runtime, "import_module", lambda name: RTX)
    assert TensorRtRtxEngine().cannot_run(TensorRtRtxOptions()) is None


def test_an_engine_for_turing_is_built_again_for_turing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.plan").write_bytes(b"head and body")
    monkeypatch.setattr(engines, "find_gpu", lambda: TURING)
    monkeypatch.setattr(runtime, "import_module", lambda name: RTX)
    monkeypatch.setattr(TensorRtRtxEngine, "_mismatch", lambda *_: "others")
    artifact = Artifact(tmp_path, "model.plan", ("model.plan",), settings("1.7.1").model_dump())
    with pytest.raises(RuntimeMissingError, match=r"--format trt-rtx --compute-capability sm75$"):
        TensorRtRtxEngine().open(artifact)


def test_an_engine_for_another_machine_is_not_loaded_and_the_way_to_another_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.plan").write_bytes(b"plan")
    monkeypatch.setattr(engines, "find_gpu", lambda: THOR)
    monkeypatch.setattr(engines, "load", lambda *_, **__: pytest.fail("the engine was loaded"))
    monkeypatch.setattr(runtime, "import_module", lambda name: SimpleNamespace(__version__="10.3.0"))
    artifact = Artifact(tmp_path, "model.plan", ("model.plan",), settings().model_dump())
    with pytest.raises(
        RuntimeMissingError, match=r"built for Orin sm87, .*Thor \(sm110\).*s2mlp-export \S+ --format trt$"
    ):
        TensorRtEngine().open(artifact)


# The lean runtime


@pytest.fixture
def lean_alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Jetson that has TensorRT's lean runtime 10.3.0, without TensorRT; the names of the runtimes that were loaded."""
    loaded: list[str] = []

    def load_module(name: str) -> Any:
        loaded.append(name)
        return SimpleNamespace(__name__=name, __version__="10.3.0")

    monkeypatch.setattr(runtime, "missing_modules", lambda names: tuple(n for n in names if n != "tensorrt_lean"))
    monkeypatch.setattr(runtime, "import_module", load_module)
    monkeypatch.setattr(engines, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(engines, "Cuda", lambda: "cuda")
    monkeypatch.setattr(engines, "EngineSession", lambda trt, engine, owners, cuda: (trt.__name__, engine))
    return loaded


def engine_with(place: Path, *options: str) -> Artifact:
    (place / "model.plan").write_bytes(b"plan")
    made = settings("10.3.0", ("sm87", "Orin"), *options)
    return Artifact(place, "model.plan", ("model.plan",), made.model_dump())


@pytest.mark.parametrize("options", [WITHOUT_RUNTIME, WITHOUT_RUNTIME[:1]], ids=["without-runtime", "with-runtime"])
def test_the_lean_runtime_runs_version_compatible_engines(
    options: tuple[str, ...], lean_alone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[bool] = []

    def load_engine(trt: Any, plan: bytes, log: Log, *, weights: Path | None, brings_runtime: bool) -> tuple[str, None]:
        brought.append(brings_runtime)
        return "engine", None

    monkeypatch.setattr(engines, "load", load_engine)
    assert TensorRtEngine().open(engine_with(tmp_path, *options)) == ("tensorrt_lean", "engine")
    assert lean_alone == ["tensorrt_lean"] and brought == [options == WITHOUT_RUNTIME[:1]]


@pytest.mark.parametrize("options", [(), (*WITHOUT_RUNTIME, "strip_weights=true")], ids=["usual", "without-weights"])
def test_the_lean_runtime_refuses_other_engines_and_says_how_to_build_one(
    options: tuple[str, ...], lean_alone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "load", lambda *_, **__: pytest.fail("the engine was loaded"))
    with pytest.raises(RuntimeMissingError, match=r"lean runtime alone, .* --version-compatible and without --strip-w"):
        TensorRtEngine().open(engine_with(tmp_path, *options))


def test_a_device_with_the_lean_runtime_alone_runs_engines_and_builds_none(
    lean_alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = TensorRtEngine()
    assert lean.modules == ("tensorrt_lean", "cuda.bindings")
    assert lean.cannot_run(TensorRtOptions()) is None

    def load_module(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtime, "import_module", load_module)
    assert "TensorRT cannot be loaded (No module named 'tensorrt')" in str(lean.cannot_compile(TensorRtOptions()))


def test_tensorrt_itself_is_preferred_to_its_lean_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "missing_modules", lambda names: ())
    assert TensorRtEngine().modules == ("tensorrt", "cuda.bindings")


def test_an_engine_without_its_runtime_must_be_version_compatible() -> None:
    with pytest.raises(UsageError, match="--exclude-lean-runtime 'true': expected --version-compatible, too"):
        registry.options(TensorRtEngine(), {"exclude_lean_runtime": "true"})
    both = {"exclude_lean_runtime": "true", "version_compatible": "true"}
    assert registry.options(TensorRtEngine(), both).given == {"exclude_lean_runtime": True, "version_compatible": True}
