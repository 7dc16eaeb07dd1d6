"""Read arrays from .npy, .npz and .safetensors files, and choose some of their rows evenly."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import safetensors.numpy

from s2mlp_deploy.errors import DataError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.untrusted_input import archive_entries, check_regular, check_safetensors

SUFFIXES = (".safetensors", ".npz", ".npy")


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of the file at ``path``, by name; that of a .npy file is called ``input``.

    Raises:
        DataError: where it is none of these formats, or damaged.
    """
    try:
        check_regular(path)
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"input": _read_npy(file, path.stat().st_size)}
        if path.suffix == ".npz":
            return _read_npz(path)
        check_safetensors(path)
        return dict(safetensors.numpy.load_file(path))
    except Exception as error:  # zip, NumPy and safetensors raise many types on damaged files
        reason = str(error).split(". ")[0]  # NumPy goes on to recommend loading pickles unsafely
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif path.suffix not in SUFFIXES:
            reason = "its name ends otherwise"
        raise DataError(f"cannot read {path} ({reason}): expected a .safetensors, .npz or .npy file") from error


def _read_npz(path: Path) -> dict[str, Array]:
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive_entries(path)}
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        if len(entries) < len(archive.infolist()):
            raise ValueError("it holds two arrays of one name")
        for name, entry in entries.items():
            with archive.open(entry) as file:
                arrays[name] = _read_npy(file, entry.file_size)
    return arrays


def _read_npy(file: IO[bytes], size: int) -> Array:
    """The array that ``file``, of ``size`` bytes, holds, after comparing what it claims with them."""
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size or math.prod(n for n in shape if n) >= 2**63:
        raise ValueError(f"an array of shape {shape} claims {claimed:,} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def fit_float32(array: Array) -> bool:
    """Whether all values are numbers that float32 can hold."""
    return bool((np.abs(array) <= np.finfo(np.float32).max).all())


def spread(length: int, count: int) -> tuple[int, ...]:
    """At most ``count`` indices below ``length``, evenly spaced."""
    count = min(length, count)
    return tuple(i * length // count for i in range(count))
