"""Arrays from files that users bring (.npy, .npz, .safetensors), and an even choice of their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from s2mlp_deploy.errors import DataError
from s2mlp_deploy.parity import Array


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of the file at ``path``, by name; that of a .npy file is called ``input``.

    Raises:
        DataError: where it is none of these formats, or damaged.
    """
    try:
        if path.suffix == ".npy":
            return {"input": np.load(path, allow_pickle=False)}
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        return dict(safetensors.numpy.load_file(path))
    except Exception as error:  # zip, NumPy and safetensors raise what they like on damaged files
        reason = str(error).split(". ")[0]  # NumPy goes on to recommend loading pickles unsafely
        raise DataError(f"cannot read {path} ({reason}): expected a .safetensors, .npz or .npy file") from error


def spread(length: int, count: int) -> tuple[int, ...]:
    """At most ``count`` indices below ``length``, evenly spaced."""
    count = min(length, count)
    return tuple(i * length // count for i in range(count))
