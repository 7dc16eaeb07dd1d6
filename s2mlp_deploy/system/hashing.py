"""Compute the SHA-256 of a file, and fingerprints of folders that are too large to read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """The SHA-256 of the file at ``path``, or of a folder's names, sizes and times of change."""
    if not path.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for directory, folders, files in os.walk(path, followlinks=True):
        folders.sort()
        for file in filter(os.path.isfile, (os.path.join(directory, name) for name in sorted(files))):
            status = os.stat(file)
            line = f"{os.path.relpath(file, path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
