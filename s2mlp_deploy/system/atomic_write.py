"""Write a single file whole or not at all, and check before any work is done that it can be written."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.system import workdir


def check(path: Path, *, replace: bool, option: str = "") -> None:
    """Refuse a ``path`` that cannot be written; ``option`` is the option that named it, if any.

    Raises:
        OutputError: where ``path`` exists (without ``replace``), is not a plain file, or cannot be written.
    """
    try:
        exists, plain = path.exists(), path.is_file() and not path.is_symlink()
        there = path.parent.is_dir()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Choose {workdir.another_place(option)}") from error
    if (exists and not plain) or path.is_symlink():
        raise OutputError(f"{path} exists and is not a plain file: choose {workdir.another_place(option)}")
    if exists and not replace:
        raise OutputError(f"{path} exists: choose {workdir.another_place(option)}, or replace it with --force")
    if not there:
        raise OutputError(f"{path.parent} is not a directory: choose {workdir.another_place(option)}")
    with workdir.beside(path, option):
        pass


def write(path: Path, content: bytes, *, option: str = "") -> None:
    """Write ``content`` to ``path``, replacing any file there; ``option`` is the option that named it, if any.

    Raises:
        OutputError: where writing fails; an existing file stays unchanged.
    """
    with workdir.beside(path, option) as directory:
        new = directory / "new"
        try:
            new.write_bytes(content)
            new.replace(path)
        except OSError as error:
            raise OutputError(
                f"writing {path} failed: {error.strerror}. Free space, or choose {workdir.another_place(option)}"
            ) from error
