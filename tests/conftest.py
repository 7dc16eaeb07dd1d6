"""Fixtures that several test modules share."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX bundle of a small checkpoint with two blocks, which no test changes."""
    directory = tmp_path_factory.mktemp("pristine")
    ran = run("export", save_checkpoint(directory / "small.pt", small_spec()), "-o", directory / "bundle")
    assert ran.code == 0, ran.err
    return directory / "bundle"


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy of ``pristine``, to be changed."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))
