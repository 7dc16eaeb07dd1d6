"""Read the files that torch.save wrote before PyTorch 1.6: pickles, and then the values, one after another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

from s2mlp_deploy.checkpoint.torch_format import unpickler
from s2mlp_deploy.checkpoint.torch_format.tensors import MOST_PICKLED, StorageKind, Typed, Values, meanings, storage_of
from s2mlp_deploy.checkpoint.torch_format.unpickler import Malformed

LEGACY = 0x1950A86A20F9469CFC6C, 1001
"""The first pickles of files before PyTorch 1.6: a magic number and a version."""


def read_legacy(path: Path, file: IO[bytes]) -> Any:
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
    claimed: dict[str, tuple[StorageKind, int]] = {}

    def claim(saved: Any) -> Any:
        if _is_class(saved):
            return saved[1]
        kind, key, numel = storage_of(saved, 6)
        if claimed.setdefault(key, (kind, numel)) != (kind, numel):
            raise Malformed("a tensor's values are described in two ways")
        return Typed(None, kind.dtype)

    unpickler.load(head, meanings(), claim)
    keys = unpickler.load(head, {}, _nothing)
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys) or sorted(keys) != sorted(claimed):
        raise Malformed("it does not list the values that its tensors need")
    values, start = Values(path), head.tell()
    storages = {}
    for key in keys:
        kind, numel = claimed[key]
        file.seek(start)
        if int.from_bytes(file.read(8), "little") != numel:
            raise Malformed("the values of a tensor are cut short, or of another number")
        storages[key] = Typed(values.at(start + 8, numel * kind.dtype.itemsize, kind.dtype), kind.dtype)
        start += 8 + numel * kind.dtype.itemsize
    head.seek(at)

    def stored(saved: Any) -> Any:
        return saved[1] if _is_class(saved) else storages[storage_of(saved, 6)[1]]

    return unpickler.load(head, meanings(), stored)


def _is_class(saved: Any) -> bool:
    """Whether ``saved`` refers to the class of a module, which has its source text beside it."""
    return isinstance(saved, tuple) and len(saved) == 4 and saved[0] == "module"


def _nothing(_: Any) -> Any:
    raise Malformed("it refers to a tensor where there is none")
