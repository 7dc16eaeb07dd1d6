"""``--format onnx``: the graph as an ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.runtime.onnxruntime import REMEDY, RESTING, Loading, OnnxSession, TracedSession, missing
from s2mlp_deploy.schema.manifest import Setting

FILE = "model.onnx"


class OnnxFile:
    """Writes ``model.onnx`` and runs it."""

    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    targets: tuple[str, ...] = ("x86", "arm", "trt")
    options: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("float", "uint8", "image")
    outputs: tuple[str, ...] = ("logits", "probabilities", "top5")
    modules: tuple[str, ...] = ("onnxruntime",)
    remedy = REMEDY

    def export(self, lowered: Lowered, destination: Path) -> Artifact:
        """Write the graph; weights beyond protobuf's limit go to external data beside it."""
        return Artifact(destination, FILE, writer.write(lowered.model, destination / FILE))

    def cannot_run(self, settings: Mapping[str, Setting]) -> str | None:
        """That onnxruntime is not here, or too old."""
        return missing("cpu")

    def inspect(self, bundle: Bundle) -> None:
        """As :meth:`Inspected.inspect`."""
        onnx_scan.inspect(bundle, bundle.manifest.artifact)

    def open(self, artifact: Artifact) -> TracedSession:
        """Load the file with ONNX Runtime's CPU provider.

        Raises:
            RuntimeMissingError: where onnxruntime is not installed.
            BundleError: where ONNX Runtime cannot load the file.
        """
        return TracedSession(artifact.path)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> OnnxSession:
        """The same, on ``threads`` threads that rest between runs."""
        return self.open_on(artifact, "cpu", threads)

    def open_on(self, artifact: Artifact, provider: str, threads: int | None) -> OnnxSession:
        """The same, on ``provider``."""
        return OnnxSession(artifact.path, Loading(provider, threads=threads, config=RESTING))

    def versions(self) -> Mapping[str, str]:
        """onnx and onnx-ir write the file, onnxsim shapes the graph."""
        return {name: version(name) for name in ("onnx", "onnx-ir", "onnxsim")}
