"""Read a bundle: every file is compared with the hash in the manifest before anything is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

from s2mlp_deploy.bundle import signature
from s2mlp_deploy.bundle.contents import GOLDEN, MANIFEST, REPORT, Bundle
from s2mlp_deploy.bundle.signature import SIGNATURE, TrustedKey
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.families.registry import read_network
from s2mlp_deploy.schema.manifest import DEEPEST, Manifest, parse_manifest
from s2mlp_deploy.schema.report import Report, parse_report
from s2mlp_deploy.system import untrusted_input
from s2mlp_deploy.system.hashing import sha256

NO_TEXT = "its path is no text in UTF-8, and runtimes open no file of such a name"


def is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_bundle(directory: Path, publisher: TrustedKey | None = None) -> Bundle:
    """The bundle at ``directory``, after checking that ``publisher`` signed it, where one is given, and every file's hash.

    Raises:
        BundleError: where a file is missing, changed, not listed, or not a plain file.
        SignatureError, KeyFileError, RuntimeMissingError: as :func:`s2mlp_deploy.bundle.signature.check`.
    """
    path = directory / MANIFEST
    signed = signature.check(directory, publisher) if publisher else signature.look(directory)
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
    return Bundle(directory, manifest, signed)


def _is_plain(directory: Path, name: str) -> bool:
    """Whether the file called ``name`` is one, and neither it nor a directory that it lies in leads elsewhere."""
    file = directory / name
    elsewhere = any((directory / part).is_symlink() for part in (name, *map(str, Path(name).parents[:-1])))
    return file.is_file() and not elsewhere


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the bundle at ``directory``, whose files are not looked at.

    Raises:
        BundleError: where there is none, or it is damaged.
    """
    return parse_manifest(_manifest_bytes(directory), str(directory / MANIFEST), read_network)


def _manifest_bytes(directory: Path) -> bytes:
    path = directory / MANIFEST
    _refuse_file_of_bundle(directory)
    if not is_text(directory):
        raise BundleError(f"cannot take {directory}: {NO_TEXT}. Move it elsewhere, or rename it")
    try:
        return read_beside(path)
    except FileNotFoundError as error:
        what = "does not exist" if not directory.exists() else f"has no {MANIFEST}"
        raise BundleError(f"{directory} {what}: expected a bundle, as s2mlp-export makes it") from error
    except ValueError as error:
        raise BundleError(f"cannot take {path}: {error}. Copy the whole bundle again") from error
    except NotADirectoryError as error:
        command = "s2mlp-repair" if directory.suffix == ".onnx" else "s2mlp-export"
        raise BundleError(
            f"{directory} is a file: expected a bundle, the directory that {command} makes of it"
        ) from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}. Expected a bundle directory") from error


def read_report(bundle: Bundle) -> Report | None:
    """The report of ``bundle``; None where it is absent or damaged: its figures are to be shown, not trusted."""
    try:
        return parse_report(read_beside(bundle.directory / REPORT))
    except (OSError, ValueError):
        return None


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
    for directory in path.parents[:DEEPEST]:
        if path.relative_to(directory).as_posix() in (files_of_bundle(directory) or ()):
            raise BundleError(f"{path} is a file of a bundle: give the bundle's directory, {directory}")


def files_of_bundle(directory: Path) -> set[str] | None:
    """The names of all files of a bundle at ``directory``, of any schema version; None where there is no bundle.

    Other programs have files called manifest.json too, and their directories must not be replaced.
    """
    try:
        content = json.loads(read_beside(directory / MANIFEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "schema_version" not in content or not isinstance(content.get("files"), dict):
        return None
    return {*content["files"], MANIFEST, REPORT, SIGNATURE}


def read_beside(path: Path) -> bytes:
    """The bytes of the plain file at ``path``, which may be as large as a manifest or a report.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is larger, or something else than a file, which could lead elsewhere or never end.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError("it is not a plain file")
    return untrusted_input.read_bytes(path)
