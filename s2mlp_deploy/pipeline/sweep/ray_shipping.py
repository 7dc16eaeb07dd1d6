"""Files that travel through Ray's object store, for nodes that share no storage: each is checked against its hash where it arrives."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.system import workdir

MOST_BYTES = 2 << 30
"""The largest file or folder that is shipped: it is in memory whole, here and on each node."""

PLACE = "s2mlp-shipped"


@dataclass(frozen=True)
class Cargo:
    """A file (whose only entry is called "") or a folder's files, by relative name, with the hash of names and contents."""

    name: str
    files: Mapping[str, bytes]
    digest: str

    @property
    def is_whole(self) -> bool:
        """Whether the contents are those that were packed."""
        return _digest(self.files) == self.digest


def pack(path: Path) -> Cargo:
    """The file or folder at ``path``.

    Raises:
        InputError: where it is too large, or cannot be read.
    """
    try:
        names = dict(_files(path))
        size = sum(file.stat().st_size for file in names.values())
        if size > MOST_BYTES:
            raise InputError(
                f"{path} has {size / 1e9:.1f} GB, and --ship sends at most {MOST_BYTES / 1e9:.1f} GB of one file or folder: put it on storage that "
                "all nodes see, and leave --ship out"
            )
        files = {name: file.read_bytes() for name, file in names.items()}
    except OSError as error:
        raise InputError(f"cannot read {path}, which --ship is to send: {error.strerror}") from error
    return Cargo(path.name, files, _digest(files))


def unpack(cargo: Cargo, destination: Path) -> Path:
    """Write ``cargo`` to ``destination``, whole or not at all; what is there already stays.

    Raises:
        DataError: where it is not what was packed.
    """
    if not cargo.is_whole:
        raise DataError(f"{cargo.name} arrived with other contents than were sent: start the sweep again")
    if not destination.exists():
        with workdir.beside(destination) as place:
            for name, content in cargo.files.items():
                file = place / "cargo" / name if name else place / "cargo"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            with suppress(OSError):  # another worker of this node was faster
                (place / "cargo").rename(destination)
    return destination


def receive(cargo: Cargo) -> Path:
    """The file or folder in ``cargo``, kept on this machine by its hash, so that it is written once.

    Raises:
        DataError: as :func:`unpack`.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()) / f"{PLACE}-{user}" / cargo.digest
    place.mkdir(0o700, parents=True, exist_ok=True)
    return unpack(cargo, place / (cargo.name or "file"))


def publish(cargo: Cargo, destination: Path) -> None:
    """Write the bundle in ``cargo`` to ``destination``, if every file has the hash that its manifest states.

    Raises:
        DataError, BundleError: where it has not.
    """
    with workdir.beside(destination) as place:
        read_bundle(unpack(cargo, place / "bundle"))
        with suppress(OSError):  # made twice, where a worker was taken for dead
            (place / "bundle").rename(destination)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield "", path
        return
    for directory, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            file = Path(directory) / name
            yield file.relative_to(path).as_posix(), file


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()
