"""Scan a .pte file before ExecuTorch loads it."""

from __future__ import annotations

import struct
from pathlib import Path

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting


def inspect(path: Path) -> None:
    """Refuse the file at ``path`` where it is no program.

    Raises:
        BundleError: with the reason.
    """
    with inspecting(path, OSError, struct.error), path.open("rb") as file:
        head = file.read(40)
        if head[4:8] != b"ET12" or head[8:12] != b"eh00":
            raise Unexpected("it is no .pte file")
