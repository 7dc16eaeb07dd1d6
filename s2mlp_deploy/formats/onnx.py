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
from s2mlp_deploy.runtime.onnxruntime import DEFAULT, REMEDY, OnnxSession, TracedSession, missing
from s2mlp_deploy.runtime.opening import open_session, placed
from s2mlp_deploy.runtime.session import Placement
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import CUDA, INT8, ON_CPUS, QUANTIZED_AT_RUNTIME
from s2mlp_deploy.system import workdir

if TYPE_CHECKING:
    from s2mlp_deploy.graph.lowered import Lowered

FILE = "model.onnx"


class OnnxFile(Exporter):
    """Writes ``model.onnx`` and runs it."""

    name = ONNX
    precisions = (*ON_CPUS, *QUANTIZED_AT_RUNTIME)
    options = Options
    targets = (*Exporter.targets, CUDA.name)
    calibrated_targets = INT8.targets
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
        onnx_scan.inspect(bundle, bundle.manifest.artifact, within=onnx_scan.LOOPS)

    def open(self, artifact: Artifact) -> TracedSession:
        """Load the file with ONNX Runtime's CPU provider.

        Raises:
            RuntimeMissingError: where onnxruntime is not installed.
            BundleError: where ONNX Runtime cannot load the file.
        """
        return TracedSession(artifact.path)

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code for ONNX Runtime in Python and JavaScript."""
        return onnxruntime_examples(manifest)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> OnnxSession:
        """Load the file for ``threads`` threads that rest between runs."""
        return self.open_on(artifact, Placement(threads=threads))

    def open_on(self, artifact: Artifact, placement: Placement) -> OnnxSession:
        """Load the file for any execution provider, and a GPU of its own."""
        return open_session(artifact.path, placed(DEFAULT, placement))

    def versions(self) -> Mapping[str, str]:
        """onnx and onnx-ir write the file, onnxsim shapes the graph."""
        return {name: version(name) for name in ("onnx", "onnx-ir", "onnxsim")}


def onnxruntime_examples(manifest: Manifest) -> Mapping[str, str]:
    """Code that runs a file of ONNX Runtime's, for model cards."""
    load = f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{manifest.artifact}")\n'
    if isinstance(manifest.spec, OnnxNetwork):
        inputs = ", ".join(f"{entry.name!r}: {entry.dtype} {list(entry.shape)}" for entry in manifest.spec.inputs)
        return {"python": f"{load}outputs = session.run(None, inputs)  # inputs: arrays by name, {inputs}"}
    first, second = manifest.output, manifest.output_classes
    given = f"{first.name}, {second.name}" if second else first.name
    run = f'{given}{"" if second else ","} = session.run(None, {{"{manifest.input.name}": prepared}})\n'
    shown = f"print({given})" if second or first.shape[-1] == 1 else f"print({given}.argmax(axis=1))"
    dims = [1 if isinstance(n, str) else n for n in manifest.input.shape]
    return {
        "python": load + run + shown,
        "js": "import * as ort from 'onnxruntime-web';  // or onnxruntime-node\n\n"
        f"const session = await ort.InferenceSession.create('{manifest.artifact}');\n"
        f"const input = new ort.Tensor('{manifest.input.dtype}', prepared, {dims});  // prepared as in Python\n"
        f"const {{ {given} }} = await session.run({{ {manifest.input.name}: input }});",
    }


@contextmanager
def scratch_session(lowered: Lowered) -> Iterator[TracedSession]:
    """A session of ONNX Runtime on a graph that is not published: calibration and the gate look into graphs with it."""
    onnx_file = OnnxFile()
    with workdir.temporary() as directory:
        yield onnx_file.open(onnx_file.export(lowered, directory))
