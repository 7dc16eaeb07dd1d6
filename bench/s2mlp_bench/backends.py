"""The backends that compute a timed model: a bundle, OpenVINO, any ONNX file, or matrix products alone. Those of PyTorch are in pytorch/."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_bench.candidate import Point
from s2mlp_bench.network import NetworkSession, samples_of
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate import network_gate
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, load
from s2mlp_deploy.runtime.opening import open_session
from s2mlp_deploy.runtime.session import Placement, Session
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.size import format_size
from s2mlp_exporters.openvino.exporter import OpenVinoSession, Settings, load_openvino


def import_runtimes(modules: Iterable[str]) -> None:
    """Import ``modules``; OpenVINO without the telemetry that it would send."""
    for module in modules:
        if module == "openvino":
            load_openvino()
        else:
            import_module(module)


@dataclass(frozen=True)
class BundleBackend:
    """A bundle, as its format opens it."""

    bundle: Bundle

    @property
    def modules(self) -> tuple[str, ...]:
        return registry.find(self.bundle.manifest.format).modules

    @property
    def size_bytes(self) -> int:
        return self.bundle.size_bytes

    def open(self, point: Point) -> Session:
        """As :meth:`Backend.open`."""
        manifest, artifact = self.bundle.manifest, self.bundle.artifact
        if manifest.batch not in (None, point.batch):
            raise UsageError(
                f"{self.bundle.directory} takes batches of {manifest.batch} alone: leave out --batch, or export it with "
                "--batch dynamic"
            )
        if point.size and isinstance(manifest.spec, OnnxNetwork):
            raise UsageError(
                f"--image-size: {self.bundle.directory} is timed at the size of its golden inputs: leave it out"
            )
        if point.size and any(
            isinstance(n, int) and n != m for n, m in zip(manifest.input.shape[2:], point.size, strict=True)
        ):
            raise UsageError(
                f"{self.bundle.directory} takes images of {format_size(manifest.classifier.image_size)} alone: leave out --image-size, or "
                "export it with --dynamic-size"
            )
        target = registry.find(manifest.format)
        if point.provider:
            session = target.open_on(artifact, Placement(provider=point.provider, threads=point.threads))
        else:
            session = target.open_with_threads(artifact, point.threads)
        if isinstance(manifest.spec, OnnxNetwork):
            return NetworkSession(network_gate.tensors_of(session), samples_of(self.bundle))
        return session


@dataclass(frozen=True)
class _OnnxFile:
    """An ONNX file, and the ``modules`` that run it."""

    path: Path
    modules: tuple[str, ...] = ("onnxruntime",)

    @property
    def size_bytes(self) -> int:
        """The bytes of the file, with its weights where they lie beside it."""
        return sum(file.stat().st_size for file in self.path.parent.iterdir() if file.name.startswith(self.path.name))


class OnnxBackend(_OnnxFile):
    """An ONNX file whose input and output are called as in this project's own, in ONNX Runtime."""

    def open(self, point: Point) -> Session:
        """As :meth:`Backend.open`."""
        return open_session(self.path, Loading(point.provider or "cpu", config=RESTING, threads=point.threads))


@dataclass(frozen=True)
class OpenVinoBackend(_OnnxFile):
    """An ONNX file in OpenVINO, on the CPU, with float32 where the file has float32."""

    modules: tuple[str, ...] = ("openvino",)

    def open(self, point: Point) -> Session:
        """As :meth:`Backend.open`."""
        return OpenVinoSession(self.path, Settings(runtime_version=version("openvino")), point.threads)


class ProductsBackend(_OnnxFile):
    """The matrix products of a model and nothing else, in ONNX Runtime, on noise."""

    def open(self, point: Point) -> Session:
        """As :meth:`Backend.open`."""
        loading = Loading(point.provider or "cpu", config=RESTING, threads=point.threads)
        return ProductsSession(self.path, loading)


class ProductsSession:
    """Runs matrix products on noise; it ignores its input and returns no logits.

    Outputs of one shape share their memory, as they share the runtime's in a whole graph: new memory
    for each of them would be what the call spends its time on.
    """

    def __init__(self, path: Path, loading: Loading) -> None:
        import onnxruntime

        self._session = load(path, loading)
        self._binding = self._session.io_binding()
        rng = np.random.default_rng(0)
        self._held = []  # ONNX Runtime reads the array's memory, and releases before 1.32 do not keep it alive
        for x in self._session.get_inputs():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(noise(rng, np.dtype(_DTYPES[x.type]), x.shape))
            self._held.append(value)
            self._binding.bind_ortvalue_input(x.name, value)
        outputs: dict[str, Any] = {}
        for y in self._session.get_outputs():
            key = json.dumps([y.type, y.shape])
            if key not in outputs:
                outputs[key] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(y.shape, _DTYPES[y.type])
            self._binding.bind_ortvalue_output(y.name, outputs[key])

    def run(self, images: Array) -> Array:
        """No logits."""
        self._session.run_with_iobinding(self._binding)
        return np.empty((0, 0), np.float32)


_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


def noise(rng: np.random.Generator, dtype: np.dtype[Any], shape: list[int]) -> Array:
    """Numbers of ``dtype`` to multiply: bytes from all that there are, others around zero."""
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape, np.float32).astype(dtype)
