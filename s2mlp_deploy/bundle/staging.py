"""Publish a bundle whole or not at all.

A bundle is built in a hidden sibling directory, flushed to disk, and then renamed; replacing one that is there
exchanges the two names in one step.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.bundle import signature
from s2mlp_deploy.bundle.card import CARD, is_as_written
from s2mlp_deploy.bundle.contents import MANIFEST, REPORT, Bundle
from s2mlp_deploy.bundle.read import NO_TEXT, files_of_bundle, is_text
from s2mlp_deploy.bundle.signature import SigningKey
from s2mlp_deploy.errors import Error, OutputError
from s2mlp_deploy.schema.manifest import DEEPEST, PACKAGE, VERSION, Manifest
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.system import workdir
from s2mlp_deploy.system.wording import some


@dataclass(frozen=True)
class Staging:
    """A hidden directory beside the destination, where a bundle is put together."""

    directory: Path
    destination: Path
    replace: bool

    def publish(
        self, manifest: Manifest, report: Report, *, card: str | None = None, key: SigningKey | None = None
    ) -> Bundle:
        """Write manifest, report and model ``card``, sign with ``key``, flush everything to disk, and give the bundle its name.

        Raises:
            OutputError: where the destination appeared meanwhile, or the exporter left files that the
                manifest does not list.
        """
        if unlisted := _contents(self.directory) - manifest.files.keys():
            raise OutputError(
                f"the exporter for format {manifest.format!r} left files that its artifact does not name, so nothing was "
                f"published: {some(sorted(unlisted), 5)}. Please report this to its authors"
            )
        (self.directory / MANIFEST).write_text(manifest.to_json(), "utf-8")
        (self.directory / REPORT).write_text(report.to_json(), "utf-8")
        if card is not None:
            (self.directory / CARD).write_text(card, "utf-8")
        if key:
            signature.sign(self.directory, key, self.destination.resolve().name)
        for name in _contents(self.directory):
            file = self.directory / name
            _open_to_others(file, 0o666)
            _flush(file)
        for place in {self.directory / parent for name in manifest.files for parent in Path(name).parents[:-1]}:
            _open_to_others(place, 0o777)
            _flush_names(place)
        _flush_names(self.directory)
        with workdir.publishing:
            self._take_name()
        _flush_names(self.destination.parent)
        return Bundle(self.destination, manifest, signature.look(self.destination))

    def _take_name(self) -> None:
        """Give the new bundle its name, whatever others do in this directory at the same time."""
        for last in (False, False, True):
            check_destination(self.destination, replace=self.replace)
            try:
                if self.destination.exists():
                    _exchange(self.directory, self.destination)
                else:
                    # A directory cannot be renamed onto one that has files: the kernel refuses.
                    self.directory.rename(self.destination)
                return
            except OSError as error:
                appeared_or_vanished = error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
                if last or not appeared_or_vanished or not self.directory.exists():
                    raise


@contextmanager
def staged(destination: Path, *, replace: bool) -> Iterator[Staging]:
    """A place to build the bundle that will be ``destination``; gone afterwards, whatever happens.

    Raises:
        OutputError: where the destination exists (without ``replace``), is not a bundle, or cannot
            be written.
    """
    check_destination(destination, replace=replace)
    with workdir.beside(destination) as directory:
        try:
            yield Staging(directory, destination, replace)
        except OSError as error:
            raise OutputError(
                f"writing {destination} failed: {error.strerror or error}. Nothing was published; free space or choose "
                "another place with -o"
            ) from error
        except Error as error:  # runtimes name other reasons where a file is gone
            if directory.exists() or destination.exists():
                raise
            raise OutputError(f"{destination.parent} was removed while {destination.name} was being written") from error


def check_destination(destination: Path, *, replace: bool) -> None:
    """Refuse a destination that is taken, before any work is done.

    Raises:
        OutputError: as :func:`staged`.
    """
    if not is_text(destination):
        raise OutputError(f"cannot write to {destination}: {NO_TEXT}. Choose another place with -o")
    try:
        exists = destination.exists()
        if destination.is_symlink() or (exists and not destination.is_dir()):
            raise OutputError(f"{destination} exists and is not a directory: choose another place with -o")
        present = _contents(destination) if exists else set()
    except OSError as error:
        raise OutputError(f"cannot write to {destination}: {error.strerror}. Choose another place with -o") from error
    if not exists:
        return
    if not replace:
        raise OutputError(f"{destination} exists: choose another place with -o, or replace it with --force")
    expected = files_of_bundle(destination)
    if expected is None:
        raise OutputError(
            f"{destination} exists and is not a bundle, so --force does not replace it: choose another -o"
        )
    if is_as_written(destination / CARD):
        expected = {*expected, CARD}
    if others := present - expected:
        raise OutputError(
            f"{destination} holds more than a bundle, and --force would delete it: move {some(sorted(others), 5)} elsewhere, or "
            "choose another -o"
        )


def _contents(directory: Path) -> set[str]:
    """The names of all files in ``directory``, as in a manifest; a directory that none can name ends in a slash."""
    return {name for path in directory.iterdir() for name in _names(path, path.name, _depth(path.name))}


def _depth(name: str) -> int:
    """How many levels of directories may lie in the one called ``name``, itself counted."""
    return DEEPEST - 1 if PACKAGE.fullmatch(name) else 1 if VERSION.fullmatch(name) else 0


def _names(path: Path, name: str, depth: int) -> Iterator[str]:
    """The names of the files below ``path``, which is called ``name``, down to ``depth`` levels."""
    inside = list(path.iterdir()) if depth and _is_directory(path) else []
    for file in inside:
        yield from _names(file, f"{name}/{file.name}", depth - 1)
    if not inside:
        yield name + "/" * _is_directory(path)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _flush_names(directory: Path) -> None:
    """Flush the entries of ``directory`` to disk; some file systems cannot, and need not."""
    with suppress(OSError):
        _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories' names in one step; the old one is then at ``new``, for removal.

    Linux offers renameat2(RENAME_EXCHANGE). Elsewhere, and on file systems without it, the old directory steps aside
    first, and comes back if the new one cannot take its place.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    at_cwd, exchange = -100, 2
    if renameat2 and renameat2(at_cwd, os.fsencode(new), at_cwd, os.fsencode(old), exchange) == 0:
        return
    old.rename(workdir.step_aside(new, old))
    new.rename(old)


def _open_to_others(path: Path, mode: int) -> None:
    """Let others use ``path`` as far as the user's umask has it; some writers keep their files private."""
    mask = os.umask(0)
    os.umask(mask)
    with suppress(PermissionError):  # of file systems without modes
        path.chmod(mode & ~mask)
