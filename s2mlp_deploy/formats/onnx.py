"""``--format onnx``: the graph as an ONNX file, run by ONNX Runtime on the CPU. Every other format starts from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.runtime.onnxruntime import REMEDY, RESTING, Loading, OnnxSession, TracedSession, missing
from s2mlp_deploy.schema.precision import ON_CPUS, QUANTIZED_AT_RUNTIME, TARGETS
from s2mlp_deploy.system import workdir

if TYPE_CHECKING:
    from s2mlp_deploy.graph.lowered import Lowered

FILE = "model.onnx"


class OnnxFile(Exporter):
    """Writes ``model.onnx`` and runs it."""

    name = ONNX
    precisions = (*ON_CPUS, *QUANTIZED_AT_RUNTIME)
    options = Options
    calibrated_targets = tuple(TARGETS)
    inputs = ("float", "uint8", "image")
    outputs = ("logits", "probabilities", "top5")
    networks = True
    modules = ("onnxruntime",)
    install_hint = REMEDY

    def export(self, lowered: Lowered, destination: Path) -> Artifact:
        """Write the graph; weights beyond protobuf's limit go to external data beside it."""
        from s2mlp_deploy.graph import writer

        return Artifact(destination, FILE, writer.write(lowered.model, destination / FILE))

    def cannot_run(self, options: Any) -> str | None:
        """Why ONNX Runtime cannot run it: not installed, or too old."""
        return missing("cpu")

    def inspect(self, bundle: Bundle) -> None:
        """Refuse a graph that could do more than compute."""
        onnx_scan.inspect(bundle, bundle.manifest.artifact)

    def open(self, artifact: Artifact) -> TracedSession:
        """Load the file with ONNX Runtime's CPU provider.

        Raises:
            RuntimeMissingError: where onnxruntime is not installed.
            BundleError: where ONNX Runtime cannot load the file.
        """
        return TracedSession(artifact.path)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> OnnxSession:
        """Load the file for ``threads`` threads that rest between runs."""
        return self.open_on(artifact, "cpu", threads)

    def open_on(self, artifact: Artifact, provider: str, threads: int | None) -> OnnxSession:
        """Load the file for ``provider``."""
        return OnnxSession(artifact.path, Loading(provider, threads=threads, config=RESTING))

    def versions(self) -> Mapping[str, str]:
        """onnx and onnx-ir write the file, onnxsim shapes the graph."""
        return {name: version(name) for name in ("onnx", "onnx-ir", "onnxsim")}


@contextmanager
def scratch_session(lowered: Lowered) -> Iterator[TracedSession]:
    """A session of ONNX Runtime on a graph that is not published: calibration and the gate look into graphs with it."""
    onnx_file = OnnxFile()
    with workdir.temporary() as directory:
        yield onnx_file.open(onnx_file.export(lowered, directory))
