"""Emit the mean over positions, or the sum, as exact as PyTorch's for maps of any size.

ReduceMean of ONNX Runtime and of OpenVINO adds one value after another. On a constant map of 32 by 32 positions the
result is 6.5e-6 off, on one of 1,024 by 1,024 7e-3; PyTorch, which adds in a cascade, stays below 6e-7. So positions
are averaged in groups of at most :data:`TERMS`, then the groups' means in groups, until one is left. The means of
groups of one size are no larger than what they average, so that float16 does not overflow.

A Reshape stands between two averages: OpenVINO merges operators that reduce one after another into one, which adds all
at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift import FeatureMap

TERMS = 16
"""How many values are added one after another: 1e-7 off at most, on a map that is constant."""


def emit_mean(out: GraphBuilder, tokens: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    """Tokens (batch · height · width, channels) averaged over positions: (batch, channels), called ``name``."""
    mean = _Reduction(out, fmap.channels, name, name, "ReduceMean")
    if fmap.size is None:
        x, size, missing = mean.of_any_size(tokens, fmap, f"{name}/padded")
        return out.op("Div", [x, mean.share(size, missing)], name)
    positions = fmap.size[0] * fmap.size[1]
    padded = padded_count(positions)
    if padded == positions:
        return mean.of(tokens, positions, name)
    x = mean.of(tokens, positions, f"{name}/padded")
    return out.op("Mul", [x, out.constant(f"{name}/share", np.array(padded / positions, np.float32))], name)


def emit_sum(out: GraphBuilder, tokens: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    """Tokens (batch · height · width, channels) added up over positions: (batch, channels), called ``name``.

    Constants belong to the map, since every block of a stage adds up one like it.
    """
    total = _Reduction(out, fmap.channels, name, f"{fmap.name}/sum", "ReduceSum")
    if fmap.size is None:
        return total.of_any_size(tokens, fmap, name)[0]
    return total.of(tokens, fmap.size[0] * fmap.size[1], name)


def padded_count(positions: int) -> int:
    """The smallest count from ``positions`` on that groups of at most :data:`TERMS` make up."""
    return next(n for n in count(positions) if _is_smooth(n))


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


@dataclass(frozen=True)
class _Reduction:
    """A cascade of reductions by ``operator``: nodes are called ``name``/…, constants ``constants``/…"""

    out: GraphBuilder
    channels: int
    name: str
    constants: str
    operator: str

    def of(self, tokens: ir.Value, positions: int, last: str) -> ir.Value:
        """Tokens reduced over ``positions``; the last value is called ``last``.

        No groups of one size make up a number with a large prime factor: zeros are added then, which a mean must leave
        out of its count.
        """
        padded = padded_count(positions)
        if padded != positions:
            name = self.name
            tokens = self._reshape(tokens, f"{name}/positions", -1, positions, self.channels)
            missing = self.out.integers(f"{self.constants}/missing", 0, 0, 0, 0, padded - positions, 0)
            tokens = self.out.op("Pad", [tokens, missing], f"{name}/pad")
        return self._cascade(tokens, groups(padded), last)

    def _cascade(self, x: ir.Value, sizes: tuple[int, ...], last: str) -> ir.Value:
        """Reduce groups of ``sizes``, one after the other; the last value is called ``last``."""
        for i, size in enumerate(sizes):
            x = self._reshape(x, f"{self.name}/groups{i}", -1, size, self.channels)
            x = self._reduce(x, 1, last if i == len(sizes) - 1 else f"{self.name}/means{i}")
        return x

    def of_any_size(self, tokens: ir.Value, fmap: FeatureMap, last: str) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Tokens reduced over positions, called ``last``; the map's size, and how many zeros were added to each side.

        Height and width are padded with zeros to multiples of TERMS, whose share a mean must divide out. Positions that
        lie TERMS apart are reduced first, since only their number is unknown: the rest then has a known shape. A side of
        1,024 adds 64 values one after another, which is 1.2e-6 off at most.
        """
        n, c, out, name = TERMS, self.channels, self.out, self.name
        size = out.op("Slice", [fmap.shape, out.integers("axis1", 1), out.integers("axis3", 3)], f"{name}/size")
        missing = out.op(
            "Mod",
            [
                out.op("Neg", [size], f"{name}/negative"),
                out.constant(f"{self.constants}/terms", np.array(n)),
            ],
            f"{name}/missing",
        )
        x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
        x = _pad(out, x, missing, before=5, after=1, name=name)
        x = self._reduce(self._reshape(x, f"{name}/columns", 0, 0, -1, n, c), 2, f"{name}/of_columns")
        x = self._reduce(self._reshape(x, f"{name}/rows", 0, -1, n, n, c), 1, f"{name}/of_rows")
        return self._cascade(x, (n, n), last), size, missing

    def share(self, size: ir.Value, missing: ir.Value) -> ir.Value:
        """The share of a map of ``size`` that is not padding."""
        out, name = self.out, self.name
        one = out.constant(f"{self.constants}/one", np.ones((1, 1), np.float32))
        ones = out.op("Expand", [one, size], f"{name}/ones")
        covered = _pad(out, ones, missing, before=2, after=0, name=f"{name}/covered")
        return out.op("ReduceMean", [covered], f"{name}/share", keepdims=0)

    def _reshape(self, x: ir.Value, name: str, *sizes: int) -> ir.Value:
        shape = "x".join("any" if n == -1 else str(n) for n in sizes)
        return self.out.op("Reshape", [x, self.out.integers(f"{self.constants}/{shape}", *sizes)], name)

    def _reduce(self, x: ir.Value, axis: int, name: str) -> ir.Value:
        return self.out.op(self.operator, [x, self.out.integers(f"axis{axis}", axis)], name, keepdims=0)


def _pad(out: GraphBuilder, x: ir.Value, missing: ir.Value, *, before: int, after: int, name: str) -> ir.Value:
    """Pad ``x`` with ``missing`` zeros (two numbers) behind height and width; ``before``, ``after``: other axes."""
    zeros = [out.constant(f"zeros{count}", np.zeros(count, np.int64)) for count in (before, after) if count]
    pads = out.op("Concat", [zeros[0], missing, *zeros[1:]], f"{name}/pads", axis=0)
    return out.op("Pad", [x, pads], f"{name}/pad")
