"""List the images in a folder, and the other files beside them.

Links are followed, as torchvision's ImageFolder does, and each folder is read once, so that a link to a folder above
ends.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s2mlp_deploy.errors import DataError

SUFFIXES = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    }
)
"""Pillow's names for the formats that are read (images.FORMATS)."""

NEVER = frozenset(
    {
        ".ds_store",
        ".git",
        ".ipynb_checkpoints",
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Names, in lower case, that file systems and editors leave in folders; neither read nor counted."""


@dataclass(frozen=True)
class ImageFiles:
    """The images below a folder, sorted, and how many files and hidden folders were left out, by kind."""

    paths: tuple[Path, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name belongs to a file system or editor; ``._x`` is macOS's of ``x``."""
    return name.startswith("._") or name.lower() in NEVER


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def find(directory: Path) -> ImageFiles:
    """The images in ``directory`` and the folders below it.

    Raises:
        DataError: where a folder cannot be read.
    """
    files = list(_files(directory, set()))
    images = sorted(path for path in files if is_image(path.name))
    kinds = Counter(_kind(path.name) for path in files if not is_image(path.name))
    return ImageFiles(tuple(images), dict(sorted(kinds.items())))


def entries(directory: Path) -> list[Path]:
    """The entries of ``directory``, sorted, without those that are never read.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        return sorted(directory / name for name in os.listdir(directory) if not is_debris(name))
    except OSError as error:
        raise DataError(f"cannot read the image folder {directory}: {error.strerror}") from error


def subfolders(directory: Path) -> list[str]:
    """The names of the folders in ``directory``, sorted, hidden ones left out.

    Raises:
        DataError: where it cannot be read.
    """
    return [path.name for path in entries(directory) if is_folder(path) and not path.name.startswith(".")]


def is_folder(path: Path) -> bool:
    """Whether it is one or a link to one; links that lead in a circle lead to none."""
    return os.path.isdir(path)


def describe(left_out: Mapping[str, int]) -> str:
    """``left_out`` in words, as in "20 .heic, 3 without an extension"."""
    return ", ".join(f"{count} {kind}" for kind, count in left_out.items())


def expected(left_out: Mapping[str, int]) -> str:
    """The images to read, and other files found beside them."""
    return f"({', '.join(sorted(SUFFIXES))})" + (f"; left out: {describe(left_out)}" if left_out else "")


def _files(directory: Path, known: set[tuple[int, int]]) -> Iterator[Path]:
    found = entries(directory)
    status = directory.stat()
    if (status.st_dev, status.st_ino) in known:
        return
    known.add((status.st_dev, status.st_ino))
    for path in found:
        if is_folder(path) and not path.name.startswith("."):
            yield from _files(path, known)
        else:
            yield path


def _kind(name: str) -> str:
    return "hidden" if name.startswith(".") else Path(name).suffix.lower() or "without an extension"
