"""Files that the commands of s2mlp-bench write, as text or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s2mlp_deploy.cli.terminal import plain
from s2mlp_deploy.system import atomic_write


def check_writable(path: Path | None, *, replace: bool) -> None:
    """So that nothing is measured for a file that cannot be written; without a ``path`` nothing will be.

    Raises:
        OutputError: as :func:`s2mlp_deploy.system.atomic_write.check`.
    """
    if path is not None:
        atomic_write.check(path, replace=replace)


def write(path: Path, content: str | bytes) -> None:
    """``content`` (text as UTF-8) at ``path``, in place of what may be there.

    Raises:
        OutputError: where that fails; what was there stays.
    """
    atomic_write.write(path, content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """``document`` as JSON, with null for what is not finite, as :func:`write` does."""
    write(path, json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
