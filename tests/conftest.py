"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support import run, save_checkpoint, small_spec

# The models here are so small that a second thread costs more than it brings, on a busy machine much more.
torch.set_num_threads(1)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small canonical checkpoint, image size 20x28."""
    return save_checkpoint(tmp_path / "small.pt", small_spec())


@pytest.fixture
def bundle(tmp_path: Path, checkpoint: Path) -> Path:
    """The ONNX bundle of ``checkpoint``."""
    ran = run("export", checkpoint, "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    return tmp_path / "bundle"
