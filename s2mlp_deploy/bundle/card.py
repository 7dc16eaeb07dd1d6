"""The model card's place in a bundle: a file that people edit, so no hash of it is in the manifest.

Its last line is a hash of the text above. ``--force`` replaces a card that still has the right one, and no other.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from s2mlp_deploy.system import untrusted_input

CARD = "README.md"

_SEAL = re.compile(rb"<!-- As s2mlp-deploy wrote it: sha256 ([0-9a-f]{64}) -->\n\Z")


def sealed(text: str) -> str:
    """``text`` with the line that shows that nobody has edited it."""
    return f"{text}<!-- As s2mlp-deploy wrote it: sha256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_as_written(path: Path) -> bool:
    """Whether the file at ``path`` is a card that nobody has edited."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        content = untrusted_input.read_bytes(path)
    except (OSError, ValueError):
        return False
    seal = _SEAL.search(content)
    return seal is not None and hashlib.sha256(content[: seal.start()]).hexdigest().encode() == seal[1]
