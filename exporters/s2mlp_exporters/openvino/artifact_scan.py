"""Scans OpenVINO's files before OpenVINO loads them: one graph of its own operators, with weights in ``model.bin``.

As formats/onnx_scan.py does for ONNX files.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting

HOLDING_GRAPHS = frozenset({"If", "Loop", "TensorIterator"})
KEEPING_STATE = frozenset({"Assign", "ReadValue"})

_BITS = {
    "f64": 64,
    "f32": 32,
    "f16": 16,
    "bf16": 16,
    "i64": 64,
    "i32": 32,
    "i16": 16,
    "i8": 8,
    "u64": 64,
    "u32": 32,
    "u16": 16,
    "u8": 8,
    "boolean": 8,
    "i4": 4,
    "u4": 4,
    "u1": 1,
}
"""What a value takes in the file, by its type."""

_DEEPEST = 32
"""Elements within elements; there are some seven."""


def inspect(xml: Path, weights: Path) -> None:
    """Refuse the model in ``xml`` and ``weights`` where it could do more than compute.

    Raises:
        BundleError: with the reason.
    """
    with inspecting(xml, OSError, ValueError, expat.ExpatError):
        _Reader(weights.stat().st_size).read(xml)


class _Reader:
    """Goes through the file once, and keeps nothing of it."""

    def __init__(self, weight_bytes: int) -> None:
        self._weight_bytes = weight_bytes
        self._depth = 0
        self._constant = False

    def read(self, path: Path) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        with path.open("rb") as file:
            parser.ParseFile(file)

    def _doctype(self, *_: Any) -> None:
        raise Unexpected("it has a document type, by which XML refers to other files")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unexpected("its elements are nested too deeply")
        if name == "layer":
            self._layer(attributes.get("type", ""), attributes.get("version", ""))
        elif name == "data" and self._constant:
            self._weights(attributes)

    def _end(self, name: str) -> None:
        self._depth -= 1

    def _layer(self, kind: str, version: str) -> None:
        if not re.fullmatch("opset[0-9]{1,3}", version):
            raise Unexpected(f"its operator {kind[:100]!r} of {version[:100]!r} is none of OpenVINO's own")
        if kind in HOLDING_GRAPHS | KEEPING_STATE:
            raise Unexpected(f"its operator {kind} holds a graph, or keeps something from run to run")
        self._constant = kind == "Const"

    def _weights(self, attributes: dict[str, str]) -> None:
        bits = _BITS.get(attributes.get("element_type", ""))
        shape = [int(n) for n in attributes.get("shape", "").split(",") if n.strip()]
        offset, size = int(attributes.get("offset", "-1")), int(attributes.get("size", "-1"))
        if bits is None or min([offset, size, *shape]) < 0 or size != -(-math.prod(shape) * bits // 8):
            raise Unexpected("it has weights of a type or a shape that no weights have")
        if offset + size > self._weight_bytes:
            raise Unexpected(f"it has weights beyond the end of {self._weight_bytes:,} bytes that there are")
