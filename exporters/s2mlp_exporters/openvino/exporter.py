"""``--format openvino``: OpenVINO's own files, ``model.xml`` and ``model.bin``, run on the CPU in float32.

Two of OpenVINO's habits change numbers without a word, and both are off here: it saves weights as float16, and on
processors that multiply bfloat16 it runs float32 models in that (docs/engines.md gives the cost of each). Smaller
weights are what ``--precision fp16`` is for, which is held to fp16's tolerance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import onnx

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError, CompilerError, RuntimeMissingError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_exporters.openvino import artifact_scan

XML, BIN = "model.xml", "model.bin"

REMEDY = pip_install("openvino")

LOADING: Mapping[str, str] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
"""OpenVINO's properties for low latency, and for float32 arithmetic wherever it is not int8."""

_METADATA = "s2mlp"
"""What an ONNX model's metadata of ours begins with; where OpenVINO's files keep it."""

_TELEMETRY = "openvino_telemetry"


class Settings(StrictModel):
    """Recorded settings of a model for OpenVINO. float16 weights are computed in ``inference_precision``, too."""

    runtime: Literal["openvino"] = "openvino"
    runtime_version: str
    device: Literal["CPU"] = "CPU"
    inference_precision: Literal["f32"] = "f32"


class OpenVinoIr(Compiler):
    """Writes ``model.xml`` and ``model.bin``, and runs them."""

    name = "openvino"
    precisions = ON_CPUS
    options = Options
    networks = True
    modules = ("openvino",)
    install_hint = REMEDY

    def cannot_compile(self, options: Options) -> str | None:
        """The reason where openvino is missing; else None."""
        return None if find_spec("openvino") else f"this needs the package openvino: {REMEDY}"

    def cannot_run(self, options: Options) -> str | None:
        """The same reason: where a model is written it also runs."""
        return self.cannot_compile(options)

    def compile(self, bundle: Bundle, destination: Path, options: Options) -> Artifact:
        """Write the bundle's model as OpenVINO reads it; every weight keeps its type.

        Raises:
            RuntimeMissingError: where openvino is not here.
            CompilerError: where it does not take the graph.
        """
        openvino = load_openvino()
        try:
            model = read_model("onnx", bundle.artifact.path)
            _name_operations(model)
            for name, text in _metadata_of(bundle.artifact.path).items():
                model.set_rt_info(text, [_METADATA, name])
            openvino.save_model(model, destination / XML, compress_to_fp16=False)
        except Exception as error:  # OpenVINO's exceptions have no common base
            raise CompilerError(
                f"OpenVINO {_version()} cannot take this graph ({_plain(error)}): install another version, or export for another "
                "--format"
            ) from error
        return Artifact(destination, XML, (XML, BIN), Settings(runtime_version=_version()).model_dump())

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, XML, BIN)
        artifact_scan.inspect(bundle.directory / XML, bundle.directory / BIN)

    def open(self, artifact: Artifact) -> OpenVinoSession:
        """Load the model for the device that it was made for.

        Raises:
            RuntimeMissingError: where openvino is not here, or does not compute in the recorded precision.
            BundleError: where OpenVINO cannot load the files, or the settings are not what ``compile`` records.
        """
        return self.open_with_threads(artifact, None)

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code for OpenVINO in Python."""
        given = "prepared" if isinstance(manifest.spec, Spec) else "inputs"  # by name
        code = f'import openvino\n\nresult = openvino.compile_model("{manifest.artifact}", "CPU")({given})\nprint(result[0])'
        return {"python": code}

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> OpenVinoSession:
        """The same, on ``threads`` threads. OpenVINO's rest about a millisecond after a run, and make way until then."""
        return OpenVinoSession(artifact.path, recorded(artifact, Settings), threads)

    def versions(self) -> Mapping[str, str]:
        """openvino writes the files."""
        return {"openvino": _version()}


class OpenVinoSession:
    """A model of OpenVINO's or of ONNX, at ``path``, in OpenVINO, which can show what happens inside.

    A request of OpenVINO's serves one thread at a time, and more requests do not lower latency: threads take turns.

    Raises:
        RuntimeMissingError, BundleError: as :meth:`OpenVinoIr.open`.
    """

    def __init__(self, path: Path, settings: Settings, threads: int | None = None) -> None:
        self._path, self._settings, self._threads = path, settings, threads
        self._loaded: tuple[tuple[str, ...], Any] | None = (), self._load(())
        self._turn = Lock()

    def run(self, images: Array) -> Array:
        """Logits (batch, classes) of ``images`` (batch, channels, height, width)."""
        return self._infer((), images, (OUTPUT,))[OUTPUT]

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs, by name, for all ``inputs``, by name."""
        with self._turn:
            request = self._request(())
            try:
                found = request.infer({name: np.ascontiguousarray(x) for name, x in inputs.items()}, share_inputs=True)
                return {port.get_any_name(): np.array(found[port]) for port in request.get_compiled_model().outputs}
            except Exception as error:
                shapes = {name: list(array.shape) for name, array in inputs.items()}
                raise BundleError(f"OpenVINO cannot run the model on {json.dumps(shapes)}: {_plain(error)}") from error

    def describe(self) -> Description:
        """Inputs and outputs of the model, and what the ONNX model carried along."""
        with self._turn:
            model = self._request(()).get_compiled_model()
        return Description(tuple(map(_entry, model.inputs)), tuple(map(_entry, model.outputs)), self._metadata)

    def trace(self, images: Array, names: tuple[str, ...]) -> Mapping[str, Array]:
        """The values called ``names``, from a copy of the model that has them as outputs."""
        return self._infer(names, images, names)

    def _request(self, more_outputs: tuple[str, ...]) -> Any:
        """The request with the values called ``more_outputs``, too: each holds all weights, so one is kept at a time."""
        if self._loaded is None or self._loaded[0] != more_outputs:
            self._loaded = None  # makes room
            self._loaded = more_outputs, self._load(more_outputs)
        return self._loaded[1]

    def _load(self, more_outputs: tuple[str, ...]) -> Any:
        """A request for inference, whose outputs are the logits and the values called ``more_outputs``."""
        openvino, properties = load_openvino(), dict[str, Any](LOADING)
        if self._threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        try:
            model = read_model("onnx" if self._path.suffix == ".onnx" else "ir", self._path)
            self._metadata = _metadata_in(model)
            model.add_outputs([name for name in more_outputs if name != OUTPUT])
            compiled = openvino.Core().compile_model(model, self._settings.device, properties)
            computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            request = compiled.create_infer_request()
        except Exception as error:
            raise BundleError(
                f"OpenVINO {_version()} cannot load the model {self._path}, which was made with {self._settings.runtime_version}: "
                f"{_plain(error)}"
            ) from error
        if computes_in != self._settings.inference_precision:  # it is a hint only, which a device may pass over
            raise RuntimeMissingError(
                f"OpenVINO's {self._settings.device} device computes in {computes_in} here, although "
                f"{self._settings.inference_precision} was requested: run the model on another machine, or with another version"
            )
        return request

    def _infer(self, more_outputs: tuple[str, ...], images: Array, names: tuple[str, ...]) -> dict[str, Array]:
        with self._turn:
            request = self._request(more_outputs)
            try:
                dtype = request.get_compiled_model().input(INPUT).get_element_type().to_dtype()
                found = request.infer({INPUT: np.ascontiguousarray(images, dtype)}, share_inputs=True)
                return {name: found[name] for name in names}
            except Exception as error:
                raise BundleError(
                    f"OpenVINO cannot run the model on an input of {json.dumps(images.shape)}: {_plain(error)}"
                ) from error


def _metadata_of(path: Path) -> dict[str, str]:
    """The metadata of the ONNX file at ``path``, by names without dots."""
    properties = onnx.load(path, load_external_data=False).metadata_props
    named = {p.key.partition(".")[::2]: p.value for p in properties}
    return {name: text for (owner, name), text in named.items() if owner == _METADATA}


def _metadata_in(model: Any) -> dict[str, str]:
    """The same of a model of OpenVINO's, in ONNX Runtime's form; older bundles have none."""
    if not model.has_rt_info([_METADATA]):
        return {}
    return {
        f"{_METADATA}.{name}": text.astype(str) for name, text in model.get_rt_info([_METADATA]).astype(dict).items()
    }


def _entry(port: Any) -> TensorEntry:
    shape = tuple("any" if n.is_dynamic else int(n.get_length()) for n in port.get_partial_shape())
    return TensorEntry(name=port.get_any_name(), dtype=np.dtype(port.get_element_type().to_dtype()).name, shape=shape)


def load_openvino() -> Any:
    """The module ``openvino``, without the telemetry that it otherwise sends when it is imported.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    silent = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if silent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # as if not installed: OpenVINO does without
    try:
        return import_module("openvino")
    except ImportError as error:
        raise RuntimeMissingError(f"OpenVINO cannot be loaded ({error}): {REMEDY}") from error
    finally:
        if silent:
            del sys.modules[_TELEMETRY]


def read_model(kind: str, path: Path) -> Any:
    """The model at ``path``, read as ``kind``. ``Core.read_model`` would try every format on it, and print messages."""
    frontend = import_module("openvino.frontend").FrontEndManager().load_by_framework(kind)
    return frontend.convert(frontend.load(str(path)))


def _name_operations(model: Any) -> None:
    """Name those operations that have no name in the graph; OpenVINO counts them on through all models of a process."""
    for position, operation in enumerate(model.get_ordered_ops()):
        if operation.get_friendly_name() == operation.get_name():
            operation.set_friendly_name(f"{operation.get_type_name()}_{position}")


def _plain(error: Exception) -> str:
    """OpenVINO's message, without the source locations that it begins with."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Exception from ", "Check '")))


def _version() -> str:
    return version("openvino")
