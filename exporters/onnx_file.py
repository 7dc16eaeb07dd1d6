"""``--format onnx``: the graph as an ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from s2mlp_deploy import onnx_writer
from s2mlp_deploy.artifact import Artifact
from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.exporter import Lowered
from s2mlp_deploy.graph import INPUT, OUTPUT
from s2mlp_deploy.parity import Array

if TYPE_CHECKING:
    import onnxruntime

FILE = "model.onnx"


class OnnxFile:
    """Writes ``model.onnx`` and runs it."""

    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    targets: tuple[str, ...] = ("x86", "arm", "trt")
    modules: tuple[str, ...] = ("onnxruntime",)
    remedy = "pip install onnxruntime"

    def export(self, lowered: Lowered, destination: Path) -> Artifact:
        """Write the graph; weights beyond protobuf's limit go to external data beside it."""
        return Artifact(destination, FILE, onnx_writer.write(lowered.model, destination / FILE))

    def open(self, artifact: Artifact) -> OnnxSession:
        """Load the file with ONNX Runtime's CPU provider.

        Raises:
            RuntimeMissingError: where onnxruntime is not installed.
            BundleError: where ONNX Runtime cannot load the file.
        """
        return OnnxSession(artifact.path)

    def versions(self) -> Mapping[str, str]:
        """onnx and onnx-ir write the file, onnxsim shapes the graph."""
        return {name: version(name) for name in ("onnx", "onnx-ir", "onnxsim")}


class OnnxSession:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session = _inference_session(str(path))
        self._traced: tuple[tuple[str, ...], onnxruntime.InferenceSession] | None = None

    def run(self, images: Array) -> Array:
        """Logits (batch, classes) of ``images`` (batch, channels, height, width)."""
        logits: Array = _run(self._session, [OUTPUT], images)[0]
        return logits

    def trace(self, images: Array, names: tuple[str, ...]) -> Mapping[str, Array]:
        """The values called ``names``, from a copy of the graph that has them as outputs."""
        if self._traced is None or self._traced[0] != names:
            self._traced = names, self._tracing_session(names)
        return dict(zip(names, _run(self._traced[1], list(names), images), strict=True))

    def _tracing_session(self, names: tuple[str, ...]) -> onnxruntime.InferenceSession:
        model = onnx.load(self._path, load_external_data=False)  # with it, it may not fit into one message
        known = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        return _inference_session(model.SerializeToString(), data=self._path.parent)


def _inference_session(model: str | bytes, *, data: Path | None = None) -> onnxruntime.InferenceSession:
    """A session for a file, or for its content with external data in the directory ``data``."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(f"running an ONNX file needs onnxruntime: {OnnxFile.remedy}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        if data is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(data.resolve())
            )
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BundleError(f"ONNX Runtime cannot load the model: {error}") from error


def _run(session: onnxruntime.InferenceSession, names: list[str], images: Array) -> list[Any]:
    try:
        dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
        return list(session.run(names, {INPUT: images.astype(dtype, copy=False)}))
    except Exception as error:
        raise BundleError(
            f"ONNX Runtime cannot run the model on an input of {json.dumps(images.shape)}: {error}"
        ) from error
