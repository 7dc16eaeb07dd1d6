"""Recompute a package's program in float64, where Core ML is not: each operator as MIL defines it, in NumPy.

The program and the weights are those in the package's files, not those that were to be written. It shows whether the package
computes what it should; how well a device computes it, the device alone can show. Results of type float16 are rounded to that,
so that values which it cannot hold are seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.coreml.program import Operation, Program

Given: TypeAlias = Mapping[str, Any]
"""The arguments of an operator by name; arrays are float64 where they hold numbers of a network."""


class RecomputedSession:
    """``program``, computed here; the type of its output is what the program declares."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._last_use = {name: i for i, operation in enumerate(program.operations) for name in _names(operation)} | {
            entry.name: len(program.operations) for entry in program.outputs
        }

    def run(self, images: Array) -> Array:
        """The first output for ``images``, as an app gives them: an image as bytes (1, height, width, channels), else as they are prepared."""
        (source,), program = self._program.inputs, self._program
        given = images.transpose(0, 3, 1, 2) if program.image else images
        values: dict[str, Array] = {source.name: given.astype(np.float64)}
        for i, operation in enumerate(program.operations):
            arguments = {key: self._argument(value, values) for key, value in operation.arguments.items()}
            try:
                made = OPERATORS[operation.kind](arguments)
            except (ValueError, IndexError, KeyError, TypeError) as error:
                raise BundleError(
                    f"the Core ML program cannot be computed: {operation.output} ({operation.kind}): {error}"
                ) from error
            values[operation.output] = (
                made.astype(np.float16).astype(np.float64) if operation.dtype == "float16" else made
            )
            for name in _names(operation):
                if self._last_use[name] == i:
                    values.pop(name, None)
        first = program.outputs[0]
        return values[first.name].astype(first.dtype)

    def describe(self) -> Description:
        """Inputs, outputs and metadata, as they stand in the package."""
        return Description(self._program.inputs, self._program.outputs, self._program.metadata)

    def _argument(self, value: Any, values: Mapping[str, Array]) -> Any:
        if isinstance(value, tuple):
            return [self._argument(name, values) for name in value]
        if isinstance(value, str):
            return values[value]
        if value.dtype.kind == "U":
            return str(value)
        return value.astype(np.float64) if value.dtype.kind == "f" else value


def _names(operation: Operation) -> list[str]:
    """The values that ``operation`` reads."""
    found = []
    for value in operation.arguments.values():
        found += [value] if isinstance(value, str) else [*value] if isinstance(value, tuple) else []
    return found


def _erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), np.float64)


def _gelu(given: Given) -> Any:
    x = given["x"]
    if given["mode"] == "EXACT":
        return x / 2 * (1 + _erf(x / math.sqrt(2)))
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _layer_norm(given: Given) -> Any:
    x, axes = given["x"], tuple(given["axes"])
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + given["epsilon"])
    return y * given.get("gamma", 1.0) + given.get("beta", 0.0)


def _linear(given: Given) -> Any:
    return given["x"] @ given["weight"].T + given.get("bias", 0.0)


def _matmul(given: Given) -> Any:
    x, y = (given[n].swapaxes(-1, -2) if given.get(f"transpose_{n}", False) else given[n] for n in ("x", "y"))
    return x @ y


def _conv(given: Given) -> Any:
    """Products of windows with the kernel, group by group."""
    x, weight = given["x"], given["weight"]
    if given["pad_type"] != "custom" or (given["dilations"] != 1).any():
        raise ValueError("it pads by itself, or has dilations")
    top, bottom, left, right = given["pad"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: given["strides"][0], :: given["strides"][1]]  # (batch, in, height, width, kh, kw)
    groups = int(given["groups"])
    parts = zip(np.split(windows, groups, axis=1), np.split(weight, groups), strict=True)
    made = [np.tensordot(part, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) for part, kernel in parts]
    bias: Any = given.get("bias", np.zeros(1))
    return np.concatenate(made, axis=1) + bias[:, None, None]


def _slice(given: Given) -> Any:
    x = given["x"]
    for name, plain in (("stride", 1), ("squeeze_mask", 0)):
        if np.any(given.get(name, plain) != plain):
            raise ValueError("it skips values, or removes axes")
    spans = zip(given["begin"], given["end"], given["begin_mask"], given["end_mask"], strict=True)
    return x[tuple(slice(None if b else int(i), None if e else int(j)) for i, j, b, e in spans)]


def _pad(given: Given) -> Any:
    if given["mode"] != "constant":
        raise ValueError(f"its mode is {given['mode']}")
    return np.pad(given["x"], given["pad"].reshape(-1, 2), constant_values=given["constant_val"])


def _dequantize(given: Given) -> Any:
    """(q − zero point) · scale, which lies along ``axis``."""
    shape = [1] * given["quantized_data"].ndim
    shape[int(given["axis"])] = -1
    scale, zero = (np.asarray(given[name], np.float64) for name in ("scale", "zero_point"))
    return (given["quantized_data"] - zero.reshape(shape if zero.ndim else ())) * scale.reshape(
        shape if scale.ndim else ()
    )


def _softmax(given: Given) -> Any:
    x, axis = given["x"], int(given["axis"])
    power = np.exp(x - x.max(axis=axis, keepdims=True))
    return power / power.sum(axis=axis, keepdims=True)


def _concat(given: Given) -> Any:
    if np.any(given.get("interleave", False)):
        raise ValueError("it interleaves")
    return np.concatenate(given["values"], axis=int(given["axis"]))


def _gather(given: Given) -> Any:
    if np.any(given.get("batch_dims", 0)):
        raise ValueError("it gathers by batch")
    return np.take(given["x"], given["indices"], axis=int(given["axis"]))


def _unchanged(given: Given) -> Any:
    """A cast: float64 holds every value, and the type of the result rounds it."""
    return given.get("x", given.get("source_val"))


OPERATORS: Mapping[str, Callable[[Given], Any]] = {
    "add": lambda given: given["x"] + given["y"],
    "cast": _unchanged,
    "concat": _concat,
    "constexpr_affine_dequantize": _dequantize,
    "constexpr_cast": _unchanged,
    "conv": _conv,
    "gather": _gather,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "mul": lambda given: given["x"] * given["y"],
    "pad": _pad,
    "real_div": lambda given: given["x"] / given["y"],
    "reduce_mean": lambda given: given["x"].mean(axis=tuple(given["axes"]), keepdims=bool(given["keep_dims"])),
    "reduce_sum": lambda given: given["x"].sum(axis=tuple(given["axes"]), keepdims=bool(given["keep_dims"])),
    "reshape": lambda given: given["x"].reshape(
        [n or given["x"].shape[i] for i, n in enumerate(given["shape"].tolist())]
    ),
    "sigmoid": lambda given: 1 / (1 + np.exp(-given["x"])),
    "slice_by_index": _slice,
    "softmax": _softmax,
    "sub": lambda given: given["x"] - given["y"],
    "transpose": lambda given: given["x"].transpose(given["perm"]),
}
