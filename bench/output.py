"""Files that the commands of s2mlp-bench write: checked before anything is measured, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.terminal import plain


def check_writable(path: Path | None, *, replace: bool) -> None:
    """So that nothing is measured for a file that cannot be written; without a ``path`` nothing will be.

    Raises:
        OutputError: where ``path`` is taken (without ``replace``), or has no directory to be in.
    """
    if path is None:
        return
    if path.is_dir() or (path.exists() and not replace):
        raise OutputError(f"{path} exists: choose another file, or replace it with --force")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a directory: choose another place for {path.name}")


def write(path: Path, content: str | bytes) -> None:
    """``content`` (text as UTF-8) at ``path``, in place of what may be there.

    Raises:
        OutputError: where that fails; what was there stays.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        scratch.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}. Choose another place") from error
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """``document`` as JSON, with null for what is not finite, as :func:`write` does."""
    write(path, json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
