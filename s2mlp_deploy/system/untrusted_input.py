"""Size limits on untrusted files: a small file can claim to hold, or unpack to, more than any machine's memory.

Claims are compared with the file's own size before anything is read.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

from s2mlp_deploy.system import strict_json

MOST_BEYOND_FILE = 512 << 20
"""Bytes that a file may claim above its own size: compressed or shared values do, within reason."""

MOST_TEXT = 16 << 20
"""Largest text file or tensor header that is read, in bytes: room for over 100,000 labels or tensors."""


def check_regular(path: Path) -> None:
    """Refuse pipes and devices: a pipe without a writer blocks, and a device may never end.

    Raises:
        OSError: where there is nothing at ``path``.
        ValueError: where it is neither a file nor a directory (opening a directory fails with a clear error).
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError("it is a pipe, a socket or a device: save it to a file")


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """Read at most ``most`` bytes from the file at ``path``, whatever length it claims.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has more than ``most`` bytes.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 10:,} KiB")
    return content


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Read the file at ``path`` as UTF-8 text, without a byte order mark.

    Raises:
        OSError, UnicodeDecodeError: where it cannot be read.
        ValueError: where it has more than ``most`` bytes.
    """
    return read_bytes(path, most).decode("utf-8-sig")


class Excessive(ValueError):  # noqa: N818
    """The file claims more than one of its size can hold."""


class _Modest(io.FileIO):
    """Refuses very large single reads, which a forged zip directory would trigger."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_TEXT:
            raise Excessive(f"the directory of the archive claims {size:,} bytes")
        return super().read(size)


def archive_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of the zip archive at ``path``, none of which has been unpacked.

    Raises:
        OSError, zipfile.BadZipFile, ValueError, NotImplementedError: where it cannot be read.
        Excessive: where it would unpack to more than an honest archive of its size.
    """
    with _Modest(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    size, claimed = path.stat().st_size, sum(entry.file_size for entry in entries)
    if claimed > size + MOST_BEYOND_FILE:
        raise Excessive(f"it has {size:,} bytes and would unpack to {claimed:,}")
    return entries


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file whose header claims more than the file holds, or repeats a name.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is not a valid safetensors file, with the reason.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ValueError("it is cut short")
        (length,) = struct.unpack("<Q", start)
        if length > min(MOST_TEXT, path.stat().st_size - 8):
            raise ValueError(f"it claims {length:,} bytes of description")
        try:
            strict_json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError("its description is nested too deeply") from error
