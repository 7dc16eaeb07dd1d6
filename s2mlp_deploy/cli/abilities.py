"""The abilities of the machine at hand: what it can export and run, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.runtime import cuda_diagnosis, onnxruntime_versions, providers
from s2mlp_deploy.runtime.onnxruntime import miscomputes
from s2mlp_deploy.runtime.providers import InstalledPlugin
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.dependencies import missing_modules, pip_install
from s2mlp_deploy.system.version import __version__

EXPORT_MODULES = ("torch", "onnxruntime", "onnxsim", "PIL")
"""The packages that an export needs besides the base packages."""


@dataclass(frozen=True)
class Ability:
    """Something the tool can do here, or could with these Python modules, which ``remedy`` installs.

    ``obstacle`` is any other thing that is missing, with its remedy: a GPU, a newer release, packages of npm.
    """

    name: str
    missing: tuple[str, ...]
    remedy: str
    obstacle: str | None = None

    @property
    def available(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing and not self.obstacle

    def __str__(self) -> str:
        if self.available:
            return f"✓ {self.name}"
        lacking = f"{', '.join(self.missing)} missing. {self.remedy}" if self.missing else self.obstacle
        return f"✗ {self.name}: {lacking}"


@dataclass(frozen=True)
class Report:
    """The machine, the packages found, ONNX Runtime's plugins among them, and the abilities that follow."""

    machine: dict[str, str | int]
    packages: dict[str, str]
    plugins: tuple[InstalledPlugin, ...]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "s2mlp_deploy": __version__,
            "machine": self.machine,
            "packages": self.packages,
            "execution_providers": [asdict(plugin) for plugin in self.plugins],
            "abilities": [vars(a) | {"available": a.available} for a in self.abilities],
        }


def examine() -> Report:
    """Look at the machine at hand; nothing heavy is imported."""
    abilities = [Ability("export a checkpoint", missing_modules(EXPORT_MODULES), pip_install("export"))]
    for name in registry.names():
        abilities += _with_format(name)
    abilities += _with_old_onnx_runtime()
    abilities += _with_cuda()
    plugins = () if missing_modules(("onnxruntime",)) else providers.installed_plugins()
    abilities += map(_with_plugin, plugins)
    return Report(machine.describe(), machine.installed(), plugins, tuple(abilities))


def _with_format(name: str) -> Iterator[Ability]:
    """The abilities for one format; this looks for a GPU, and runs nothing."""
    run = f"run and verify {name} bundles"
    try:
        target = registry.find(name)
    except RuntimeMissingError as error:
        yield Ability(run, ("the exporter",), str(error))
        return
    missing = missing_modules(target.modules)
    if isinstance(target, Compiler):
        reason = target.cannot_compile(target.options())
        yield Ability(f"build {name} bundles", missing_modules(target.modules[:1]), target.install_hint, reason)
    reason = None if missing else target.cannot_run(target.options())
    yield Ability(run, missing, target.install_hint, reason)


def _with_cuda() -> Iterator[Ability]:
    """The ability to run models on CUDA, with the GPUs by number, where the installed ONNX Runtime is a build for it."""
    if cuda_diagnosis.provider_library():
        devices = ", ".join(f"{number} {name}" for number, name in enumerate(cuda_diagnosis.names()))
        words = f" on GPU {devices}" if devices else ""
        yield Ability(f"run models with --provider cuda{words}", (), "", cuda_diagnosis.obstacle())


def _with_plugin(plugin: InstalledPlugin) -> Ability:
    """The ability to run models on one of ONNX Runtime's plugins, with the devices that it offers."""
    devices = f" on {', '.join(map(str, plugin.devices))}" if plugin.devices else ""
    return Ability(f"run models with --provider {plugin.provider}{devices}", (), "", plugin.obstacle)


def _with_old_onnx_runtime() -> Iterator[Ability]:
    """The features that the installed ONNX Runtime is too old for."""
    if missing_modules(("onnxruntime",)):
        return
    reasons = {"float16": onnxruntime_versions.too_old("float16"), "bytes": miscomputes()}
    for feature, least in onnxruntime_versions.LEAST.items():
        if reason := reasons.get(feature):
            yield Ability(f"run {least.what}", (), onnxruntime_versions.remedy(feature), reason)
