"""Formats: how artifacts of each are written, looked at and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.manifest import Interface, Setting
from s2mlp_deploy.system.dependencies import Shipped


class Format(Protocol):
    """What every format tells about itself, and how its artifacts are run."""

    precisions: tuple[str, ...]
    targets: tuple[str, ...]
    """What int8 and fp16 graphs may be for (quantize.RECIPES, precision.ARITHMETIC), the format's own first."""
    options: tuple[str, ...]
    """The settings (request.Request.settings) that this format knows."""
    modules: tuple[str, ...]
    """What opening an artifact imports."""
    remedy: str
    """How to get those modules."""

    def open(self, artifact: Artifact) -> Session:
        """Load the artifact, as its settings say.

        Raises:
            RuntimeMissingError: where the runtime or the device is not here.
        """
        ...

    def versions(self) -> Mapping[str, str]:
        """The packages that decide the artifact's bytes, and their versions."""
        ...


@runtime_checkable
class Exporter(Format, Protocol):
    """A format that is written from the graph in memory."""

    def export(self, lowered: Lowered, destination: Path) -> Artifact:
        """Write the artifact into the directory ``destination``."""
        ...


@runtime_checkable
class Compiler(Format, Protocol):
    """A format that a runtime compiles from a verified ONNX bundle."""

    elsewhere: str
    """What else there is to do where this machine cannot compile; a sentence, or nothing."""

    def cannot_compile(self, settings: Mapping[str, Setting]) -> str | None:
        """Why this machine cannot compile, in words; None where it can."""
        ...

    def cannot_run(self, settings: Mapping[str, Setting]) -> str | None:
        """Why what is compiled cannot be judged on this machine, in words; None where it can."""
        ...

    def compile(self, bundle: Bundle, destination: Path, settings: Mapping[str, Setting]) -> Artifact:
        """Compile the bundle's model into the directory ``destination``.

        Raises:
            UsageError: where ``settings`` hold what this runtime cannot do.
            RuntimeMissingError: where the runtime or the device is not here.
        """
        ...


@runtime_checkable
class Limited(Protocol):
    """A format that knows whether its artifacts run on this machine."""

    def cannot_run(self, settings: Mapping[str, Setting]) -> str | None:
        """As :meth:`Compiler.cannot_run`."""
        ...


@runtime_checkable
class Interfaced(Protocol):
    """A format for artifacts that take or give something else than prepared images and logits (manifest.Interface)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@runtime_checkable
class Inspected(Protocol):
    """A format whose artifacts can be looked at without a runtime."""

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not what this format writes, or could do more than compute, before anything loads it.

        Its hashes were checked; but somebody who changes a file can change its hash.

        Raises:
            BundleError: with the reason.
        """
        ...


def refuse_other_files(bundle: Bundle, *names: str) -> None:
    """Refuse a bundle whose artifact is not the first of ``names``, or that does not list the others.

    Raises:
        BundleError: naming what is missing.
    """
    artifact = bundle.artifact
    missing = [name for name in names if name not in artifact.files]
    if missing or artifact.main != names[0]:
        raise BundleError(
            f"{bundle.directory} is a bundle of format {bundle.manifest.format}, and its manifest does not have "
            f"{' and '.join(missing or names[:1])} as one has it: the bundle was changed; copy it again"
        )


def refuse_interface(target: Format, name: str, interface: Interface) -> None:
    """Refuse what format ``target``, called ``name``, does not take or give.

    Raises:
        UsageError: naming it.
    """
    known = (target.inputs, target.outputs) if isinstance(target, Interfaced) else (("float",), ("logits",))
    for option, asked, offered in (("--input", interface.input, known[0]), ("--answer", interface.output, known[1])):
        if asked not in offered:
            raise UsageError(f"--format {name} cannot be made with {option} {asked}: expected {' or '.join(offered)}")


@runtime_checkable
class Threaded(Protocol):
    """A format whose artifacts run on threads of the processor."""

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> Session:
        """Load the artifact, to be run on ``threads`` threads, or as many as the runtime chooses.

        Between runs they rest at once, where a runtime otherwise has them wait busily for the next: so that
        other sessions can be timed in the meantime.

        Raises:
            RuntimeMissingError: as :meth:`Format.open`.
        """
        ...


@runtime_checkable
class Provided(Protocol):
    """A format whose artifacts run on whichever of ONNX Runtime's providers they are opened for."""

    def open_on(self, artifact: Artifact, provider: str, threads: int | None) -> Session:
        """Load the artifact for ``provider`` (a name of onnx_session.PROVIDERS); ``threads`` as :meth:`Threaded.open_with_threads`.

        Raises:
            RuntimeMissingError: where the provider is not here, or cannot run the whole model.
        """
        ...


@runtime_checkable
class OnGpus(Protocol):
    """A format some of whose artifacts run on a GPU."""

    def on_gpu(self, settings: Mapping[str, Setting]) -> bool:
        """Whether an artifact does that was asked for, or recorded, with these ``settings``."""
        ...


@runtime_checkable
class Shipping(Protocol):
    """A format whose artifacts hold software of others, which an SBOM must name."""

    def shipped(self, settings: Mapping[str, Setting]) -> tuple[Shipped, ...]:
        """That software, in an artifact with these ``settings`` (Artifact.settings)."""
        ...


def shipped_by(target: Format, settings: Mapping[str, Setting]) -> tuple[Shipped, ...]:
    """The software of others in an artifact of ``target`` with these ``settings``."""
    return target.shipped(settings) if isinstance(target, Shipping) else ()
