"""Translate a bundle's ONNX graph to a .tflite model, operator by operator. Read this first in litert/.

Every operator has an emitter in the table of its module; one that has none is refused by name. Values keep the names
that they have in the ONNX graph. Nothing is fused or rounded: LiteRT does that as it loads the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.graph.metadata import metadata_of
from s2mlp_exporters.litert import arithmetic, layers, moves, tflite_metadata
from s2mlp_exporters.litert.layers import scales_of
from s2mlp_exporters.litert.model_writer import ModelWriter, Result
from s2mlp_exporters.litert.translation import Constant, Emitter, Restored, Translation

if TYPE_CHECKING:
    import onnx_ir as ir

EMITTERS: dict[str, Emitter] = {**arithmetic.EMITTERS, **layers.EMITTERS, **moves.EMITTERS}

FORMAT = "litert"


def translate(path: Path, *, whole: bool = False) -> tuple[memoryview, bytes]:
    """The .tflite model of the ONNX model at ``path``, with its metadata, and the archive of labels that follows it.

    Where the graph is int8 as a ``whole``, so are input and output of the file.

    Raises:
        CompilerError: where the graph has an operator that has no translation.
        UsageError: where its input has another free axis than the batch, or a class's name has several lines.
    """
    from s2mlp_deploy.graph.reader import load

    model = load(path)
    writer = ModelWriter()
    t = Translation(writer, whole=whole)
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        t.define(name, Constant(name, value.const_value.numpy()))
    for value in model.graph.inputs:
        given = _input(value)
        t.define(given.name, _in_bytes(t, value, given) if whole else writer.input(given))
    for node in (Node.of(node, FORMAT) for node in model.graph):
        node.translated_by(EMITTERS)(t, node)
    for value in model.graph.outputs:
        result = t.value(str(value.name))
        writer.output(t.integers_of(result) if whole else t.written(result))
    known = metadata_of(model)
    for key, text in known.items():
        writer.metadata(key, text.encode())
    facts = _facts(writer, known)
    if facts is not None:
        tflite_metadata.refuse_lines(facts)
        writer.metadata(tflite_metadata.ENTRY, tflite_metadata.flatbuffer(facts))
    content = writer.pack("s2mlp-deploy")
    return content, b"" if facts is None else tflite_metadata.archive(facts, len(content))


def _facts(writer: ModelWriter, metadata: Mapping[str, str]) -> tflite_metadata.Facts | None:
    (x,), (y,) = writer.inputs, writer.outputs
    return tflite_metadata.facts(metadata, (x.name, x.dtype.name), (y.name, y.shape[-1]))


def _in_bytes(t: Translation, value: ir.Value, given: Result) -> Restored:
    """The input as integers, of the scales that the graph quantizes it with first of all."""
    (first,) = (Node.of(node, FORMAT) for node, _ in value.uses())
    tensor = t.writer.input(replace(given, dtype=np.dtype(np.int8), scales=scales_of(t, first)))
    return Restored(given.name, tensor)


def _input(value: object) -> Result:
    import onnx_ir as ir

    assert isinstance(value, ir.Value) and value.shape is not None and value.dtype is not None
    free = [i for i, n in enumerate(value.shape) if not isinstance(n, int)]
    if free not in ([], [0]):
        raise UsageError("--format litert has one size of images for a file: leave out --dynamic-size")
    shape = tuple(n if isinstance(n, int) else 1 for n in value.shape)
    return Result(str(value.name), shape, 0 if free else None, np.dtype(value.dtype.numpy()))
