"""Read the zip archives of torch.save: entries, checksums and sizes are checked before any value is used."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch

from s2mlp_deploy.checkpoint import other_formats
from s2mlp_deploy.checkpoint.torch_format import unpickler
from s2mlp_deploy.checkpoint.torch_format.tensors import MOST_PICKLED, Typed, Values, meanings, storage_of
from s2mlp_deploy.checkpoint.torch_format.unpickler import Malformed
from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.system.untrusted_input import Excessive, archive_entries

SAVE_HINT = "Save the weights alone, with torch.save(model.state_dict(), PATH), and give that file."


class Archive:
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._file = file
        self._values = Values(path)
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
        return unpickler.load(io.BytesIO(self._bytes(self._entries["data.pkl"])), meanings(), self._storage)

    def _storage(self, saved: Any) -> Typed:
        kind, key, numel = storage_of(saved, 5)
        entry = self._entries.get(f"data/{key}")
        if entry is None or entry.file_size != numel * kind.dtype.itemsize:
            raise Malformed(f"the values of a tensor are not there, or of another size ({str(key)[:50]})")
        if key not in self._storages:
            storage = self._load(entry, kind.dtype)
            if self._swap:
                storage.byteswap(kind.dtype)  # type: ignore[no-untyped-call]
            self._storages[key] = storage
        return Typed(self._storages[key], kind.dtype)

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
        """The position of the first byte of ``entry``, behind its own head."""
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
    """Compare checksums; torch.save leaves zeros where it does not compute them."""
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
        raise CheckpointError(f"{path} is {other_formats.of_an_archive(names)}")
    if len(found) > 1 or len(set(names)) < len(names):
        raise Malformed("the archive holds several entries of one name")
    return found[0].removesuffix("data.pkl")
