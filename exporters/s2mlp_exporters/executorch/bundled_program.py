"""Write ``model.bpte``: a program and the bundle's golden tensors in one file, with which runners on a device test themselves.

ExecuTorch calls that a BundledProgram. A runner that is built with BundleIO, as executor_runner may be, gives the program the
inputs of a test case and compares its outputs with the expected ones: |output − expected| ≤ atol + rtol · |expected|.

Source: devtools/bundled_program/schema/bundled_program_schema.fbs in ExecuTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.graph.probabilities import probabilities
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.executorch.lower import FORWARD
from s2mlp_exporters.executorch.settings import Output

FILE = "model.bpte"

_IDENTIFIER = b"BP08"
_TENSOR = 1
"""The union's member for a tensor among a test case's values."""

_PROGRAM_ALIGNMENT, _DATA_ALIGNMENT = 32, 16

_SCALAR_TYPES = {"uint8": 0, "float32": 6}
"""As ExecuTorch numbers the types of elements."""


@dataclass(frozen=True)
class TestCase:
    """One run of a program: its input, and the output that the reference gives for it."""

    __test__ = False  # pytest takes classes of such a name for tests

    input: Array
    expected: Array


def test_cases(golden: Golden, output: Output, *, batch: int | None, largest: int) -> list[TestCase]:
    """The samples of ``golden`` in batches of ``batch``, filled up with the last one, or of up to ``largest`` where the batch is free.

    Images stand first, else noise: runners may run the first test case alone.
    """
    first = "images" if "images" in golden.inputs else golden.traced
    size = batch or largest
    cases = []
    for name in (first, *(name for name in golden.inputs if name != first)):
        images, expected = golden.inputs[name], golden.logits[name]
        if output == "probabilities":
            expected = probabilities(expected.astype(np.float64))
        for start in range(0, len(images), size):
            rows = np.arange(start, start + size if batch else min(start + size, len(images)))
            rows = rows.clip(max=len(images) - 1)
            cases.append(TestCase(images[rows], expected[rows].astype(np.float32)))
    return cases


def absolute_tolerance(golden: Golden, relative_l2: float) -> float:
    """The ``atol`` with which a runner passes each program that keeps ``relative_l2`` in the gate, at an ``rtol`` of 0.

    No number is further away than its row, and no probability further than the logits.
    """
    norm = max(float(np.linalg.norm(logits, axis=1).max()) for logits in golden.logits.values())
    return float(f"{relative_l2 * norm:.2g}")


def bundled(program: Array, cases: Sequence[TestCase]) -> memoryview:
    """The content of :data:`FILE` for the bytes ``program`` (size,) of ``model.pte``."""
    import flatbuffers

    room = sum(case.input.nbytes + case.expected.nbytes + 1024 for case in cases)
    builder = flatbuffers.Builder(program.size + room)
    body = _bytes(builder, program, _PROGRAM_ALIGNMENT)
    values = [[_offsets(builder, [_value(builder, x)]) for x in (case.input, case.expected)] for case in cases]
    runs = _offsets(builder, [_table(builder, *pair) for pair in values])
    suites = _offsets(builder, [_table(builder, builder.CreateString(FORWARD), runs)])
    builder.StartObject(3)  # the first field is the schema's version, which is 0
    builder.PrependUOffsetTRelativeSlot(1, suites, 0)
    builder.PrependUOffsetTRelativeSlot(2, body, 0)
    builder.Finish(builder.EndObject(), _IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def _value(builder: Any, array: Array) -> int:
    """A tensor among a test case's values."""
    sizes = builder.CreateNumpyVector(np.array(array.shape, np.int32))
    data = _bytes(builder, np.ascontiguousarray(array).reshape(-1).view(np.uint8), _DATA_ALIGNMENT)
    order = builder.CreateNumpyVector(np.arange(array.ndim, dtype=np.uint8))
    builder.StartObject(4)
    builder.PrependInt8Slot(0, _SCALAR_TYPES[array.dtype.name], 0)
    for slot, place in enumerate((sizes, data, order), start=1):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    tensor = builder.EndObject()
    builder.StartObject(2)
    builder.PrependUint8Slot(0, _TENSOR, 0)
    builder.PrependUOffsetTRelativeSlot(1, tensor, 0)
    return int(builder.EndObject())


def _bytes(builder: Any, content: Array, alignment: int) -> int:
    builder.Prep(alignment, content.size)
    return int(builder.CreateNumpyVector(content))


def _offsets(builder: Any, places: Sequence[int]) -> int:
    """A list of what lies at ``places``."""
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _table(builder: Any, *places: int) -> int:
    """A table whose fields lie at ``places``."""
    builder.StartObject(len(places))
    for slot, place in enumerate(places):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    return int(builder.EndObject())
