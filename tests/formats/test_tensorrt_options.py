"""One code for TensorRT 10.3 to 11.4 and TensorRT for RTX: what each offers is used, what it does not is refused by name.

The APIs are recorded from the published wheels; tests/data/tensorrt_api/README.md says how.
"""

from __future__ import annotations

import ast
import enum
import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.support import ROOT
from s2mlp_deploy.errors import DataError, RuntimeMissingError, UsageError
from s2mlp_exporters.tensorrt.build import _keep_timing_cache, build
from s2mlp_exporters.tensorrt.log import Log
from s2mlp_exporters.tensorrt.options import SETTERS, configure, offers
from s2mlp_exporters.tensorrt.profile import Profile
from s2mlp_exporters.tensorrt.runtime import TENSORRT as RUNTIME
from s2mlp_exporters.tensorrt.trt import TensorRtEngine
from s2mlp_exporters.tensorrt.trt_rtx import TensorRtRtxEngine

RECORDED = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((ROOT / "tests" / "data" / "tensorrt_api").glob("*.json"))
}
LEAN = RECORDED["tensorrt_lean-11.4"]
"""The runtime that runs engines and builds none."""

APIS = {name: api for name, api in RECORDED.items() if api is not LEAN}
TENSORRT = [name for name in APIS if name.startswith("tensorrt-")]
RTX = [name for name in APIS if name.startswith("tensorrt_rtx-")]

VALUES: dict[str, Any] = {
    "compute_capability": ("sm86", "sm120"),
    "exclude_lean_runtime": True,
    "hardware_compatible": True,
    "opt_level": 5,
    "strip_weights": True,
    "tf32": True,
    "timing_cache": Path("timing.cache"),
    "version_compatible": True,
    "workspace_mib": 64,
}


def stand_in(name: str) -> Any:
    """A module with the names of a runtime, and nothing behind them."""
    api = APIS[name]
    enums = {n: enum.IntEnum(n, members) for n, members in api["enums"].items()}
    classes = {n: type(n, (), dict.fromkeys(members)) for n, members in api["classes"].items()}
    return SimpleNamespace(__name__=api["module"], __version__=api["version"], **classes, **enums)


class Config:
    """A builder's configuration that keeps what it is told, and knows no more than the runtime's own."""

    def __init__(self, name: str, *, highest_level: int = 5) -> None:
        self.__dict__.update(
            known=set(APIS[name]["classes"]["IBuilderConfig"]),
            flags={},
            told={},
            highest_level=highest_level,
            takes_cache=True,
            cache=b"",
        )

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.known, name
        self.told[name] = min(value, self.highest_level) if name == "builder_optimization_level" else value

    def __getattr__(self, name: str) -> Any:
        if name not in self.known:
            raise AttributeError(name)
        if name in self.told:
            return self.told[name]
        return getattr(self, f"on_{name}")

    def on_set_flag(self, flag: enum.IntEnum) -> None:
        self.flags[int(flag)] = True

    def on_clear_flag(self, flag: enum.IntEnum) -> None:
        self.flags[int(flag)] = False

    def on_set_memory_pool_limit(self, pool: enum.IntEnum, size: int) -> None:
        self.told[pool.name] = size

    def on_set_compute_capability(self, capability: enum.IntEnum, index: int) -> bool:
        self.told.setdefault("capabilities", []).insert(index, capability.name)
        return True

    def on_create_timing_cache(self, content: bytes) -> object | None:
        self.__dict__["cache"] = content
        return None if content == b"damaged" else object()

    def on_set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return bool(self.takes_cache)

    def on_get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"new timings")


def format_for(name: str) -> TensorRtEngine | TensorRtRtxEngine:
    return TensorRtRtxEngine() if name in RTX else TensorRtEngine()


def test_the_recorded_apis_are_those_of_the_runtimes_that_devices_have() -> None:
    assert TENSORRT == ["tensorrt-10.13", "tensorrt-10.16", "tensorrt-10.3", "tensorrt-11.0", "tensorrt-11.4"]
    assert RTX == ["tensorrt_rtx-1.7.1"]


# Options


def test_every_option_of_the_builder_has_a_value_here() -> None:
    assert VALUES.keys() == SETTERS.keys()


@pytest.mark.parametrize("name", APIS)
def test_every_option_that_a_format_knows_is_set_on_its_runtime(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trt = stand_in(name)
    for option in format_for(name).options.model_fields.keys() & SETTERS.keys():
        assert offers(trt, SETTERS[option].offered_as), option
        config = Config(name)
        configure(trt, config, {option: VALUES[option]})
        flags = {flag.name: config.flags[int(flag)] for flag in trt.BuilderFlag if int(flag) in config.flags}
        assert flags.pop("TF32") is (option == "tf32")
        flag = {
            "strip_weights": "STRIP_PLAN",
            "version_compatible": "VERSION_COMPATIBLE",
            "exclude_lean_runtime": "EXCLUDE_LEAN_RUNTIME",
        }.get(option)
        assert {int(trt.BuilderFlag[f]) for f in flags} == ({int(trt.BuilderFlag[flag])} if flag else set())
        if option == "compute_capability":
            assert config.told == {"num_compute_capabilities": 2, "capabilities": ["SM86", "SM120"]}
        elif option == "hardware_compatible":
            assert config.told == {"hardware_compatibility_level": trt.HardwareCompatibilityLevel.AMPERE_PLUS}
        elif option == "opt_level":
            assert config.told == {"builder_optimization_level": 5}
        elif option == "workspace_mib":
            assert config.told == {"WORKSPACE": 64 * 2**20}


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("option", SETTERS)
def test_an_option_that_the_runtime_does_not_have_is_refused_by_name(name: str, option: str) -> None:
    trt = stand_in(name)
    owner, _, last = SETTERS[option].offered_as.rpartition(".")
    lacking = SimpleNamespace(**vars(trt))
    if owner:
        setattr(lacking, owner, type(owner, (), {n: v for n, v in vars(getattr(trt, owner)).items() if n != last}))
    else:
        vars(lacking).pop(last, None)
    if option != "tf32":
        lacking.BuilderFlag = SimpleNamespace(**dict(lacking.BuilderFlag.__dict__.items()))
        lacking.BuilderFlag.TF32 = trt.BuilderFlag.TF32
    assert not offers(lacking, SETTERS[option].offered_as)
    flag = "--" + option.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{flag}: {trt.__name__} {trt.__version__} does not have it; leave it out$"):
        configure(lacking, Config(name), {option: VALUES[option]})


@pytest.mark.parametrize("name", TENSORRT)
def test_tensorrt_itself_does_not_choose_compute_capabilities(name: str) -> None:
    with pytest.raises(UsageError, match=r"--compute-capability: tensorrt .* does not have it"):
        configure(stand_in(name), Config(name), {"compute_capability": ("sm86",)})


def test_a_runtime_without_tf32_needs_none_switched_off() -> None:
    trt = stand_in("tensorrt-11.4")
    trt.BuilderFlag = SimpleNamespace()
    config = Config("tensorrt-11.4")
    configure(trt, config, {})
    assert config.flags == {}


@pytest.mark.parametrize("name", APIS)
def test_profiles_are_no_options_of_the_builder(name: str) -> None:
    config = Config(name)
    configure(stand_in(name), config, {"batch": "1:4:16", "size_profile": "20:28:36"})
    assert config.told == {}


def test_an_option_that_is_false_clears_what_the_runtime_would_set() -> None:
    config = Config("tensorrt-10.3")
    trt = stand_in("tensorrt-10.3")
    configure(trt, config, {"version_compatible": False, "hardware_compatible": False})
    assert config.flags == {int(trt.BuilderFlag.TF32): False, int(trt.BuilderFlag.VERSION_COMPATIBLE): False}
    assert config.told == {"hardware_compatibility_level": trt.HardwareCompatibilityLevel.NONE}


def test_a_level_that_the_runtime_would_change_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--opt-level 9: .* makes that 5; give 0 to 5"):
        configure(stand_in("tensorrt-11.4"), Config("tensorrt-11.4"), {"opt_level": 9})


@pytest.mark.parametrize("given", ["SM86", "sm42", "none", ""])
def test_an_unknown_compute_capability_is_refused_with_those_that_there_are(given: str) -> None:
    with pytest.raises(UsageError, match=f"--compute-capability {given}: .* builds for sm75, sm80, sm86, sm89, sm120"):
        configure(stand_in(RTX[0]), Config(RTX[0]), {"compute_capability": (given,)})


# Timing caches


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "timing.cache"


def use(cache: Path, **answers: Any) -> Config:
    config = Config("tensorrt-10.3")
    config.__dict__.update(answers)
    configure(stand_in("tensorrt-10.3"), config, {"timing_cache": cache})
    return config


def test_a_timing_cache_is_read_where_it_exists(cache: Path) -> None:
    assert use(cache).cache == b""
    cache.write_bytes(b"timings")
    assert use(cache).cache == b"timings"


@pytest.mark.parametrize(("content", "answers"), [(b"damaged", {}), (b"of another version", {"takes_cache": False})])
def test_a_timing_cache_of_another_runtime_is_refused_and_left_alone(
    content: bytes, answers: dict[str, Any], cache: Path
) -> None:
    cache.write_bytes(content)
    with pytest.raises(DataError, match=r"timing\.cache is no timing cache of this tensorrt 10\.3\.0 on this GPU"):
        use(cache, **answers)
    assert cache.read_bytes() == content


def test_a_timing_cache_that_cannot_be_read_or_written_is_told_before_the_build(cache: Path) -> None:
    cache.mkdir()
    with pytest.raises(DataError, match="cannot read the timing cache"):
        use(cache)
    with pytest.raises(DataError, match=r"cannot write the timing cache .* is no directory that you can write to"):
        use(cache.with_name("nowhere") / "timing.cache")


def test_timings_are_kept_in_one_step(cache: Path) -> None:
    cache.write_bytes(b"timings")
    _keep_timing_cache(Config("tensorrt-10.3"), cache)
    assert cache.read_bytes() == b"new timings" and [p.name for p in cache.parent.iterdir()] == ["timing.cache"]


# What the code uses of the runtimes

USES: dict[str, dict[str, str]] = {
    "tensorrt/build.py": {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "error": "ParserError",
        "shapes": "IOptimizationProfile",
    },
    "tensorrt/log.py": {},
    "tensorrt/options.py": {"config": "IBuilderConfig"},
    "tensorrt/session.py": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "self._engine": "ICudaEngine",
        "self._context": "IExecutionContext",
        "refitter": "Refitter",
        "parser": "OnnxParserRefitter",
        "config": "IRuntimeConfig",
    },
    "tensorrt/engine.py": {},
    "tensorrt/trt.py": {},
    "tensorrt/trt_rtx.py": {"runtime": "Runtime"},
}
"""By module, which of its variables hold an object of the runtime, and of which class."""

OF_RTX = (
    "ComputeCapability",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineValidity",
    "EngineInvalidityDiagnostics",
    "IRuntimeConfig",
    "ICudaEngine.create_runtime_config",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "Runtime.engine_header_size",
    "Runtime.get_engine_validity",
)
"""What is used of TensorRT for RTX alone, where the code has found itself on it."""


def used(modules: Collection[str] = USES) -> Iterator[str]:
    """``Class.attribute`` and ``ENUM.MEMBER`` of the runtime wherever the exporters' ``modules`` write one."""
    for module in modules:
        variables = USES[module]
        for node in ast.walk(ast.parse((ROOT / "exporters" / "s2mlp_exporters" / module).read_text("utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            path = ast.unparse(node)
            owner, _, name = path.rpartition(".")
            if owner in variables:
                yield f"{variables[owner]}.{name}"
            elif path.startswith("trt.") and "__" not in path:
                yield path.removeprefix("trt.")


USED = sorted(set(used()) | {option.offered_as for option in SETTERS.values()})


def test_the_uses_are_found() -> None:
    assert {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "ProfilingVerbosity.DETAILED",
        "OnnxParser.parse_from_file",
        "OnnxParser.num_errors",
        "OnnxParser.get_error",
        "ParserError.node_name",
        "ParserError.node_operator",
        "IBuilderConfig.add_optimization_profile",
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        "Runtime.engine_host_code_allowed",
        "ICudaEngine.get_tensor_profile_shape",
        "ICudaEngine.get_tensor_dtype",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.get_tensor_shape",
        "IExecutionContext.set_tensor_address",
        "Refitter.refit_cuda_engine",
        "OnnxParserRefitter.refit_from_file",
        "HardwareCompatibilityLevel.AMPERE_PLUS",
        "nptype",
    } <= set(USED)


def names_in(api: dict[str, Any]) -> set[str]:
    """The names that a runtime has: ``Class``, ``Class.attribute``, ``ENUM.MEMBER`` and functions."""
    there = {*api["classes"], *api["enums"], *api["functions"]}
    return there | {
        f"{owner}.{member}" for kind in ("classes", "enums") for owner in api[kind] for member in api[kind][owner]
    }


def test_the_lean_runtime_has_what_running_an_engine_uses() -> None:
    uses = {use for use in used(["tensorrt/session.py", "tensorrt/log.py"]) if not use.startswith(OF_RTX)}
    # It has no parser, so no engine without weights runs on it.
    assert uses - names_in(LEAN) == {"OnnxParserRefitter", "OnnxParserRefitter.refit_from_file"}
    assert not {"Builder", "IBuilderConfig", "OnnxParser"} & names_in(LEAN)


def test_a_lean_runtime_that_is_installed_here_has_the_names_that_were_recorded() -> None:
    lean = pytest.importorskip("tensorrt_lean")
    for name in names_in(LEAN):
        owner, _, member = name.partition(".")
        assert hasattr(lean, owner) and (not member or hasattr(getattr(lean, owner), member)), name


@pytest.mark.parametrize("name", APIS)
def test_what_the_code_uses_is_in_every_runtime(name: str) -> None:
    there = names_in(APIS[name])
    elsewhere = {use for use in USED if use.startswith(OF_RTX)} if name in TENSORRT else set()
    assert set(USED) - there - elsewhere == set()


@pytest.mark.parametrize("name", TENSORRT)
def test_only_tensorrt_for_rtx_is_taken_for_it(name: str) -> None:
    assert not hasattr(stand_in(name), "CudaGraphStrategy") and hasattr(stand_in(RTX[0]), "CudaGraphStrategy")


@pytest.mark.parametrize("name", APIS)
def test_networks_are_strongly_typed_whatever_number_that_has(name: str, tmp_path: Path) -> None:
    class StoppedError(Exception):
        """The rest of a build is for a real runtime."""

    flags = []

    def create_network(given: int) -> None:
        flags.append(given)
        raise StoppedError

    trt = stand_in(name)
    trt.Builder = lambda logger: SimpleNamespace(create_network=create_network)
    with pytest.raises(StoppedError):
        build(trt, tmp_path / "model.onnx", {"input": Profile((1,), (1,), (1,))}, {}, Log())
    assert flags == [1 << APIS[name]["enums"]["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"]]
    assert flags == [1 if name.startswith(("tensorrt-11", "tensorrt_rtx")) else 2]


@pytest.mark.parametrize(
    ("version", "fits"), [("8.6.2", False), ("10.2.0.19", False), ("10.3.0", True), ("11.4.0.106", True)]
)
def test_a_runtime_that_is_too_old_is_refused_by_its_version(
    version: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    if fits:
        assert RUNTIME.load().__version__ == version
    else:
        with pytest.raises(RuntimeMissingError, match=rf"{re.escape(version)} is too old, 10\.3 or newer is needed"):
            RUNTIME.load()
