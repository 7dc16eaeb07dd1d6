"""Make the tensors that a pickle of torch.save describes: views of stored values, after checking sizes and strides."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2mlp_deploy.checkpoint.torch_format import training_objects
from s2mlp_deploy.checkpoint.torch_format.unpickler import Function, Malformed, Opaque

MOST_PICKLED = 64 << 20
"""Bytes of a pickle: a thousand times what checkpoints have."""


@dataclass(frozen=True)
class Foreign:
    """A tensor that has no plain values: a quantized or a sparse one, or one of the meta device."""

    kind: str
    shape: tuple[int, ...]


class Values:
    """The bytes of the file at ``path``, mapped when the first of them is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._mapped: Any = None

    def at(self, start: int, length: int, dtype: torch.dtype) -> torch.UntypedStorage:
        if start + length > self._size:
            raise Malformed("the values of a tensor are cut short")
        if self._mapped is None:
            with self._path.open("rb") as file:  # torch.UntypedStorage.from_file takes no path that is not text
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._mapped = torch.frombuffer(mapped, dtype=torch.uint8).untyped_storage()
        storage: torch.UntypedStorage = self._mapped[start : start + length]
        # Compiled loops count on whole multiples of a number's size.
        return storage.clone() if start % dtype.itemsize else storage  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class StorageKind:
    """A class of storages."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Typed:
    """The values that tensors are views of; None as long as their place is not known."""

    storage: torch.UntypedStorage | None
    dtype: torch.dtype


def storage_of(saved: Any, length: int) -> tuple[StorageKind, str, int]:
    """(kind, key, number of values) of the persistent id ``saved``."""
    if not isinstance(saved, tuple) or len(saved) != length or saved[0] != "storage":
        raise Malformed("it refers to something that is no tensor")
    kind, key, _, numel, *view = saved[1:]
    if not isinstance(kind, StorageKind) or not isinstance(key, str) or view not in ([], [None]):
        raise Malformed("it refers to values of a tensor in a way that torch.save does not")
    (numel,) = _extents((numel,))
    return kind, key, numel


def _extents(values: Any) -> tuple[int, ...]:
    """``values``, if they can be sizes or strides."""
    if not isinstance(values, tuple) or len(values) > 64 or not all(type(v) is int and 0 <= v < 2**63 for v in values):
        raise Malformed("a tensor has impossible sizes or strides")
    return values


def _tensor(values: Any, offset: Any, size: Any, stride: Any) -> Tensor | Opaque:
    if not isinstance(values, Typed):
        raise Malformed("a tensor has no values")
    return _view(values, values.dtype, offset, size, stride)


def _tensor_v2(
    values: Any, offset: Any, size: Any, stride: Any, grad: Any = 0, hooks: Any = 0, flags: Any = None
) -> Any:
    tensor = _tensor(values, offset, size, stride)
    negated = isinstance(flags, dict) and flags.get("neg") is True
    return torch._neg_view(tensor) if negated and isinstance(tensor, Tensor) else tensor


def _tensor_v3(
    values: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, flags: Any = None
) -> Any:
    if not isinstance(values, Typed) or not isinstance(dtype, torch.dtype):
        raise Malformed("a tensor has no values")
    return _view(values, dtype, offset, size, stride)


def _view(values: Typed, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> Tensor | Opaque:
    (offset,), size, stride = _extents((offset,)), _extents(size), _extents(stride)
    if values.storage is None:
        return Opaque()
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=False)) if all(size) else offset - 1
    if len(size) != len(stride) or math.prod(size) >= 2**63 or (last + 1) * dtype.itemsize > values.storage.nbytes():
        raise Malformed("a tensor claims values beyond those that it has")
    return torch.empty(0, dtype=dtype).set_(values.storage, offset, size, stride)


def _of_subclass(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, which are not read."""
    if not isinstance(function, Function) or not isinstance(arguments, tuple):
        raise Malformed("a tensor is made in a way that torch.save does not")
    return function.meaning(*arguments)


def _quantized(values: Any, offset: Any, size: Any, *others: Any) -> Foreign:
    if not isinstance(values, Typed):
        raise Malformed("a tensor has no values")
    return Foreign(str(values.dtype).removeprefix("torch."), _extents(size))


_SPARSE = ("torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc")


def _sparse(layout: Any, parts: Any) -> Foreign:
    kind = str(layout).removeprefix("torch.") if layout in _SPARSE else "of an unknown layout"
    return Foreign(kind, _extents(parts[2 if kind == "sparse_coo" else 3]))


def _without_values(dtype: Any, size: Any, *others: Any) -> Foreign:
    return Foreign("without values (meta)", _extents(size))


@lru_cache(maxsize=1)
def meanings() -> Mapping[str, Any]:
    """The meaning here of each name that a checkpoint may mention."""
    functions: dict[str, Callable[..., Any]] = {
        "torch.Size": lambda size: size,
        "torch.serialization._get_layout": lambda name: name,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor_v2,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        "torch.nn.parameter.Parameter": lambda data, *_: data,
        "torch._tensor._rebuild_from_type_v2": _of_subclass,
        "torch._utils._rebuild_qtensor": _quantized,
        "torch._utils._rebuild_sparse_tensor": _sparse,
        "torch._utils._rebuild_meta_tensor_no_storage": _without_values,
        "torch._utils._rebuild_nested_tensor": lambda *_: Opaque(),
        "torch._utils._rebuild_wrapper_subclass": lambda *_: Opaque(),
    }
    names = training_objects.names() | {name: Function(meaning) for name, meaning in functions.items()}
    names |= dict.fromkeys(("torch.device", *_trainers()), Function(lambda *_: Opaque()))
    names |= {"torch.Tensor": Opaque()}
    names |= {str(v): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
    names |= {str(v): Opaque() for v in vars(torch).values() if isinstance(v, torch.qscheme)}
    names |= {f"torch.{kind}Storage": StorageKind(dtype) for kind, dtype in _STORAGES.items()}
    return names | {"torch.storage.UntypedStorage": StorageKind(torch.uint8)}


def _trainers() -> tuple[str, ...]:
    """The names of PyTorch's optimizers, schedules and losses, whole objects of which scripts save beside weights."""
    modules = (torch.optim, torch.optim.lr_scheduler, torch.nn.modules.loss)
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    theirs = {k for k in kinds if k.__module__.startswith(("torch.optim.", "torch.nn.modules.loss"))}
    return *(f"{kind.__module__}.{kind.__qualname__}" for kind in theirs), "torch.optim.lr_scheduler._LRScheduler"


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
}
