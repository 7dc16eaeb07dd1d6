"""Express Pillow's resize and crop as ONNX operators, exact to the byte.

ONNX has Resize, but its filter width follows from the whole axis, not from a box between pixels, and runtimes round
differently. Here each axis is a matrix of Pillow's own fixed-point weights, written by the graph for the image's size,
and a product of bytes with bytes (MatMulInteger): the weights' three bytes one after another, added up in double, so
that nothing is lost, and rounded where Pillow rounds. docs/preprocessing.md has the formulas (step 4 and 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, pi

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import Size

NAME = "prepare"
"""The prefix of all names of nodes and constants here."""

_PRECISION = 2**22
_OFFSET = 2**23
"""Added to weights, so that their bytes are unsigned; the upper byte's zero point takes it off again."""

_DOUBLE, _FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


class _Pen:
    """Arithmetic on doubles: names count up, and numbers become constants."""

    def __init__(self, out: GraphBuilder) -> None:
        self.out = out
        self._count = 0

    def number(self, value: float) -> ir.Value:
        return self.out.constant(f"{NAME}/number_{float(value)!r}", np.array(value, np.float64))

    def __call__(self, op: str, *inputs: ir.Value | float, **attributes: object) -> ir.Value:
        values = [self.number(x) if isinstance(x, (int, float)) else x for x in inputs]
        self._count += 1
        return self.out.op(op, values, f"{NAME}/{op.lower()}{self._count}", **attributes)

    def double(self, x: ir.Value) -> ir.Value:
        return self("Cast", x, to=_DOUBLE)


@dataclass(frozen=True)
class _Axis:
    """One axis of the plan: values are scalars. ``start`` is the box's edge, ``scale`` source pixels a result's pixel,
    ``corner`` the first pixel that is kept of ``length``."""

    extent: ir.Value
    start: ir.Value
    scale: ir.Value
    corner: ir.Value
    length: int


def emit_fit(out: GraphBuilder, image: ir.Value, preprocessing: Preprocessing, size: Size) -> ir.Value:
    """Resize and crop ``image`` uint8 (1, any height, any width, channels) to uint8 (1, channels, height, width)."""
    pen = _Pen(out)
    shape = pen("Shape", image)
    extents = [out.constant(f"{NAME}/axis{axis}", np.array(axis)) for axis in (1, 2)]
    h, w = (pen("Gather", shape, axis, axis=0) for axis in extents)
    down, across = _axes(pen, pen.double(h), pen.double(w), preprocessing, size)
    planes = pen("Transpose", image, perm=[0, 3, 1, 2])
    planes = _rounded(
        pen, [pen("MatMulInteger", planes, b, *zero) for b, *zero in _weights(pen, across, w, preprocessing, 0)]
    )
    return _rounded(
        pen, [pen("MatMulInteger", a, planes, *zero) for a, *zero in _weights(pen, down, h, preprocessing, 1)]
    )


def _axes(pen: _Pen, h: ir.Value, w: ir.Value, preprocessing: Preprocessing, size: Size) -> tuple[_Axis, _Axis]:
    """preprocessing.plan, in the graph."""
    (height, width), fraction = size, preprocessing.crop_fraction
    if preprocessing.resize == "shorter-then-crop":
        least_h, least_w = floor(height / fraction), floor(width / fraction)
        wider = pen("Greater", pen("Mul", w, least_h), pen("Mul", h, least_w))
        scaled_h = pen("Where", wider, least_h, pen("Floor", pen("Div", pen("Mul", h, least_w), w)))
        scaled_w = pen("Where", wider, pen("Floor", pen("Div", pen("Mul", w, least_h), h)), least_w)
        return tuple(
            _Axis(
                extent,
                pen.number(0),
                pen("Div", extent, scaled),
                pen("Round", pen("Div", pen("Sub", scaled, kept), 2)),
                kept,
            )
            for extent, scaled, kept in ((h, scaled_h, height), (w, scaled_w, width))
        )  # type: ignore[return-value]
    box_h, box_w = h, w
    if preprocessing.resize == "shorter":
        wider = pen("GreaterOrEqual", pen("Div", w, h), width / height)
        box_w = pen("Where", wider, pen("Mul", h, width / height), w)
        box_h = pen("Where", wider, h, pen("Div", w, width / height))
    return _boxed(pen, h, box_h, fraction, height), _boxed(pen, w, box_w, fraction, width)


def _boxed(pen: _Pen, extent: ir.Value, box: ir.Value, fraction: float, length: int) -> _Axis:
    box = pen("Mul", box, fraction)
    first = pen("Mul", pen("Sub", extent, box), 0.5)
    # Pillow keeps the edges of a box, and their difference, in single precision.
    edges = [pen("Cast", edge, to=_FLOAT) for edge in (first, pen("Add", first, box))]
    scale = pen("Div", pen.double(pen("Sub", edges[1], edges[0])), length)
    return _Axis(extent, pen.double(edges[0]), scale, pen.number(0), length)


def _weights(
    pen: _Pen, axis: _Axis, count: ir.Value, preprocessing: Preprocessing, along: int
) -> list[tuple[ir.Value, ...]]:
    """The weights' upper, middle and lower bytes, the first with its zero point.

    (source, result) for ``along`` 0, to stand on the right of a product; (result, source) for 1.
    """
    radius, kernel = _FILTERS[preprocessing.interpolation]
    results = np.arange(axis.length) + 0.5
    turned = [1, -1] if along == 0 else [-1, 1]
    place = pen.out.constant(f"{NAME}/results{along}", results.reshape(turned))
    begin, step = (pen.out.constant(f"{NAME}/index{i}", np.array(i)) for i in (0, 1))
    across = pen.out.constant(f"{NAME}/sources{along}", np.array(turned[::-1]))
    pixels = pen.double(pen("Reshape", pen("Range", begin, count, step), across))
    center = pen("Add", pen("Mul", pen("Add", place, axis.corner), axis.scale), axis.start)
    widen = pen("Max", axis.scale, 1)
    support = pen("Mul", widen, radius)
    first = pen("Floor", pen("Add", pen("Sub", center, support), 0.5))  # below zero there are no pixels
    last = pen("Floor", pen("Add", pen("Add", center, support), 0.5))
    distance = pen("Mul", pen("Add", pen("Sub", pixels, center), 0.5), pen("Div", 1, widen))
    inside = pen("And", pen("GreaterOrEqual", pixels, first), pen("Less", pixels, last))
    k = pen("Where", inside, kernel(pen, distance), 0)
    k = pen("Div", k, pen("ReduceSum", k, pen.out.constant(f"{NAME}/axis_of_sources{along}", np.array([along]))))
    k = pen("Mul", pen("Sign", k), pen("Floor", pen("Add", pen("Mul", pen("Abs", k), _PRECISION), 0.5)))
    k = pen("Add", k, _OFFSET)
    upper = pen("Floor", pen("Div", k, 65536))
    rest = pen("Sub", k, pen("Mul", upper, 65536))
    middle = pen("Floor", pen("Div", rest, 256))
    lower = pen("Sub", rest, pen("Mul", middle, 256))
    bytes_ = [pen("Cast", part, to=ir.DataType.UINT8) for part in (upper, middle, lower)]
    # An operand's zero point comes after both operands, the left one's first.
    zero = [pen.out.constant(f"{NAME}/zero", np.array(0, np.uint8))] if along == 0 else []
    half = pen.out.constant(f"{NAME}/half", np.array(_OFFSET >> 16, np.uint8))
    return [(bytes_[0], *zero, half), (bytes_[1],), (bytes_[2],)]


def _rounded(pen: _Pen, products: list[ir.Value]) -> ir.Value:
    """Products with the three bytes, put together and rounded to bytes."""
    upper, middle, lower = (pen.double(x) for x in products)
    total = pen("Add", pen("Add", pen("Mul", upper, 65536), pen("Mul", middle, 256)), lower)
    value = pen("Floor", pen("Mul", pen("Add", total, _PRECISION / 2), 1 / _PRECISION))
    return pen("Cast", pen("Clip", value, 0, 255), to=ir.DataType.UINT8)


def _bilinear(pen: _Pen, x: ir.Value) -> ir.Value:
    return pen("Max", pen("Sub", 1, pen("Abs", x)), 0)


def _bicubic(pen: _Pen, x: ir.Value) -> ir.Value:
    t = pen("Abs", x)
    near = pen("Add", pen("Mul", pen("Mul", pen("Sub", pen("Mul", t, 1.5), 2.5), t), t), 1)
    far = pen("Add", pen("Mul", pen("Sub", t, 5), t), 8)
    far = pen("Mul", pen("Sub", pen("Mul", far, t), 4), -0.5)
    return pen("Where", pen("Less", t, 1), near, pen("Where", pen("Less", t, 2), far, 0))


def _sinc(pen: _Pen, x: ir.Value) -> ir.Value:
    turned = pen("Mul", x, pi)
    zero = pen("Equal", turned, 0)
    return pen("Where", zero, 1, pen("Div", pen("Sin", turned), pen("Where", zero, 1, turned)))


def _lanczos(pen: _Pen, x: ir.Value) -> ir.Value:
    inside = pen("And", pen("GreaterOrEqual", x, -3), pen("Less", x, 3))
    return pen("Where", inside, pen("Mul", _sinc(pen, x), _sinc(pen, pen("Div", x, 3))), 0)


_FILTERS: dict[str, tuple[float, Callable[[_Pen, ir.Value], ir.Value]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
"""Radius and weight of those filters that are written here. ``box`` jumps at its edge, where the last bit of a double
decides, and ``nearest`` is no filter."""

FILTERS = tuple(_FILTERS)
