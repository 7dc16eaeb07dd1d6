"""The base class of all formats: what graphs a format takes, and how its artifacts are made, inspected and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.runtime.session import HERE, Placement, Session
from s2mlp_deploy.schema.manifest import Interface, Manifest
from s2mlp_deploy.schema.precision import Precision
from s2mlp_deploy.system.dependencies import Shipped

if TYPE_CHECKING:
    from s2mlp_deploy.graph.lowered import Lowered


class Format(ABC):
    """A kind of artifact. Subclass :class:`Exporter` or :class:`Compiler`, which add the step that makes it.

    A subclass defines every abstract member. An artifact is loaded only after :meth:`inspect` has accepted it.
    Where a method takes ``options``, they are an instance of the class's own :attr:`options`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The ``--format``, which is also the name of the entry point."""

    @property
    @abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """The precisions of the graphs that the format takes."""

    @property
    @abstractmethod
    def options(self) -> type[Options]:
        """The model of the options that ``-O name=value`` sets; :class:`Options` itself where there are none."""

    targets: tuple[str, ...] = ("x86", "arm", "trt")
    """The processors that int8 and fp16 graphs may be for (passes/recipe.py, schema/precision.py), the format's own first."""

    calibrated_targets: tuple[str, ...] = ()
    """The same of int8 graphs alone, where these are others."""

    inputs: tuple[str, ...] = ("float",)
    outputs: tuple[str, ...] = ("logits",)
    """The inputs and outputs that artifacts can have (:class:`~s2mlp_deploy.schema.manifest.Interface`)."""

    networks: bool = False
    """Whether artifacts may be of any network (:class:`~s2mlp_deploy.schema.onnx_network.OnnxNetwork`), and sessions are
    :class:`~s2mlp_deploy.runtime.session.TensorSession`; else of image classifiers alone."""

    modules: tuple[str, ...] = ()
    """The Python modules that opening an artifact imports."""

    install_hint: str = ""
    """The command that installs those modules."""

    def targets_of(self, row: Precision) -> tuple[str, ...]:
        """The processors that graphs of a precision may be for, the format's own first."""
        return (self.calibrated_targets if row.calibrated else ()) or self.targets

    @abstractmethod
    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute, before anything loads it.

        The bundle's hashes were checked; but somebody who changes a file can change its hash in the manifest.

        Raises:
            BundleError: with the reason.
        """

    @abstractmethod
    def open(self, artifact: Artifact) -> Session:
        """Load the artifact with the settings that the manifest records. A return type annotated as a
        :class:`~s2mlp_deploy.runtime.session.TracingSession` declares that layers can be traced.

        Raises:
            RuntimeMissingError: where the runtime or the device is not here.
            BundleError: where the runtime cannot load it.
        """

    def recompute(self, artifact: Artifact) -> Session | None:
        """A session that computes what the artifact's files say without its runtime, for machines where that cannot run.

        Its numbers show that the artifact was written rightly; the bundle stays pending a device. None where there is no such
        session.
        """
        return None

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """The packages that decide the artifact's bytes, and their versions."""

    def cannot_run(self, options: Any) -> str | None:
        """Why an artifact made with ``options`` cannot run on this machine, in words; None where it can."""
        return None

    def variants(self) -> tuple[Mapping[str, Any], ...]:
        """Options whose artifacts may be faster than others' on this machine, each set by name: s2mlp-tune tries them. Empty where
        artifacts run elsewhere than in a session here, so that their times here say nothing."""
        return ({},)

    def for_gpu(self, options: Any) -> bool:
        """Whether an artifact made with ``options`` is to run on a GPU."""
        return False

    def on_gpu(self, artifact: Artifact) -> bool:
        """Whether ``artifact`` runs on a GPU, by the settings that its manifest records, which may be damaged."""
        return False

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> Session:
        """Load the artifact to run on ``threads`` threads of the processor, or as many as the runtime chooses.

        Between runs the threads rest at once, where a runtime otherwise keeps them spinning for the next run, so that other
        sessions can be timed in the meantime.

        Raises:
            UsageError: for ``threads`` where the runtime has none to set.
            RuntimeMissingError, BundleError: as :meth:`open`.
        """
        if threads is not None:
            raise UsageError(f"--threads: engines of format {self.name} have no threads to set")
        return self.open(artifact)

    def placement(self, options: Any) -> Placement:
        """Where the gate runs an artifact made with ``options``, as far as these choose a device of this machine alone."""
        return HERE

    def open_on(self, artifact: Artifact, placement: Placement) -> Session:
        """Load the artifact where ``placement`` wants it; its threads rest between runs.

        Raises:
            UsageError: where the artifact runs only on the device that it was made for.
            RuntimeMissingError: where the provider or the device is not here, or cannot run the whole model.
        """
        chosen = [option for option in placement.given if option != "--threads"]
        if chosen:
            raise UsageError(
                f"{', '.join(chosen)}: bundles of format {self.name} run on what they were made for: give ONNX bundles"
            )
        return self.open_with_threads(artifact, placement.threads) if placement.threads else self.open(artifact)

    def shipped(self, artifact: Artifact) -> tuple[Shipped, ...]:
        """The software of others that lies in ``artifact``, which an SBOM must name."""
        return ()

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code that runs the artifact, for its model card, by language: ``python`` or ``js``. It has the variable ``prepared``."""
        return {}

    def refuse_interface(self, interface: Interface) -> None:
        """Refuse an interface that artifacts of this format cannot have.

        Raises:
            UsageError: with the option.
        """
        for option, wanted, known in (
            ("--input", interface.input, self.inputs),
            ("--answer", interface.output, self.outputs),
        ):
            if wanted not in known:
                raise UsageError(
                    f"--format {self.name} cannot be made with {option} {wanted}: expected {' or '.join(known)}"
                )


class Exporter(Format):
    """A format that is written from the graph in memory."""

    @abstractmethod
    def export(self, lowered: Lowered, destination: Path) -> Artifact:
        """Write the artifact into the directory ``destination``."""


class Compiler(Format):
    """A format that a runtime compiles from a verified ONNX bundle."""

    alternative: str = ""
    """A sentence with another way, where this machine cannot compile."""

    def cannot_compile(self, options: Any) -> str | None:
        """Why this machine cannot compile with ``options``, in words; None where it can."""
        return None

    @abstractmethod
    def compile(self, bundle: Bundle, destination: Path, options: Any) -> Artifact:
        """Compile the bundle's model into the directory ``destination``.

        Raises:
            UsageError: where ``options`` name something that this runtime, or this model, does not have.
            CompilerError: where the runtime does not take the graph.
            RuntimeMissingError: where the runtime or the device is not here.
        """


def open_at(target: Format, artifact: Artifact, placement: Placement) -> Session:
    """Load ``artifact`` where ``placement`` wants it; where that gives nothing, as the manifest records.

    Raises:
        UsageError, RuntimeMissingError, BundleError: as :meth:`Format.open` and :meth:`Format.open_on`.
    """
    return target.open_on(artifact, placement) if placement.given else target.open(artifact)


def refuse_other_files(bundle: Bundle, *names: str) -> None:
    """Refuse a bundle whose artifact is not the first of ``names``, or that does not list the others.

    Raises:
        BundleError: naming the files that are missing.
    """
    artifact = bundle.artifact
    missing = [name for name in names if name not in artifact.files]
    if missing or artifact.main != names[0]:
        raise BundleError(
            f"{bundle.directory} is a bundle of format {bundle.manifest.format}, and its manifest does not have "
            f"{' and '.join(missing or names[:1])} as one has it: the bundle was changed; copy it again"
        )
