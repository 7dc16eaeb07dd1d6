"""Sorts the one part of an ``.ort`` file that differs from run to run.

ONNX Runtime lays out the table of its operators' type constraints in the order of a hash map, which is
another one each time, and reads it into a map again, so that its order means nothing (KernelTypeStrResolver
in onnxruntime/core/flatbuffers/schema/ort.fbs). The file is a FlatBuffer, which is built back to front:
session and table come first, and the model after them stays as it is.
"""

from __future__ import annotations

import logging
import mmap
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_IDENTIFIER = b"ORTM"
_ALIGNMENT = 64
_MODEL_SLOT = 6
_KNOWN_VTABLE_BYTES = 12


def write(source: Path, destination: Path) -> None:
    """Write the ``.ort`` file ``source`` to ``destination`` with its table in alphabetical order.

    Raises:
        ValueError: where the file does not have the layout that this module supports.
    """
    fbs = bindings()
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[4:8] != _IDENTIFIER:
            raise ValueError(f"{source} is not an .ort file")
        session = fbs.InferenceSession.InferenceSession.GetRootAs(content)
        parts = session.Model(), session.KernelTypeStrResolver()
        vtable = session._tab.Pos - _signed(content, session._tab.Pos)
        size = int.from_bytes(content[vtable : vtable + 2], "little")
        if None in parts or size > _KNOWN_VTABLE_BYTES:
            raise ValueError(f"{source} has other parts than session, model and operators")
        model, resolver = parts[0]._tab.Pos, parts[1]
        tail = model - _signed(content, model)  # where the model's vtable stands, just before it
        if not resolver._tab.Pos < tail < model:
            raise ValueError(f"{source} has its parts in another order")
        head = _head(fbs, session.OrtVersion(), resolver)
        head.extend(bytes((tail - len(head)) % _ALIGNMENT))
        place = _model_field(fbs, head)
        head[place : place + 4] = (len(head) + model - tail - place).to_bytes(4, "little")
        with destination.open("wb") as out:
            out.write(head)
            with memoryview(content) as whole, whole[tail:] as rest:
                out.write(rest)


def bindings() -> Any:
    """onnxruntime's own Python bindings for the format."""
    handlers = logging.root.handlers[:]
    import_module("onnxruntime.tools.ort_format_model")  # puts them on the path
    logging.root.handlers[:] = handlers  # it sets up the logging of the whole program
    names = (
        "ArgTypeAndIndex",
        "InferenceSession",
        "KernelTypeStrArgsEntry",
        "KernelTypeStrResolver",
        "OpIdKernelTypeStrArgsEntry",
    )
    return SimpleNamespace(**{name: import_module(f"ort_flatbuffers_py.fbs.{name}") for name in names})


def _head(fbs: Any, version: bytes, resolver: Any) -> bytearray:
    """Session and table; where the model is must still be filled in."""
    import flatbuffers

    builder = flatbuffers.Builder()
    operators = (resolver.OpKernelTypeStrArgs(i) for i in range(resolver.OpKernelTypeStrArgsLength()))
    entries = [_operator(fbs, builder, entry) for entry in sorted(operators, key=lambda entry: entry.OpId())]
    vector = _vector(builder, entries)
    fbs.KernelTypeStrResolver.Start(builder)
    fbs.KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, vector)
    table = fbs.KernelTypeStrResolver.End(builder)
    text = builder.CreateString(version)
    fbs.InferenceSession.Start(builder)
    fbs.InferenceSession.AddOrtVersion(builder, text)
    fbs.InferenceSession.AddKernelTypeStrResolver(builder, table)
    builder.PrependUint32Slot(1, 1, 0)  # the model, by an offset that leads out of what is built here
    builder.Finish(fbs.InferenceSession.End(builder), _IDENTIFIER)
    return bytearray(builder.Output())


def _operator(fbs: Any, builder: Any, entry: Any) -> int:
    constraints = (entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength()))
    offsets = [_constraint(fbs, builder, c) for c in sorted(constraints, key=lambda c: c.KernelTypeStr())]
    name, vector = builder.CreateString(entry.OpId()), _vector(builder, offsets)
    fbs.OpIdKernelTypeStrArgsEntry.Start(builder)
    fbs.OpIdKernelTypeStrArgsEntry.AddOpId(builder, name)
    fbs.OpIdKernelTypeStrArgsEntry.AddKernelTypeStrArgs(builder, vector)
    return int(fbs.OpIdKernelTypeStrArgsEntry.End(builder))


def _constraint(fbs: Any, builder: Any, entry: Any) -> int:
    offsets = []
    for argument in (entry.Args(i) for i in range(entry.ArgsLength())):
        fbs.ArgTypeAndIndex.Start(builder)
        fbs.ArgTypeAndIndex.AddArgType(builder, argument.ArgType())
        fbs.ArgTypeAndIndex.AddIndex(builder, argument.Index())
        offsets.append(fbs.ArgTypeAndIndex.End(builder))
    name, vector = builder.CreateString(entry.KernelTypeStr()), _vector(builder, offsets)
    fbs.KernelTypeStrArgsEntry.Start(builder)
    fbs.KernelTypeStrArgsEntry.AddKernelTypeStr(builder, name)
    fbs.KernelTypeStrArgsEntry.AddArgs(builder, vector)
    return int(fbs.KernelTypeStrArgsEntry.End(builder))


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _model_field(fbs: Any, head: bytearray) -> int:
    table = fbs.InferenceSession.InferenceSession.GetRootAs(head)._tab
    return int(table.Pos + table.Offset(_MODEL_SLOT))


def _signed(content: mmap.mmap, position: int) -> int:
    return int.from_bytes(content[position : position + 4], "little", signed=True)
