"""Load a model into ONNX Runtime for one execution provider, without falling back to another, and run it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx

from s2mlp_deploy.errors import BundleError, Error, RuntimeMissingError
from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.runtime import onnxruntime_versions, providers
from s2mlp_deploy.runtime.session import Description, Kernel
from s2mlp_deploy.runtime.time_limit import LOOP_SECONDS, stopping_after
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system import machine, workdir

if TYPE_CHECKING:
    import onnxruntime

REMEDY = "pip install onnxruntime"

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}

RESTING = {"session.force_spinning_stop": "1"}
"""Configuration of sessions that take turns: their threads do not wait busily for the next run."""

_PRODUCTS_OF_BYTES = (b"MatMulInteger", b"ConvInteger", b"QuantizeLinear", b"QLinear", b"QGemm")

_LOOPS = (b"Loop", b"Scan")

_NO_FALLBACK = {"session.disable_cpu_ep_fallback": "1"}
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_KERNEL = "_kernel_time"
_MEANS_FALLBACK = "fallback to CPU EP has been explicitly disabled"


Level: TypeAlias = Literal["none", "basic", "extended", "all"]


@dataclass(frozen=True)
class Loading:
    """The options that a model is loaded with.

    ``config`` are ONNX Runtime's session configuration entries. With ``save_to``, the graph as it is after optimization
    is written there. ``without`` are optimizers, by ONNX Runtime's names, that are left out. ``threads`` is None for
    ONNX Runtime's own choice, one a core. With ``profile_to`` the time of every operator is written to a file with that
    prefix. :meth:`OnnxSession.compute` stops a graph with loops after ``loop_seconds``. For CUDA: ``device`` is the GPU's number,
    ``tf32`` allows products to be rounded to TF32, ``cuda_graph`` records the work of each shape and replays it.
    """

    provider: str = "cpu"
    optimization: Level = "all"
    config: Mapping[str, str] = field(default_factory=dict)
    save_to: Path | None = None
    without: tuple[str, ...] = ()
    threads: int | None = None
    profile_to: Path | None = None
    loop_seconds: float = LOOP_SECONDS
    device: int = 0
    tf32: bool = False
    cuda_graph: bool = False


DEFAULT = Loading()
"""On the CPU, with all of ONNX Runtime's optimizations."""


class OnnxSession:
    """A model in ONNX Runtime, from an ``.onnx`` or an ``.ort`` file; :func:`s2mlp_deploy.runtime.opening.open_session` opens it.

    Raises:
        RuntimeMissingError, BundleError: as :func:`load`.
    """

    def __init__(self, path: Path, loading: Loading = DEFAULT) -> None:
        self._path, self._loading = path, loading
        self._loaded: tuple[tuple[str, ...], onnxruntime.InferenceSession] | None = (), self._load()
        self._may_loop = _contains(path, _LOOPS)

    def run(self, images: Array) -> Array:
        """The first output for ``images`` (batch, channels, height, width): logits (batch, classes), or as declared."""
        return self._for(images, _outputs(self._session())[:1])[0]

    def rank(self, images: Array) -> tuple[Array, Array]:
        """The two outputs of a graph that gives the best classes alone."""
        scores, classes = self._for(images, _outputs(self._session()))
        return scores, classes

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs, by name, for all ``inputs``, by name.

        Raises:
            BundleError: where ONNX Runtime fails; TimeLimitError where the graph has loops and takes longer than they may.
        """
        names = _outputs(self._session())
        try:
            if not self._may_loop:
                return dict(zip(names, self._values(names, inputs), strict=True))
            with stopping_after(self._loading.loop_seconds) as options:
                return dict(zip(names, self._values(names, inputs, options), strict=True))
        except Error:
            raise
        except Exception as error:
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise BundleError(f"ONNX Runtime cannot run the model on {json.dumps(shapes)}: {error}") from error

    def describe(self) -> Description:
        """The interface and metadata that the model declares."""
        session = self._session()
        metadata = session.get_modelmeta().custom_metadata_map
        return Description(_entries(session.get_inputs()), _entries(session.get_outputs()), metadata)

    def profile(self, images: Array, runs: int) -> tuple[Kernel, ...]:
        """Every operator's runs, by another session that is loaded in the same way; the first run is left out."""
        self.close()  # makes room: each holds all weights
        with workdir.temporary() as directory:
            session = load(self._path, replace(self._loading, profile_to=directory / "profile", cuda_graph=False))
            for _ in range(runs + 1):
                _run(session, _outputs(session), images)
            events = json.loads(Path(session.end_profiling()).read_bytes())
        kernels = [_kernel(event) for event in events if event["name"].endswith(_KERNEL)]
        return tuple(kernels[len(kernels) // (runs + 1) :])

    def close(self) -> None:
        """Give the memory back; the next run loads the model again."""
        self._loaded = None

    def _load(self) -> onnxruntime.InferenceSession:
        return load(self._path, self._loading)

    def _for(self, images: Array, names: list[str]) -> list[Array]:
        """The outputs called ``names`` for ``images``, as the type of the graph's input.

        Raises:
            BundleError: where ONNX Runtime fails.
        """
        with _explaining(images):
            return self._values(names, fed(self._session(), images))

    def _values(
        self, names: list[str], inputs: Mapping[str, Array], options: onnxruntime.RunOptions | None = None
    ) -> list[Array]:
        """The outputs called ``names``, for all ``inputs``, by name: the one place where a model is run, but for tracing."""
        return list(self._session().run(names, dict(inputs), options))

    def _session(self, names: tuple[str, ...] = ()) -> onnxruntime.InferenceSession:
        """The session with the values ``names`` as outputs, too: each holds all weights, so one is kept at a time."""
        loaded = self._loaded  # other threads may need other names meanwhile
        if loaded is None or loaded[0] != names:
            self._loaded = loaded = None  # makes room
            loaded = names, self._tracing_session(names) if names else self._load()
            self._loaded = loaded
        return loaded[1]

    def _tracing_session(self, names: tuple[str, ...]) -> onnxruntime.InferenceSession:
        model = onnx.load(self._path, load_external_data=False)  # with it, it may not fit into one message
        known = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        return load(
            model.SerializeToString(), replace(DEFAULT, config={_DATA_FOLDER: str(self._path.parent.resolve())})
        )


def _outputs(session: onnxruntime.InferenceSession) -> list[str]:
    return [output.name for output in session.get_outputs()]


def _entries(values: Sequence[Any]) -> tuple[TensorEntry, ...]:
    names = {"float": "float32", "double": "float64"}
    types = (value.type.removeprefix("tensor(").removesuffix(")") for value in values)
    return tuple(
        TensorEntry(
            name=value.name,
            dtype=names.get(kind, kind),
            shape=tuple(n if isinstance(n, int) else str(n) for n in value.shape),
        )
        for value, kind in zip(values, types, strict=True)
    )


def _kernel(event: Mapping[str, Any]) -> Kernel:
    sizes = event["args"]
    return Kernel(
        event["name"].removesuffix(_KERNEL),
        sizes["op_name"],
        float(event["dur"]),
        int(sizes["activation_size"]),
        int(sizes["output_size"]),
    )


class TracedSession(OnnxSession):
    """A session of an ONNX file that can trace values inside the graph."""

    def trace(self, images: Array, names: tuple[str, ...]) -> Mapping[str, Array]:
        """The values called ``names``, from a copy of the graph that has them as outputs."""
        return dict(zip(names, _run(self._session(names), list(names), images), strict=True))


def missing(provider: str) -> str | None:
    """The reason why models cannot run on ``provider`` here; None where they can."""
    if find_spec("onnxruntime") is None:
        return f"running an ONNX file needs onnxruntime: {REMEDY}"
    if reason := onnxruntime_versions.too_old("graphs"):
        return reason
    return providers.missing(provider)


def miscomputes() -> str | None:
    """Why this ONNX Runtime must not multiply bytes on this processor; None where it may.

    Its kernels for AMX once gave wrong numbers for many shapes, of bytes without a sign by bytes of either kind
    (microsoft/onnxruntime#27671).
    """
    if "amx_int8" not in machine.features() or not onnxruntime_versions.too_old("bytes"):
        return None
    return (
        f"onnxruntime {onnxruntime_versions.installed()} multiplies bytes wrongly on this processor, which has AMX: "
        f"{onnxruntime_versions.remedy('bytes')} (Python 3.11 or newer), or take another --format"
    )


def _contains(model: Path | bytes, names: Sequence[bytes]) -> bool:
    """Whether any of the operators called ``names`` occurs in the file, by its name alone: other bytes may read the same."""
    if isinstance(model, bytes):
        return any(name in model for name in names)
    overlap, last = max(map(len, names)) - 1, b""
    with suppress(OSError), model.open("rb") as file:  # ONNX Runtime refuses an unreadable file
        while part := file.read(_PART_BYTES):  # a mapped file would count as memory, beside the session's weights
            last = last[-overlap:] + part
            if any(name in last for name in names):
                return True
    return False


_PART_BYTES = 2**20


def load(model: Path | bytes, loading: Loading = DEFAULT) -> onnxruntime.InferenceSession:
    """A session for a file, or for the content of one, that runs on the provider given and on no other.

    Raises:
        RuntimeMissingError: where ONNX Runtime, or its provider, is not here or cannot run the whole model.
        BundleError: where ONNX Runtime cannot load the model.
    """
    if reason := missing(loading.provider):
        raise RuntimeMissingError(reason)
    if loading.provider == "cpu" and (reason := miscomputes()) and _contains(model, _PRODUCTS_OF_BYTES):
        raise RuntimeMissingError(reason)
    import onnxruntime

    provider = providers.PROVIDERS[loading.provider]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the errors that it logs are also raised
    if loading.threads is not None:
        options.intra_op_num_threads = loading.threads
    level = "DISABLE_ALL" if loading.optimization == "none" else f"ENABLE_{loading.optimization.upper()}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    if loading.profile_to:
        options.enable_profiling, options.profile_file_prefix = True, str(loading.profile_to)
    if loading.save_to:
        options.optimized_model_filepath = str(loading.save_to)
    try:
        for key, value in {**loading.config, **({} if loading.provider == "cpu" else _NO_FALLBACK)}.items():
            options.add_session_config_entry(key, value)
        source = model if isinstance(model, bytes) else str(model)
        chosen = _provider_options(loading)
        named = [(provider, chosen)]
        if providers.is_plugin(loading.provider):
            providers.add_to(options, loading.provider, chosen)
            named = []
        session = onnxruntime.InferenceSession(
            source,
            options,
            providers=named,
            disabled_optimizers=list(loading.without),
            enable_fallback=0,  # to the CPU, of which it would only print a line
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        if _MEANS_FALLBACK in str(error):
            raise _falls_back(provider) from error
        name = "" if isinstance(model, bytes) else f" {model}"
        raise BundleError(f"ONNX Runtime cannot load the model{name}: {error}") from error
    if session.get_providers()[0] != provider:  # where its libraries are missing, it only logs
        raise _falls_back(provider)
    return session


def _provider_options(loading: Loading) -> dict[str, str]:
    if loading.provider != "cuda":
        return {}
    return {
        "device_id": str(loading.device),
        "use_tf32": str(int(loading.tf32)),  # ONNX Runtime's default is 1
        "enable_skip_layer_norm_strict_mode": "1",  # by default SkipLayerNormalization adds up float16 in float16
        "enable_cuda_graph": str(int(loading.cuda_graph)),
    }


def _falls_back(provider: str) -> RuntimeMissingError:
    return RuntimeMissingError(
        f"{provider} cannot run the whole model here, and ONNX Runtime would silently run the rest on the CPU: check the "
        "provider's drivers and libraries, or export without --dynamic-size and --input image, which have arithmetic of shapes for the CPU, or "
        "for another --provider or --precision"
    )


def _run(session: onnxruntime.InferenceSession, names: list[str], images: Array) -> list[Any]:
    with _explaining(images):
        return list(session.run(names, fed(session, images)))


def fed(session: onnxruntime.InferenceSession, images: Array) -> dict[str, Array]:
    """``images`` by the name of the graph's input, in its type."""
    return {INPUT: images.astype(_DTYPES[session.get_inputs()[0].type], copy=False)}


@contextmanager
def _explaining(images: Array) -> Iterator[None]:
    """Raise ONNX Runtime's errors, which have no common base, as a BundleError that names the shape of ``images``."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        raise BundleError(
            f"ONNX Runtime cannot run the model on an input of {json.dumps(images.shape)}: {error}"
        ) from error
