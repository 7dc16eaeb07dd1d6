"""Write a model as one ONNX file without a second copy of its weights in memory.

onnx and onnx_ir build a message with all weights in it, and then its serialized form. Here the messages come from onnx,
too, but each weight's bytes go from where they lie to the file, which is an ordinary ONNX file. onnx_ir's external data
costs no memory either, but makes two files; so it is for models that one file cannot hold. Peak of resident memory
while writing, above the model's own (onnx-ir 1.1; all three write the same bytes in each run):

====================  ==============  ============================
weights               this module     ``onnx_ir.save`` to one file
====================  ==============  ============================
225 MiB               0               709 MiB, 3.2 × the weights
810 MiB               0               2,500 MiB, 3.1 × the weights
====================  ==============  ============================
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from s2mlp_deploy.schema.array import Array

LIMIT_BYTES = 2_000_000_000
"""Protobuf refuses messages of 2 GiB; above this, weights go to a file of their own."""

_STREAMED_BYTES = 1024
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def write(model: ir.Model, path: Path) -> tuple[str, ...]:
    """Write ``model`` to ``path``; returns the names of the files in ``path``'s directory that it takes.

    Beyond protobuf's limit the weights go to external data beside it.
    """
    if weight_bytes(model) > LIMIT_BYTES:
        data = f"{path.name}.data"
        ir.save(model, path, external_data=data)
        return path.name, data
    graph, head = _split(model)
    weights = [(_header(v), np.ascontiguousarray(v.const_value.numpy())) for v in _streamed(model) if v.const_value]
    parts = [_field(_INITIALIZER, len(h) + len(_raw(a)) + a.nbytes) for h, a in weights]
    length = len(graph) + sum(
        len(p) + len(h) + len(_raw(a)) + a.nbytes for p, (h, a) in zip(parts, weights, strict=True)
    )
    with path.open("wb") as file:
        file.write(head + _field(_GRAPH, length) + graph)
        for part, (header, array) in zip(parts, weights, strict=True):
            file.write(part + header + _raw(array))
            file.write(array.reshape(-1).view(np.uint8).data)  # bfloat16 is no type that a buffer can name
    return (path.name,)


def weight_bytes(model: ir.Model) -> int:
    """The size of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _streamed(model: ir.Model) -> Iterator[ir.Value]:
    """The large weights, and those whose values lie in a file of their own, which onnx_ir would only refer to."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and (tensor.nbytes > _STREAMED_BYTES or isinstance(tensor, ir.ExternalTensor)):
            yield value


def _split(model: ir.Model) -> tuple[bytes, bytes]:
    """The graph without its large weights, and the model without its graph, both serialized."""
    initializers = model.graph.initializers
    everything = dict(initializers)
    try:
        for value in list(_streamed(model)):
            del initializers[str(value.name)]
        proto = ir.to_proto(model)
    finally:
        initializers.clear()
        for value in everything.values():
            model.graph.register_initializer(value)
    graph: bytes = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    head: bytes = proto.SerializeToString(deterministic=True)
    return graph, head


def _header(value: ir.Value) -> bytes:
    tensor = value.const_value
    assert tensor is not None
    dims = [int(d) for d in tensor.shape.numpy()]
    header: bytes = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=dims).SerializeToString(
        deterministic=True
    )
    return header


def _raw(array: Array) -> bytes:
    return _field(_RAW_DATA, array.nbytes)


def _field(number: int, length: int) -> bytes:
    """The start of a length-delimited field on the wire."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
