"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import npm
from helpers.browser import Browser, chromium, serving
from helpers.support import run, save_checkpoint, small_spec

# The models here are so small that a second thread costs more than it brings, on a busy machine much more.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="try what takes long, and each promise as often as it says"
    )


def pytest_collection_finish() -> None:
    """Leave out of garbage collection what is loaded for good, as the commands do: each export collects all else."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what takes long unless it is wanted, and what needs packages from npm that are not here."""
    if item.get_closest_marker("thorough") and not item.config.getoption("--thorough"):
        pytest.skip("takes long: make thorough")
    for mark in item.iter_markers("npm"):
        for package in mark.args:
            if not npm.has(package):
                pytest.skip(f"no {package}: make web-deps")


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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server of ``browser`` serves."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def one_browser(served: Path) -> Iterator[Browser]:
    """A Chromium and a server, for all tests of a module."""
    with serving(served) as port, chromium(port) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The same, with no page open before and after."""
    yield one_browser
    one_browser.close_pages()
