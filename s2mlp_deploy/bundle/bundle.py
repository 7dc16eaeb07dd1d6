"""Bundles: a directory with an artifact, its manifest, its golden tensors and a report.

A bundle appears whole or not at all. It is built in a hidden sibling directory, flushed to disk,
and then renamed; replacing one that is there exchanges the two names in one step.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import BundleError, Error, OutputError
from s2mlp_deploy.schema import manifest as manifests
from s2mlp_deploy.schema.manifest import VERSION, Manifest, Setting
from s2mlp_deploy.system import untrusted_input, workdir
from s2mlp_deploy.system.hashing import sha256

MANIFEST, REPORT, GOLDEN, SBOM = "manifest.json", "report.json", "golden.safetensors", "sbom.cdx.json"


@dataclass(frozen=True)
class Artifact:
    """What an exporter wrote into ``directory``: ``main``, and other files it needs.

    Files are named as in a manifest: ``model.onnx``, or ``1/model.onnx`` in the directory of a version.
    ``graph`` are files that it does not need: the ONNX model that it was compiled from, to compile it again elsewhere.
    ``settings`` are what it was compiled with and what loading it takes, as the format understands them;
    ``report`` is what compiling it showed, which may differ from time to time. ``beyond`` are golden cases of sizes that it was not
    compiled for, as was asked.
    """

    directory: Path
    main: str
    files: tuple[str, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    graph: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.directory / self.main


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files are those that its manifest lists, unchanged."""

    directory: Path
    manifest: Manifest

    @property
    def artifact(self) -> Artifact:
        m = self.manifest
        images = (image.file for image in m.golden_images)
        beside = {m.artifact, GOLDEN, SBOM, *m.graph, *images}
        others = tuple(n for n in m.files if n not in beside)
        return Artifact(self.directory, m.artifact, (m.artifact, *others), m.engine or {}, m.graph)

    @property
    def golden(self) -> Path:
        return self.directory / GOLDEN

    @property
    def size_bytes(self) -> int:
        """Size of the artifact, without golden tensors, golden images, SBOM and manifest."""
        return sum((self.directory / name).stat().st_size for name in self.artifact.files)


def read(directory: Path) -> Bundle:
    """The bundle at ``directory``, after checking every file's hash.

    Raises:
        BundleError: where a file is missing, changed, not listed, or not a plain file.
    """
    path = directory / MANIFEST
    manifest = read_manifest(directory)
    judged = manifest.verdict in ("passed", "pending a device") or manifest.tolerance is not None
    images = (image.file for image in manifest.golden_images)
    needed = {manifest.artifact, *manifest.graph, *images, *([GOLDEN] if judged else [])}
    if missing := needed - manifest.files.keys():
        raise BundleError(
            f"{path} lists no hash for {', '.join(sorted(missing))}: the bundle was changed; copy it again"
        )
    for name, digest in manifest.files.items():
        file = directory / name
        if not _is_plain(directory, name):
            raise BundleError(f"{file} is missing (or not a plain file): copy the whole bundle again")
        try:
            unchanged = sha256(file) == digest
        except OSError as error:
            raise BundleError(f"cannot read {file}: {error.strerror}. Copy the bundle again") from error
        if not unchanged:
            raise BundleError(
                f"{file} is not the file that was exported (its SHA-256 differs from the manifest's): it was changed or "
                "damaged; copy the bundle again"
            )
    return Bundle(directory, manifest)


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a bundle's directory.

    Raises:
        BundleError: where it is a file in one.
    """
    if os.path.exists(path / MANIFEST):  # not where it may not be looked, as Path.exists raises there
        return True
    _refuse_file_of_bundle(path)
    return False


def _refuse_file_of_bundle(path: Path) -> None:
    if not os.path.isfile(path):
        return
    for directory in (path.parent, path.parent.parent):
        if path.relative_to(directory).as_posix() in (_files_of_bundle(directory) or ()):
            raise BundleError(f"{path} is a file of a bundle: give the bundle's directory, {directory}")


def _is_plain(directory: Path, name: str) -> bool:
    """Whether the file called ``name`` is one, and neither it nor the directory of its version leads elsewhere."""
    file = directory / name
    elsewhere = file.is_symlink() or (file.parent != directory and file.parent.is_symlink())
    return file.is_file() and not elsewhere


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the bundle at ``directory``, whose files are not looked at.

    Raises:
        BundleError: where there is none, or it is damaged.
    """
    return manifests.parse(_manifest_bytes(directory), str(directory / MANIFEST))


def _manifest_bytes(directory: Path) -> bytes:
    path = directory / MANIFEST
    _refuse_file_of_bundle(directory)
    if not _is_text(directory):
        raise BundleError(f"cannot take {directory}: {NO_TEXT}. Move it elsewhere, or rename it")
    try:
        return read_beside(path)
    except FileNotFoundError as error:
        what = "does not exist" if not directory.exists() else f"has no {MANIFEST}"
        raise BundleError(f"{directory} {what}: expected a bundle, as s2mlp-export makes it") from error
    except ValueError as error:
        raise BundleError(f"cannot take {path}: {error}. Copy the whole bundle again") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}. Expected a bundle directory") from error


NO_TEXT = "its path is no text in UTF-8, and runtimes open no file of such a name"


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_beside(path: Path) -> bytes:
    """What the plain file at ``path`` holds, which is no more than a manifest or a report may have.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is larger, or something else than a file, which could lead elsewhere or never end.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError("it is not a plain file")
    return untrusted_input.read_bytes(path)


def _files_of_bundle(directory: Path) -> set[str] | None:
    """What a bundle of any schema version at ``directory`` consists of; None where there is none.

    Other programs have files called manifest.json too, and their directories must not be replaced.
    """
    try:
        content = json.loads(read_beside(directory / MANIFEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "schema_version" not in content or not isinstance(content.get("files"), dict):
        return None
    return {*content["files"], MANIFEST, REPORT}


@dataclass(frozen=True)
class Staging:
    """A hidden directory beside the destination, where a bundle is put together."""

    directory: Path
    destination: Path
    replace: bool

    def publish(self, manifest: Manifest, report: dict[str, Any]) -> Bundle:
        """Write manifest and report, flush everything to disk, and give the bundle its name.

        Raises:
            OutputError: where the destination appeared meanwhile, or the exporter left files that the
                manifest does not list.
        """
        if unlisted := _contents(self.directory) - manifest.files.keys():
            raise OutputError(
                f"the exporter for format {manifest.format!r} left files that its artifact does not name, so nothing was "
                f"published: {_some(unlisted)}. Please report this to its authors"
            )
        (self.directory / MANIFEST).write_text(manifest.to_json(), "utf-8")
        (self.directory / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
        for name in _contents(self.directory):
            file = self.directory / name
            _open_to_others(file, 0o666)
            _flush(file)
        for place in {(self.directory / name).parent for name in manifest.files} - {self.directory}:
            _open_to_others(place, 0o777)
            _flush_names(place)
        _flush_names(self.directory)
        with workdir.publishing:
            self._take_name()
        _flush_names(self.destination.parent)
        return Bundle(self.destination, manifest)

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
def staging(destination: Path, *, replace: bool) -> Iterator[Staging]:
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
        OutputError: as :func:`staging`.
    """
    if not _is_text(destination):
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
    expected = _files_of_bundle(destination)
    if expected is None:
        raise OutputError(
            f"{destination} exists and is not a bundle, so --force does not replace it: choose another -o"
        )
    if others := present - expected:
        raise OutputError(
            f"{destination} holds more than a bundle, and --force would delete it: move {_some(others)} elsewhere, or "
            "choose another -o"
        )


def _contents(directory: Path) -> set[str]:
    """What lies in ``directory``, named as in a manifest; a directory that no manifest can name ends in a slash."""
    found: set[str] = set()
    for path in directory.iterdir():
        inside = list(path.iterdir()) if VERSION.fullmatch(path.name) and _is_directory(path) else []
        found |= {f"{path.name}/{file.name}" + "/" * _is_directory(file) for file in inside}
        if not inside:
            found.add(path.name + "/" * _is_directory(path))
    return found


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")


def _flush_names(directory: Path) -> None:
    """Flush what the files in ``directory`` are called; some file systems cannot, and need not."""
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

    Linux offers renameat2(RENAME_EXCHANGE). Elsewhere, and on file systems without it, the old directory steps aside first,
    and comes back if the new one cannot take its place.
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
