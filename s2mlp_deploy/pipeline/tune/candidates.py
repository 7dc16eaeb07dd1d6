"""List the artifacts that this machine can make and run, and those that are left out, each with the reason."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler, Exporter, Format
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.graph.lowered import NO_SHIFT
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.recipe import RECIPES
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.quantization.settings import OPTIONS, Float16, Int8, PrecisionOptions
from s2mlp_deploy.schema.precision import ARM, FP16, PRECISIONS, X86, Precision
from s2mlp_deploy.system.dependencies import missing_modules
from s2mlp_deploy.system.wording import counted

AUTO = "auto"

PROCESSORS = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}
"""The targets of this project by the names that systems have for processors."""

LOWERINGS_DIFFER = 1.1
"""No lowering is that many times as fast as the usual one in any measured network (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Build:
    """An artifact to make: its format with options of its own, its precision, its lowering."""

    format: str
    precision: PrecisionOptions
    options: tuple[tuple[str, Any], ...] = ()
    lowering: str = AUTO

    @property
    def name(self) -> str:
        """Words that tell it from the others."""
        lowering = () if self.lowering == AUTO else (self.lowering,)
        chosen = (str(value) for _, value in self.options)
        return " ".join((self.format, *chosen, self.precision.row.name, *self._recipe, *lowering))

    @property
    def flags(self) -> tuple[str, ...]:
        """The options of ``s2mlp-export`` that make it of the same checkpoint, images and calibration images."""
        words = ["--format", self.format]
        for name, value in self.options:
            words += [registry.flags(self.format, name), str(value)]
        words += ["--precision", self.precision.row.name]
        if isinstance(self.precision, Int8) and self.precision.target:
            words += ["--target", self.precision.target]
        words += (f"--{word}" for word in self._recipe)
        return (*words, *(() if self.lowering == AUTO else ("--shift", self.lowering)))

    @property
    def complexity(self) -> tuple[Any, ...]:
        """The simplest artifact has the least: the precision counts first, then format, options, recipe and lowering."""
        row = self.precision.row
        precision, recipe = (row.calibrated, list(PRECISIONS).index(row.name)), len(self._recipe)
        return (
            *precision,
            self.format != ONNX,
            self.format,
            len(self.options),
            recipe,
            self.lowering != AUTO,
            self.name,
        )

    @property
    def _recipe(self) -> tuple[str, ...]:
        """The options of the precision that are not its usual ones, without their dashes. A target for int8 is this machine's own."""
        precision = self.precision
        if isinstance(precision, Float16):
            return (f"target={precision.target}",) if precision.target else ()
        if not isinstance(precision, Int8):
            return ()
        ends = ("quantize-ends",) if precision.quantize_ends else ()
        return (*ends, f"between={precision.between}") if precision.half else ends


@dataclass(frozen=True)
class Candidate:
    """An artifact that runs on so many ``threads``; None for as many as its runtime chooses."""

    build: Build
    threads: int | None = None

    @property
    def name(self) -> str:
        """Words that tell it from the others."""
        return self.build.name + ("" if self.threads is None else f", {counted(self.threads, 'thread')}")

    @property
    def complexity(self) -> tuple[Any, ...]:
        """As :attr:`Build.complexity`: settings that an application need not make are simpler."""
        return (*self.build.complexity, self.threads is not None, self.threads or 0)


@dataclass(frozen=True)
class Excluded:
    """Artifacts that are not made, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Candidates:
    """Artifacts to make, the most promising first, and those left out."""

    builds: tuple[Build, ...]
    excluded: tuple[Excluded, ...]


def of_checkpoint(request: TuneRequest) -> Candidates:
    """The artifacts of a checkpoint: formats by precisions by recipes, with the format's usual lowering unless the request names some.

    Raises:
        UsageError: where the request names a format or precision that there is not, or one without what it takes.
        RuntimeMissingError: where it names a format that does not run here.
    """
    found: list[Build] = []
    excluded: list[Excluded] = []
    _check_precisions(request)
    for target, options in _formats(request, excluded):
        for name in request.space.precisions or PRECISIONS:
            if name not in target.precisions:
                continue
            row, on_gpu = PRECISIONS[name], target.for_gpu(target.options.model_validate(dict(options)))
            if reason := _cannot_win(row, request, on_gpu=on_gpu):
                excluded.append(Excluded(f"{target.name} {name}", reason))
                continue
            for precision in (*_recipes(row, target, request, on_gpu=on_gpu), *_of_provider(row, target, options)):
                for lowering in request.space.lowerings or (AUTO,):
                    found.append(Build(target.name, precision, options, lowering))
    if request.space.precisions:
        taken = {build.precision.row.name for build in found}
        if lost := [name for name in request.space.precisions if name not in taken]:
            raise UsageError(f"--precisions {lost[0]}: no format that was chosen and runs here has it")
    return Candidates(tuple(_promising_first(found)), _joined(excluded))


def of_bundle(request: TuneRequest, precision: PrecisionOptions) -> Candidates:
    """The artifacts that can be compiled of an ONNX bundle at ``precision``, and the bundle itself.

    Raises:
        UsageError, RuntimeMissingError: as :func:`of_checkpoint`.
    """
    if request.space.precisions or request.space.lowerings:
        raise UsageError("--precisions and --lowerings are settled in a bundle: leave them out, or give its checkpoint")
    excluded: list[Excluded] = []
    found = [
        Build(target.name, precision, options)
        for target, options in _formats(request, excluded)
        if target.name == ONNX or (isinstance(target, Compiler) and precision.row.name in target.precisions)
    ]
    return Candidates(tuple(_promising_first(found)), _joined(excluded))


def other_lowerings(build: Build, used: str) -> tuple[Build, ...]:
    """``build`` with each lowering that it does not have; ``used`` is the one that its manifest records."""
    if build.lowering != AUTO or used == NO_SHIFT:
        return ()
    return tuple(replace(build, lowering=name) for name in LOWERINGS if name != used)


def thread_counts(build: Build, request: TuneRequest) -> tuple[int | None, ...]:
    """The numbers of threads to run an artifact on: the runtime's own choice first."""
    target = registry.find(build.format)
    options = target.options.model_validate(dict(build.options))
    has_threads = type(target).open_with_threads is not Format.open_with_threads and not target.for_gpu(options)
    if not has_threads:
        return (None,)
    if request.space.threads:
        return request.space.threads
    cores = os.cpu_count() or 1
    return (None, *sorted({n for n in (1, cores // 2) if 0 < n < cores}))


def export_request(build: Build, request: TuneRequest, output: Any) -> ExportRequest:
    """The request for one bundle of ``build``."""
    graph = replace(ExportRequest(request.source).graph, lowering=build.lowering)
    return ExportRequest(
        request.source,
        graph,
        build.precision,
        FormatOptions(build.format, dict(build.options)),
        replace(request.evidence, time_int8=False),  # the race times it
        output,
    )


def _formats(
    request: TuneRequest, excluded: list[Excluded]
) -> Iterator[tuple[Exporter | Compiler, tuple[tuple[str, Any], ...]]]:
    """The formats that make and run artifacts here, each with the options of each of its variants."""
    for name in request.space.formats or registry.names():
        try:
            target = registry.find(name)
            variants = [tuple(options.items()) for options in target.variants()]
            reason = None if variants else "its artifacts run elsewhere, so their times here would say nothing"
        except RuntimeMissingError as error:
            variants, reason = [()], str(error)
        if reason is None and (missing := missing_modules(target.modules)):
            reason = f"{', '.join(missing)} missing: {target.install_hint}"
        for options in variants or [()]:
            why = reason or _cannot_be_here(target, options)
            if why is None:
                yield target, options
            elif request.space.formats and not options:
                raise RuntimeMissingError(f"--formats {name}: {why}")
            else:
                excluded.append(Excluded(" ".join([name, *(str(value) for _, value in options)]), why))


def _cannot_be_here(target: Exporter | Compiler, options: tuple[tuple[str, Any], ...]) -> str | None:
    chosen = target.options.model_validate(dict(options))
    cannot_compile = target.cannot_compile(chosen) if isinstance(target, Compiler) else None
    return cannot_compile or target.cannot_run(chosen)


def _check_precisions(request: TuneRequest) -> None:
    for name in request.space.precisions or ():
        if name not in PRECISIONS:
            raise UsageError(f"--precisions {name!r}: expected {', '.join(PRECISIONS)}")
        if PRECISIONS[name].calibrated and request.int8.calibration is None:
            raise UsageError(f"--precisions {name} needs --calibration: images of the kind the model will see")
    for name in request.space.lowerings or ():
        if name not in (AUTO, *LOWERINGS):
            raise UsageError(f"--lowerings {name!r}: expected {', '.join((AUTO, *LOWERINGS))}")


def _cannot_win(row: Precision, request: TuneRequest, *, on_gpu: bool) -> str | None:
    """Why artifacts at the precision ``row`` are not worth making; None where they are."""
    if row.calibrated and request.int8.calibration is None:
        return "needs --calibration: images of the kind the model will see"
    if request.space.precisions or request.objective == "size" or request.limits.size_bytes is not None:
        return None
    if row.on_cpu and row.on_cpu.widens_weights and not on_gpu:
        return (
            "computes in float32 on processors: half the size and no faster, so for --objective size or with --max-size"
        )
    return None


def _recipes(row: Precision, target: Format, request: TuneRequest, *, on_gpu: bool) -> tuple[PrecisionOptions, ...]:
    """The options of the precision ``row``, one for each recipe that may win; recipes for other processors than this are not among them."""
    if not row.calibrated:
        return (OPTIONS[row.name](),)
    here = PROCESSORS.get(platform.machine())
    named = (
        here.name if here and not on_gpu and here.name in target.targets_of(row)[1:] else None
    )  # the first is its own
    settings = replace(request.int8, target=named)
    if request.accuracy_drop is not None:
        settings = replace(settings, max_accuracy_drop=request.accuracy_drop)
    found = (settings,) if settings.quantize_ends else (settings, replace(settings, quantize_ends=True))
    own = target.targets_of(row)[:1] if on_gpu and not settings.half else ()
    halves = any(
        not RECIPES[name].int32_bias for name in own
    )  # compilers whose biases are floats take float16 between products
    return (*found, *(replace(one, between="fp16") for one in found)) if halves else found


def _of_provider(row: Precision, target: Format, options: tuple[tuple[str, Any], ...]) -> tuple[PrecisionOptions, ...]:
    """The precision ``row`` for the target that is called as the execution provider among ``options``, if there is one."""
    provider = dict(options).get("provider")
    has_one = row is FP16 and provider in row.targets and provider in target.targets_of(row)
    return (Float16(target=provider),) if has_one else ()


def _promising_first(builds: Sequence[Build]) -> list[Build]:
    """The simplest first, and then each precision in turn, so that a budget which ends early has seen all of them."""
    by_precision: dict[str, list[Build]] = {}
    for build in sorted(builds, key=lambda b: b.complexity):
        by_precision.setdefault(build.precision.row.name, []).append(build)
    longest = max(map(len, by_precision.values()), default=0)
    return [group[i] for i in range(longest) for group in by_precision.values() if i < len(group)]


def _joined(excluded: Sequence[Excluded]) -> tuple[Excluded, ...]:
    """``excluded`` with one entry a reason."""
    by_reason: dict[str, list[str]] = {}
    for one in excluded:
        by_reason.setdefault(one.reason, []).append(one.name)
    return tuple(Excluded(", ".join(dict.fromkeys(names)), reason) for reason, names in by_reason.items())
