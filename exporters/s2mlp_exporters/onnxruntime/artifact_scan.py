"""Scans an ``.ort`` file before ONNX Runtime loads it: ONNX Runtime's own operators alone.

As formats/onnx_scan.py does for ONNX files. The file is a FlatBuffer; ONNX Runtime verifies its offsets by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting
from s2mlp_deploy.formats.onnx_scan import OPENING_FILES, OPTIMIZED, STANDARD
from s2mlp_exporters.onnxruntime.canonical import bindings

_GRAPH, _GRAPHS = 5, 10
"""The types of attributes that hold graphs (AttributeType in onnxruntime/core/flatbuffers/schema/ort.fbs)."""


IDENTIFIER = b"ORTM"


def inspect(path: Path, holders: frozenset[str]) -> None:
    """Refuse the file at ``path`` where it could do more than compute; the operators ``holders`` may hold graphs.

    Raises:
        BundleError: with the reason.
    """
    # Errors of Python's FlatBuffers on a file that is none.
    damage = (OSError, struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)
    with inspecting(path, *damage):
        content = path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise Unexpected("it is no .ort file")
        _check(bindings().InferenceSession.InferenceSession.GetRootAs(content).Model().Graph(), holders)


def _check(graph: Any, holders: frozenset[str]) -> None:
    if graph.SparseInitializersLength() or graph.RuntimeOptimizations() is not None:
        raise Unexpected("it has sparse weights, or graphs to choose from")
    for node in _each(graph.Nodes, graph.NodesLength()):
        domain, operator = ((text or b"").decode() for text in (node.Domain(), node.OpType()))
        if domain not in OPTIMIZED or operator in OPENING_FILES:
            raise Unexpected(f"its operator {operator[:100]!r} of {domain[:100]!r} is none of ONNX Runtime's own")
        for attribute in _each(node.Attributes, node.AttributesLength()):
            held = attribute.Type() in (_GRAPH, _GRAPHS) or attribute.G() is not None or attribute.GraphsLength()
            if held and operator in holders and domain in STANDARD and not attribute.GraphsLength():
                _check(attribute.G(), holders)
            elif held:
                raise Unexpected(f"its operator {operator[:100]!r} holds a graph")


def _each(items: Any, count: int) -> Iterator[Any]:
    return (items(i) for i in range(count))
