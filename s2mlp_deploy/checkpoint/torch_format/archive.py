"""Read the files of torch.save without torch.load: nothing in them is executed, and sizes they claim are checked before they are read.

Both formats hold a pickle that describes the tensors, and their values as plain bytes: a zip archive, or (before PyTorch
1.6) one thing after another. Values stay in the mapped file where they lie as they are needed.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from s2mlp_deploy.checkpoint.torch_format import training_objects, unpickler
from s2mlp_deploy.checkpoint.torch_format.unpickler import Function, Malformed, Opaque
from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.system.untrusted_input import Excessive, archive_entries

SAVE_HINT = "Save the weights alone, with torch.save(model.state_dict(), PATH), and give that file."

WHOLE_HINT = (
    "Where it was trained, let every process call get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, "
    "cpu_offload=True)) of torch.distributed.checkpoint.state_dict (or full_tensor() of each weight), save what process 0 gets with "
    "torch.save(…, PATH), and give that file."
)

_SHARDED = ("torch.distributed.tensor.", "torch.distributed._tensor.", "torch.distributed._shard.")

MOST_PICKLED = 64 << 20
"""Bytes of a pickle: a thousand times what checkpoints have."""

LEGACY = 0x1950A86A20F9469CFC6C, 1001
"""What files before PyTorch 1.6 begin with: a magic number and a version."""


@dataclass(frozen=True)
class Foreign:
    """A tensor that has no plain values: a quantized or a sparse one, or one of the meta device."""

    kind: str
    shape: tuple[int, ...]


def read(path: Path) -> Any:
    """The content of ``path``: dicts, lists, numbers, texts and tensors (or :class:`Foreign`) on the CPU.

    Raises:
        CheckpointError: where the file is damaged, claims more than it holds, or would run code in torch.load.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\3\4" or zipfile.is_zipfile(file)
            return _Archive(path, file).content() if zipped else _read_legacy(path, file)
    except unpickler.Unsafe as error:
        if any(name.startswith(_SHARDED) for name in error.names):
            raise CheckpointError(
                f"{path} holds DTensors, each a part of a weight that one process had. {WHOLE_HINT}"
            ) from error
        what = "a whole pickled module" if any("nn.modules" in name for name in error.names) else "more than weights"
        names = ", ".join(name[:100] for name in sorted(error.names)[:5])
        raise CheckpointError(
            f"{path} holds {what}: reading it would run code from the file ({names}), which this tool never does. {SAVE_HINT}"
        ) from error
    except (Malformed, OSError, RuntimeError) as error:
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{path} is not a checkpoint that torch.load can read ({reason}): it is damaged, cut short, or something else. "
            f"{SAVE_HINT}"
        ) from error


class _Values:
    """The bytes of the file at ``path``, mapped once something of them is asked for."""

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


# Archives


class _Archive:
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._file = file
        self._values = _Values(path)
        entries = _entries(path)
        folder = _folder(path, [entry.filename for entry in entries])
        self._entries = {entry.filename.removeprefix(folder): entry for entry in entries}
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._swap = False

    def content(self) -> Any:
        if "byteorder" in self._entries:
            order = self._bytes(self._entries["byteorder"])
            if order not in (b"little", b"big"):
                raise Malformed("it does not say in which order its bytes are")
            self._swap = order == b"big"
        return unpickler.load(io.BytesIO(self._bytes(self._entries["data.pkl"])), _names(), self._storage)

    def _storage(self, saved: Any) -> _Typed:
        kind, key, numel = _saved(saved, 5)
        entry = self._entries.get(f"data/{key}")
        if entry is None or entry.file_size != numel * kind.dtype.itemsize:
            raise Malformed(f"the values of a tensor are not there, or of another size ({str(key)[:50]})")
        if key not in self._storages:
            storage = self._load(entry, kind.dtype)
            if self._swap:
                storage.byteswap(kind.dtype)  # type: ignore[no-untyped-call]
            self._storages[key] = storage
        return _Typed(self._storages[key], kind.dtype)

    def _load(self, entry: zipfile.ZipInfo, dtype: torch.dtype) -> torch.UntypedStorage:
        if entry.compress_type == zipfile.ZIP_STORED:
            start = self._start(entry)
            _check(entry, self._crc(start, entry.file_size))
            return self._values.at(start, entry.file_size, dtype)
        if not entry.file_size:
            return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
        return torch.frombuffer(bytearray(self._bytes(entry)), dtype=torch.uint8).untyped_storage()

    def _bytes(self, entry: zipfile.ZipInfo) -> bytes:
        if entry.filename.endswith(".pkl") and entry.file_size > MOST_PICKLED:
            raise Malformed(f"its pickle has {entry.file_size:,} bytes")
        self._file.seek(self._start(entry))
        values = self._file.read(entry.compress_size)
        if entry.compress_type != zipfile.ZIP_STORED:
            try:
                values = zlib.decompressobj(-zlib.MAX_WBITS).decompress(values, entry.file_size + 1)
            except zlib.error as error:
                raise Malformed(f"{entry.filename[:50]} cannot be unpacked") from error
        if len(values) != entry.file_size:
            raise Malformed(f"{entry.filename[:50]} is not of the size that the archive's directory says")
        _check(entry, zlib.crc32(values))
        return values

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where the bytes of ``entry`` begin, behind its own head."""
        self._file.seek(entry.header_offset)
        head = self._file.read(30)
        if len(head) < 30 or head[:4] != b"PK\3\4":
            raise Malformed(f"{entry.filename[:50]} is not where the archive's directory says")
        name, extra = struct.unpack("<HH", head[26:])
        return entry.header_offset + 30 + int(name) + int(extra)

    def _crc(self, start: int, length: int) -> int:
        self._file.seek(start)
        crc = 0
        while length > 0 and (chunk := self._file.read(min(length, 1 << 20))):
            crc = zlib.crc32(chunk, crc)
            length -= len(chunk)
        return crc


def _check(entry: zipfile.ZipInfo, crc: int) -> None:
    """Compare checksums; torch.save leaves zeros where it was told not to compute them."""
    if entry.CRC not in (0, crc):
        raise Malformed(f"{entry.filename[:50]} has another checksum than the archive's directory says")


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of the archive, after comparing what they claim with the file."""
    try:
        entries = archive_entries(path)
    except Excessive as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}, so nothing was unpacked. {SAVE_HINT}") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is a damaged zip archive, perhaps cut short ({error}): copy or download it again"
        ) from error
    if any(entry.flag_bits & 1 for entry in entries):
        raise CheckpointError(f"{path} is an encrypted zip archive: decrypt it first; a checkpoint never is one")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise CheckpointError(f"{path} is a zip archive packed in a way that torch.load cannot read. {SAVE_HINT}")
    entries.sort(key=lambda entry: entry.header_offset)
    for entry, following in pairwise(entries):
        if entry.header_offset + 30 + len(entry.filename) + entry.compress_size > following.header_offset:
            raise Malformed("entries of the archive overlap")
    if any(e.compress_size != e.file_size for e in entries if e.compress_type == zipfile.ZIP_STORED):
        raise Malformed("an entry of the archive has two sizes")
    return entries


def _folder(path: Path, names: list[str]) -> str:
    """The folder in the archive that the checkpoint lies in; "" for none."""
    inner = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in inner:
        raise CheckpointError(f"{path} is a TorchScript archive, which holds code besides weights. {SAVE_HINT}")
    found = [name for name in names if name.split("/", 1)[-1] == "data.pkl"]
    if not found:
        raise CheckpointError(
            f"{path} is a zip archive, but not a PyTorch checkpoint (no data.pkl in it): unpack it and give the "
            "checkpoint inside"
        )
    if len(found) > 1 or len(set(names)) < len(names):
        raise Malformed("the archive holds several entries of one name")
    return found[0].removesuffix("data.pkl")


# The format before PyTorch 1.6


def _read_legacy(path: Path, file: IO[bytes]) -> Any:
    """Five pickles, the fourth of which is the content and the last one names the storages; then the values of each.

    The content is read twice: where the values lie is known once all of it has been read.
    """
    file.seek(0)
    head = io.BytesIO(file.read(MOST_PICKLED))
    if head.getvalue()[257:262] == b"ustar":
        raise Malformed("it is in the tar format of PyTorch before 0.2")
    begin = [unpickler.load(head, {}, _nothing) for _ in LEGACY]
    system = unpickler.load(head, {}, _nothing) if begin == list(LEGACY) else None
    if not isinstance(system, dict) or system.get("little_endian") is False:
        raise Malformed("it does not begin as torch.save does, or comes from a machine with another order of bytes")
    at = head.tell()
    claimed: dict[str, tuple[_Kind, int]] = {}

    def claim(saved: Any) -> Any:
        kind, key, numel = _saved(saved, 6)
        if claimed.setdefault(key, (kind, numel)) != (kind, numel):
            raise Malformed("a tensor's values are described in two ways")
        return _Typed(None, kind.dtype)

    unpickler.load(head, _names(), claim)
    keys = unpickler.load(head, {}, _nothing)
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys) or sorted(keys) != sorted(claimed):
        raise Malformed("it does not list the values that its tensors need")
    values, start = _Values(path), head.tell()
    storages = {}
    for key in keys:
        kind, numel = claimed[key]
        file.seek(start)
        if int.from_bytes(file.read(8), "little") != numel:
            raise Malformed("the values of a tensor are cut short, or of another number")
        storages[key] = _Typed(values.at(start + 8, numel * kind.dtype.itemsize, kind.dtype), kind.dtype)
        start += 8 + numel * kind.dtype.itemsize
    head.seek(at)
    return unpickler.load(head, _names(), lambda saved: storages[_saved(saved, 6)[1]])


def _nothing(_: Any) -> Any:
    raise Malformed("it refers to a tensor where there is none")


# Tensors


@dataclass(frozen=True)
class _Kind:
    """A class of storages."""

    dtype: torch.dtype


@dataclass(frozen=True)
class _Typed:
    """The values that tensors are views of; None as long as their place is not known."""

    storage: torch.UntypedStorage | None
    dtype: torch.dtype


def _saved(saved: Any, length: int) -> tuple[_Kind, str, int]:
    """(kind, key, number of values) of the persistent id ``saved``."""
    if not isinstance(saved, tuple) or len(saved) != length or saved[0] != "storage":
        raise Malformed("it refers to something that is no tensor")
    kind, key, _, numel, *view = saved[1:]
    if not isinstance(kind, _Kind) or not isinstance(key, str) or view not in ([], [None]):
        raise Malformed("it refers to values of a tensor in a way that torch.save does not")
    (numel,) = _extents((numel,))
    return kind, key, numel


def _extents(values: Any) -> tuple[int, ...]:
    """``values``, if they can be sizes or strides."""
    if not isinstance(values, tuple) or len(values) > 64 or not all(type(v) is int and 0 <= v < 2**63 for v in values):
        raise Malformed("a tensor has impossible sizes or strides")
    return values


def _tensor(values: Any, offset: Any, size: Any, stride: Any) -> Tensor | Opaque:
    if not isinstance(values, _Typed):
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
    if not isinstance(values, _Typed) or not isinstance(dtype, torch.dtype):
        raise Malformed("a tensor has no values")
    return _view(values, dtype, offset, size, stride)


def _view(values: _Typed, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> Tensor | Opaque:
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
    if not isinstance(values, _Typed):
        raise Malformed("a tensor has no values")
    return Foreign(str(values.dtype).removeprefix("torch."), _extents(size))


_SPARSE = ("torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc")


def _sparse(layout: Any, parts: Any) -> Foreign:
    kind = str(layout).removeprefix("torch.") if layout in _SPARSE else "of an unknown layout"
    return Foreign(kind, _extents(parts[2 if kind == "sparse_coo" else 3]))


def _without_values(dtype: Any, size: Any, *others: Any) -> Foreign:
    return Foreign("without values (meta)", _extents(size))


# Names


@lru_cache(maxsize=1)
def _names() -> Mapping[str, Any]:
    """What the names in checkpoints stand for here."""
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
    names |= {"torch.device": Function(lambda *_: Opaque()), "torch.Tensor": Opaque()}
    names |= {str(v): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
    names |= {str(v): Opaque() for v in vars(torch).values() if isinstance(v, torch.qscheme)}
    names |= {f"torch.{kind}Storage": _Kind(dtype) for kind, dtype in _STORAGES.items()}
    return names | {"torch.storage.UntypedStorage": _Kind(torch.uint8)}


_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64,
    "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "QInt8": torch.qint8, "QUInt8": torch.quint8,
    "QInt32": torch.qint32, "QUInt4x2": torch.quint4x2, "QUInt2x4": torch.quint2x4,
}  # fmt: skip
