"""The engine format that ``trt`` and ``trt-rtx`` have in common."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from s2mlp_deploy.bundle import golden_tensors, network_golden
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import ON_GPUS
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_deploy.system.dependencies import distributions
from s2mlp_exporters.tensorrt.build import build
from s2mlp_exporters.tensorrt.log import Log, summary
from s2mlp_exporters.tensorrt.network_profile import profiles_for
from s2mlp_exporters.tensorrt.options import EngineOptions
from s2mlp_exporters.tensorrt.profile import Profile, Shape, format_shape, profile_for
from s2mlp_exporters.tensorrt.runtime import Cuda, Gpu, Module, Runtime, find_gpu
from s2mlp_exporters.tensorrt.session import EngineSession, load

PLAN = "model.plan"


class Settings(StrictModel):
    """The settings that the manifest records of an engine: builder, target and options.

    ``built_for`` are compute capabilities, or the GPU on which it was built; ``options`` are as given.
    ``smallest``, ``usual`` and ``largest`` have the sizes of an image classifier's input; of another network
    each input, as in ``input=1x3x80x48``.
    """

    runtime: str
    runtime_version: str
    built_for: tuple[str, ...]
    smallest: tuple[str, ...]
    usual: tuple[str, ...]
    largest: tuple[str, ...]
    options: tuple[str, ...]

    def has(self, option: str) -> bool:
        """Whether ``option``, one of those that are true or false, is set."""
        return f"{option}=true" in self.options

    @property
    def brings_runtime(self) -> bool:
        """Whether the engine holds the runtime that it runs on."""
        return self.has("version_compatible") and not self.has("exclude_lean_runtime")


class EngineFormat(Compiler):
    """Builds engines with one runtime, and runs them."""

    precisions = ON_GPUS
    targets = ("trt",)
    inputs = ("float", "uint8")
    networks = True
    runtime: Runtime

    def cannot_run(self, options: EngineOptions) -> str | None:
        """Why engines cannot run on this machine, in words; None where they can."""
        found = find_gpu()
        if not isinstance(found, Gpu):
            return found
        try:
            return self._refusal(self._runtime().load(), found)
        except RuntimeMissingError as error:
            return str(error)

    def compile(self, bundle: Bundle, destination: Path, options: EngineOptions) -> Artifact:
        """Build the engine for the bundle's graph; the graph goes with it.

        Raises:
            UsageError: for options that this runtime does not offer, or that do not fit the graph.
            CompilerError: where it cannot build an engine.
            RuntimeMissingError: where it is not here, or needs a GPU that is not.
        """
        trt = self.runtime.load()
        if options.strip_weights and (reason := self.cannot_run(options)):
            raise RuntimeMissingError(f"--strip-weights makes the builder query a GPU, and {reason}: leave it out")
        profiles, beyond = _profiles(bundle, options)
        log = Log()
        plan = build(trt, bundle.artifact.path, profiles, options.given, log)
        (destination / PLAN).write_bytes(plan)
        graph = bundle.artifact.files
        for name in graph:
            shutil.copyfile(bundle.directory / name, destination / name)
        report = {**summary(log.kernels()), "engine_bytes": plan.nbytes, "build_log": log.text()}
        record = self._record(trt, _recorded_shapes(bundle, profiles), options).model_dump()
        return Artifact(destination, PLAN, (PLAN,), record, graph, report, beyond)

    def for_gpu(self, options: EngineOptions) -> bool:
        """Always."""
        return True

    def on_gpu(self, artifact: Artifact) -> bool:
        """Always."""
        return True

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, PLAN)
        for name in bundle.manifest.graph[:1]:
            onnx_scan.inspect(bundle, name)

    def open(self, artifact: Artifact) -> EngineSession:
        """Load the engine, after checking that this machine can run it.

        Raises:
            RuntimeMissingError: where the runtime or the GPU is not here, or not the one that it was built for.
            BundleError: where the runtime does not take the file.
        """
        settings = recorded(artifact, Settings)
        trt = self._runtime().load()
        found = find_gpu()
        if not isinstance(found, Gpu):
            raise RuntimeMissingError(f"running a {self.runtime.title} engine needs an NVIDIA GPU: {found}")
        if refusal := self._refusal(trt, found) or self._cannot_load(settings):
            raise RuntimeMissingError(f"this engine cannot run here: {refusal}")
        plan = artifact.path.read_bytes()
        if mismatch := self._mismatch(trt, plan, settings, found):
            raise RuntimeMissingError(
                f"the engine was built for {mismatch}. Build it here again from the ONNX file in its bundle: "
                f"s2mlp-export ONNX_BUNDLE --format {self.name}{self._options_for(found)}"
            )
        cuda = Cuda()
        weights = artifact.directory / artifact.graph[0] if settings.has("strip_weights") and artifact.graph else None
        brings_runtime = settings.brings_runtime
        engine, owners = load(trt, plan, Log(), weights=weights, brings_runtime=brings_runtime)
        return EngineSession(trt, engine, owners, cuda)

    def versions(self) -> Mapping[str, str]:
        """The package that builds the engine."""
        for name in distributions(self.runtime.module) or (self.runtime.module,):
            try:
                return {name: version(name)}
            except PackageNotFoundError:  # JetPack's is no package of pip's
                continue
        return {self.runtime.module: str(self.runtime.load().__version__)}

    @abstractmethod
    def _built_for(self, trt: Module, options: Any) -> tuple[str, ...]:
        """The compute capabilities that an engine is built for, or the GPU."""

    @abstractmethod
    def _mismatch(self, trt: Module, plan: bytes, settings: Settings, gpu: Gpu) -> str | None:
        """The mismatch between the engine's target and this machine, in words; None where they fit."""

    def _runtime(self) -> Runtime:
        """The runtime that engines run on here."""
        return self.runtime

    def _refusal(self, trt: Module, gpu: Gpu) -> str | None:
        """Why the runtime does not run on ``gpu``, whatever is built for it, and what does; None where it runs."""
        return None

    def _cannot_load(self, settings: Settings) -> str | None:
        """Why the runtime here does not load engines with these ``settings``; None where it does."""
        return None

    def _options_for(self, gpu: Gpu) -> str:
        """The options, after a blank, that an engine for ``gpu`` takes."""
        return ""

    def _record(self, trt: Module, shapes: Mapping[str, tuple[str, ...]], options: EngineOptions) -> Settings:
        given = {n: v for n, v in options.given.items() if n not in ("batch", "size_profile", "timing_cache")}
        return Settings(
            runtime=self.runtime.module,
            runtime_version=str(trt.__version__),
            built_for=self._built_for(trt, options),
            options=tuple(f"{name}={_text(value)}" for name, value in sorted(given.items())),
            **shapes,
        )


def _profiles(bundle: Bundle, options: EngineOptions) -> tuple[Mapping[str, Profile], tuple[str, ...]]:
    """The profile of each input, by name, and the golden cases that go beyond it."""
    network, checked = bundle.manifest.spec, GOLDEN in bundle.manifest.files
    if isinstance(network, OnnxNetwork):
        return profiles_for(network, network_golden.load(bundle.golden, network).inputs if checked else {}, options), ()
    inputs = golden_tensors.load(bundle.golden).inputs if checked else {}
    shapes: dict[str, Shape] = {case: images.shape for case, images in inputs.items()}
    profile = profile_for(bundle.manifest, shapes, options)
    return {INPUT: profile}, tuple(case for case, shape in shapes.items() if not profile.admits_size_of(shape))


def _recorded_shapes(bundle: Bundle, profiles: Mapping[str, Profile]) -> dict[str, tuple[str, ...]]:
    """The three shapes of ``profiles`` as :class:`Settings` has them."""
    if isinstance(bundle.manifest.spec, OnnxNetwork):
        return {
            part: tuple(f"{name}={format_shape(getattr(profile, part))}" for name, profile in profiles.items())
            for part in ("smallest", "usual", "largest")
        }
    profile = profiles[INPUT]
    return {part: tuple(map(str, getattr(profile, part))) for part in ("smallest", "usual", "largest")}


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value).lower()
