"""ONNX Runtime's plugins are found, registered once, and run a model whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from helpers.support import run
from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.runtime import onnxruntime as sessions
from s2mlp_deploy.runtime import providers
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession, load
from s2mlp_deploy.runtime.providers import ON_GPU, PLUGINS, PROVIDERS, Device, InstalledPlugin, Provider

WEBGPU = PROVIDERS["webgpu"]


def device(provider: str, kind: str, vendor: str = "") -> SimpleNamespace:
    """A device as ONNX Runtime lists it."""
    return SimpleNamespace(ep_name=provider, device=SimpleNamespace(type=SimpleNamespace(name=kind), vendor=vendor))


@dataclass
class Registration:
    """ONNX Runtime's functions for plugins, recorded: ``offered`` are the devices that appear once ``library`` is registered."""

    library: str
    offered: tuple[object, ...] = ()
    error: str | None = None
    registered: list[tuple[str, str]] = field(default_factory=list)

    def register(self, name: str, path: str) -> None:
        if self.error:
            raise RuntimeError(self.error)
        self.registered.append((name, path))

    def devices(self) -> list[object]:
        return [device("CPUExecutionProvider", "CPU"), *(self.offered if self.registered else ())]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No plugin is registered yet, as far as this project knows."""
    providers._register.cache_clear()
    yield
    providers._register.cache_clear()
    sys.modules.pop("onnxruntime_ep_webgpu", None)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registration:
    """The package onnxruntime-ep-webgpu, with functions of ONNX Runtime's that record; no other plugin is installed."""
    for other in PLUGINS.values():
        monkeypatch.delitem(sys.modules, other.module, raising=False)
    monkeypatch.setattr(providers, "PLUGINS", {"webgpu": PLUGINS["webgpu"]})
    package, info = tmp_path / "onnxruntime_ep_webgpu", tmp_path / "onnxruntime_ep_webgpu-9.9.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("def get_library_path():\n    return '/plugins/libwebgpu.so'\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-ep-webgpu\nVersion: 9.9\n")
    (info / "top_level.txt").write_text("onnxruntime_ep_webgpu\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = Registration("/plugins/libwebgpu.so")
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", found.register)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", found.devices)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one operator."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("input", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "relu", value[:1], value[1:])
    path = tmp_path_factory.mktemp("relu") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_one_table_names_all_providers() -> None:
    assert get_args(Provider) == tuple(PROVIDERS)
    assert set(ON_GPU) | set(PLUGINS) < set(PROVIDERS)


def test_a_plugin_is_registered_once_and_its_devices_are_those_that_it_offers(plugin: Registration) -> None:
    plugin.offered = (device(WEBGPU, "GPU", "NVIDIA"), device("OtherExecutionProvider", "GPU"))
    assert providers.missing("webgpu") is None
    assert providers.described(providers.plugin_devices("webgpu")) == (Device("GPU", "NVIDIA"),)
    assert plugin.registered == [(WEBGPU, plugin.library)]


def test_a_plugin_without_a_device_says_what_it_wants(plugin: Registration) -> None:
    reason = providers.missing("webgpu")
    assert reason is not None
    assert "onnxruntime-ep-webgpu 9.9 is registered with ONNX Runtime and offers no device on this machine" in reason
    assert PLUGINS["webgpu"].devices in reason


@pytest.mark.parametrize(
    ("library", "origin"),
    [
        ("libcuda.so.1", "NVIDIA's driver"),
        ("libcudart.so.12", "the package nvidia-cuda-runtime"),
        ("libcublasLt.so.12", "the package nvidia-cublas"),
        ("libvulkan.so.1", "a Vulkan driver"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_origin(plugin: Registration, library: str, origin: str) -> None:
    plugin.error = f"FAIL : Failed to load library {plugin.library} with error: {library}: cannot open shared object file: No such file"
    reason = providers.missing("webgpu")
    assert reason is not None and f"{library} is missing, which {origin}" in reason
    assert "onnxruntime-ep-webgpu 9.9 cannot be loaded" in reason


def test_any_other_error_of_a_plugin_is_shown_as_it_is(plugin: Registration) -> None:
    plugin.error = 'ORT runtime version "1.23.2" is below the minimum required version "1.24.4".'
    assert plugin.error in str(providers.missing("webgpu"))


def test_a_plugin_that_somebody_registered_before_is_used(plugin: Registration) -> None:
    plugin.error = "EP library is already registered under WebGpuExecutionProvider"
    plugin.registered.append((WEBGPU, plugin.library))
    plugin.offered = (device(WEBGPU, "GPU"),)
    assert providers.missing("webgpu") is None


def test_an_onnx_runtime_without_plugins_is_named_with_the_release_that_has_them(
    plugin: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    assert "pip install 'onnxruntime>=1.23'" in str(providers.missing("webgpu"))


def test_a_plugin_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for plugin in PLUGINS.values():
        monkeypatch.setitem(sys.modules, plugin.module, None)
        monkeypatch.setattr(providers, "find_spec", lambda name: None)
    assert "pip install onnxruntime-ep-webgpu, install a build of ONNX Runtime" in str(providers.missing("webgpu"))
    assert "pip install" not in str(providers.missing("coreml"))


def test_the_cuda_runtime_in_a_plugins_package_is_loaded_before_the_plugin(
    plugin: Registration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    (tmp_path / "libcudart.so.12.9.79").touch()
    monkeypatch.setattr(providers.ctypes, "CDLL", lambda path, mode: loaded.append(Path(path).name))
    providers._load_cuda_runtime_beside(tmp_path / "libplugin.so")
    assert loaded == ["libcudart.so.12.9.79"]


@pytest.fixture
def on_the_cpu(plugin: Registration, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's device is the processor, as ONNX Runtime's own provider offers it."""
    monkeypatch.undo()
    monkeypatch.setattr(providers, "_register", lambda provider: None)
    monkeypatch.setattr(providers, "is_plugin", lambda provider: provider == "webgpu")
    monkeypatch.setattr(providers, "is_built_in", lambda provider: False)
    monkeypatch.setitem(PROVIDERS, "webgpu", "CPUExecutionProvider")


@pytest.mark.usefixtures("on_the_cpu")
def test_a_session_runs_on_the_plugins_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_NO_FALLBACK", {})  # the processor is what one falls back to
    session = OnnxSession(model, Loading("webgpu"))
    np.testing.assert_array_equal(session.run(np.float32([[-1, 0, 2]])), [[0, 0, 2]])


@pytest.mark.usefixtures("on_the_cpu")
def test_falling_back_to_the_cpu_is_forbidden_to_plugins_too(model: Path) -> None:
    with pytest.raises(BundleError, match="disabled fallback to the CPU EP"):
        load(model, Loading("webgpu"))


def test_a_session_that_runs_elsewhere_than_on_the_plugin_is_refused(
    plugin: Registration, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin.offered = (device(WEBGPU, "GPU"),)
    monkeypatch.setattr(providers, "add_to", lambda options, provider, chosen: None)
    for allowed in ({}, sessions._NO_FALLBACK):  # where ONNX Runtime only logs it, and where it is an error
        monkeypatch.setattr(sessions, "_NO_FALLBACK", allowed)
        with pytest.raises(RuntimeMissingError, match="WebGpuExecutionProvider cannot run the whole model here"):
            load(model, Loading("webgpu"))


def test_the_doctor_lists_plugins_with_their_devices(plugin: Registration) -> None:
    plugin.offered = (device(WEBGPU, "GPU", "NVIDIA"), device(WEBGPU, "GPU", "Intel"))
    assert "✓ run models with --provider webgpu on GPU (NVIDIA), GPU (Intel)" in run("doctor").out
    (listed,) = run("doctor", "--json").json["execution_providers"]
    assert listed == {
        "provider": "webgpu",
        "package": "onnxruntime-ep-webgpu 9.9",
        "devices": [{"kind": "GPU", "vendor": "NVIDIA"}, {"kind": "GPU", "vendor": "Intel"}],
        "obstacle": None,
    }


def test_the_doctor_says_why_a_plugin_cannot_run(plugin: Registration) -> None:
    shown = " ".join(run("doctor").out.split())
    assert "✗ run models with --provider webgpu: onnxruntime-ep-webgpu 9.9 is registered" in shown
    (listed,) = run("doctor", "--json").json["execution_providers"]
    assert listed["devices"] == [] and "offers no device" in listed["obstacle"]


@pytest.mark.parametrize("provider", PLUGINS)
def test_plugins_that_are_installed_here_register_with_this_onnx_runtime(provider: str) -> None:
    pytest.importorskip(PLUGINS[provider].module)
    (found,) = (one for one in providers.installed_plugins() if one.provider == provider)
    assert isinstance(found, InstalledPlugin)
    assert found.devices or "offers no device" in str(found.obstacle) or "is missing, which" in str(found.obstacle)
