"""ONNX files for baselines: written from graphs, or quantized by ONNX Runtime's own tool."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.schema.array import Array


def write(lowered: Lowered, directory: Path) -> Path:
    """The ONNX file of ``lowered``, in a ``directory`` of its own."""
    directory.mkdir()
    path = directory / "model.onnx"
    writer.write(lowered.model, path)
    return path


def write_quantized_statically(path: Path, images: Array, directory: Path) -> Path:
    """Quantize the ONNX file at ``path`` with ``onnxruntime.quantization`` and the defaults of its guide.

    The file is pre-processed first, as the library requires; ONNX's own inference finds the shapes in our graphs.
    """
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    directory.mkdir()
    prepared, quantized = directory / "prepared.onnx", directory / "model.onnx"
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, quantized, _Images(images))
    prepared.unlink()
    return quantized


class _Images:
    """A ``CalibrationDataReader``: one image at a time."""

    def __init__(self, images: Array) -> None:
        self._feeds = iter([{INPUT: image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)
