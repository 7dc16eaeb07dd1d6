"""Fingerprints of the files and folders that a plan names, so that an item is made again when one of them changes."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.system.hashing import fingerprint


class Fingerprints:
    """Fingerprints by path, each computed once: the SHA-256 of a file, and of a folder's names, sizes and times of change.

    Folders may hold a training set, so their files are not read.
    """

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """The fingerprint of ``path``.

        Raises:
            InputError: where it cannot be read.
        """
        if path not in self._known:
            try:
                self._known[path] = fingerprint(path)
            except OSError as error:
                raise InputError(f"cannot read {path}, which the plan names: {error.strerror}") from error
        return self._known[path]
