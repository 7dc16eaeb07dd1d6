"""Emit the mean over positions before the classifier, as exact as PyTorch's for maps of any size.

ReduceMean of ONNX Runtime and of OpenVINO adds one value after another. On a constant map of 32 by 32 positions the
result is 6.5e-6 off, on one of 1,024 by 1,024 7e-3; PyTorch, which adds in a cascade, stays below 6e-7. So positions
are averaged in groups of at most :data:`TERMS`, then the groups' means in groups, until one is left. The means of
groups of one size are no larger than what they average, so that float16 does not overflow.

A Reshape stands between two averages: OpenVINO merges operators that reduce one after another into one, which adds all
at once.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift import FeatureMap

TERMS = 16
"""How many values are added one after another: 1e-7 off at most, on a map that is constant."""


def emit_mean(out: GraphBuilder, tokens: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    """Tokens (batch · height · width, channels) averaged over positions: (batch, channels), called ``name``."""
    if fmap.size is None:
        return _emit_of_any_size(out, tokens, fmap, name)
    positions = fmap.size[0] * fmap.size[1]
    padded = next(n for n in count(positions) if _is_smooth(n))
    sizes = groups(padded)
    if padded == positions:
        return _emit_cascade(out, tokens, sizes, fmap.channels, name, last=name)
    # No groups of one size make up a number with a large prime factor. Zeros are added, and left out of the count.
    x = out.op("Reshape", [tokens, _shape(out, name, -1, positions, fmap.channels)], f"{name}/positions")
    missing = out.integers(f"{name}/missing", 0, 0, 0, 0, padded - positions, 0)
    x = out.op("Pad", [x, missing], f"{name}/pad")
    x = _emit_cascade(out, x, sizes, fmap.channels, name, last=f"{name}/padded")
    return out.op("Mul", [x, out.constant(f"{name}/share", np.array(padded / positions, np.float32))], name)


def groups(positions: int) -> tuple[int, ...]:
    """Group sizes of at most :data:`TERMS`, as few and as equal as can be, whose product is ``positions``.

    Raises:
        ValueError: where a prime factor of ``positions`` is larger.
    """
    for length in range(1, positions.bit_length() + 1):
        if found := _factors(positions, length):
            return found
    raise ValueError(f"{positions} has a prime factor beyond {TERMS}")


def _is_smooth(number: int) -> bool:
    """Whether no prime factor of ``number`` is beyond TERMS."""
    for factor in range(2, TERMS + 1):
        while number % factor == 0:
            number //= factor
    return number == 1


def _factors(number: int, length: int) -> tuple[int, ...] | None:
    """``length`` factors of ``number``, none beyond TERMS, with the smallest spread."""
    if length == 1:
        return (number,) if number <= TERMS else None
    found = [
        (factor, *rest)
        for factor in range(2, TERMS + 1)
        if number % factor == 0 and number // factor <= TERMS ** (length - 1)
        if (rest := _factors(number // factor, length - 1))
    ]
    return min(found, key=lambda sizes: max(sizes) - min(sizes), default=None)


def _emit_cascade(
    out: GraphBuilder, tokens: ir.Value, sizes: tuple[int, ...], channels: int, name: str, *, last: str
) -> ir.Value:
    """Average groups of ``sizes``, one after the other; the last value is called ``last``."""
    x = tokens
    for i, size in enumerate(sizes):
        x = out.op("Reshape", [x, _shape(out, name, -1, size, channels)], f"{name}/groups{i}")
        x = _average(out, x, 1, last if i == len(sizes) - 1 else f"{name}/means{i}")
    return x


def _emit_of_any_size(out: GraphBuilder, tokens: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    """Height and width are padded with zeros to multiples of TERMS, whose share is divided out at the end.

    Positions that lie TERMS apart are averaged first, since only their number is unknown: the rest then has a known
    shape. A side of 1,024 adds 64 values one after another, which is 1.2e-6 off at most.
    """
    n, c = TERMS, fmap.channels
    size = out.op(
        "Slice",
        [fmap.shape, out.integers("axis1", 1), out.integers("axis3", 3)],
        f"{name}/size",
    )
    missing = out.op(
        "Mod",
        [out.op("Neg", [size], f"{name}/negative"), out.constant(f"{name}/terms", np.array(n))],
        f"{name}/missing",
    )
    x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
    x = _pad(out, x, missing, before=5, after=1, name=name)
    x = out.op("Reshape", [x, _shape(out, name, 0, 0, -1, n, c)], f"{name}/columns")
    x = _average(out, x, 2, f"{name}/of_columns")
    x = out.op("Reshape", [x, _shape(out, name, 0, -1, n, n, c)], f"{name}/rows")
    x = _average(out, x, 1, f"{name}/of_rows")
    x = _emit_cascade(out, x, (n, n), c, name, last=f"{name}/padded")
    ones = out.op("Expand", [out.constant(f"{name}/one", np.ones((1, 1), np.float32)), size], f"{name}/ones")
    covered = out.op(
        "ReduceMean", [_pad(out, ones, missing, before=2, after=0, name=f"{name}/covered")], f"{name}/share", keepdims=0
    )
    return out.op("Div", [x, covered], name)


def _pad(out: GraphBuilder, x: ir.Value, missing: ir.Value, *, before: int, after: int, name: str) -> ir.Value:
    """Pad ``x`` with ``missing`` zeros (two numbers) behind height and width; ``before``, ``after``: other axes."""
    zeros = [out.constant(f"zeros{count}", np.zeros(count, np.int64)) for count in (before, after) if count]
    pads = out.op("Concat", [zeros[0], missing, *zeros[1:]], f"{name}/pads", axis=0)
    return out.op("Pad", [x, pads], f"{name}/pad")


def _average(out: GraphBuilder, x: ir.Value, axis: int, name: str) -> ir.Value:
    return out.op("ReduceMean", [x, out.integers(f"axis{axis}", axis)], name, keepdims=0)


def _shape(out: GraphBuilder, name: str, *sizes: int) -> ir.Value:
    return out.integers(f"{name}/{'x'.join('any' if n == -1 else str(n) for n in sizes)}", *sizes)
