"""The SHA-256 of files of any length."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from s2mlp_deploy.system.hashing import sha256

PART = 1 << 20


@pytest.mark.parametrize("length", [0, 1, PART, PART + 1, 3 * PART + 5])
def test_every_byte_of_a_file_counts(length: int, tmp_path: Path) -> None:
    content = b"x" * length
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
