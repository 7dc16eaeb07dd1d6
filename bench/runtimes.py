"""Calls to time: a graph in ONNX Runtime or in OpenVINO, on the CPU, on a given number of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.parity import Array

if TYPE_CHECKING:
    import onnxruntime


def onnxruntime_call(path: Path, images: Array, *, threads: int = 1) -> Callable[[], Array]:
    """A call that runs the ONNX file at ``path`` on ``images`` (batch, channels, height, width): logits."""
    session = _session(path, threads=threads)
    feed = {session.get_inputs()[0].name: images}

    def call() -> Array:
        outputs: list[Any] = session.run(None, feed)
        logits: Array = outputs[0]
        return logits

    return call


def products_call(path: Path, rng: np.random.Generator) -> Callable[[], object]:
    """A call that runs the matrix products at ``path`` on noise, on one thread.

    Outputs of one shape share their memory, as they share the runtime's in a whole graph: new memory
    for each of them would be what the call spends its time on.
    """
    import onnxruntime

    session = _session(path, threads=1)
    binding = session.io_binding()

    def memory(value: onnxruntime.NodeArg, dtype: type[np.generic]) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, dtype)

    for x in session.get_inputs():
        uint8 = x.type == "tensor(uint8)"
        values = memory(x, np.uint8 if uint8 else np.float32)
        values.update_inplace(
            rng.integers(0, 256, x.shape, np.uint8) if uint8 else rng.standard_normal(x.shape, np.float32)
        )
        binding.bind_ortvalue_input(x.name, values)
    outputs: dict[tuple[int, ...], onnxruntime.OrtValue] = {}
    for y in session.get_outputs():
        shape = tuple(y.shape)
        if shape not in outputs:
            outputs[shape] = memory(y, np.float32)
        binding.bind_ortvalue_output(y.name, outputs[shape])
    return lambda: session.run_with_iobinding(binding)


def operators(path: Path, scratch: Path) -> Counter[str]:
    """How often each operator occurs in what ONNX Runtime makes of the ONNX file at ``path``.

    ``scratch`` is a file that this needs for a while.
    """
    import onnx

    _session(path, threads=1, optimized=scratch)
    found = Counter(node.op_type for node in onnx.load(scratch, load_external_data=False).graph.node)
    scratch.unlink()
    return found


def _session(path: Path, *, threads: int, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # After a call threads would wait for the next one by spinning, at the cost of whoever is measured then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def require_openvino() -> Any:
    """The module ``openvino``.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    try:
        return import_module("openvino")
    except ImportError as error:
        raise RuntimeMissingError("int8 is measured against OpenVINO: pip install 's2mlp-deploy[openvino]'") from error


def openvino_call(path: Path, images: Array) -> Callable[[], Array]:
    """As :func:`onnxruntime_call`, in OpenVINO on one thread.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = require_openvino().Core().compile_model(str(path), "CPU", properties).create_infer_request()

    def call() -> Array:
        logits: Array = request.infer([images], share_inputs=True)[0]
        return logits

    return call
