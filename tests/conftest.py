"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import npm
from helpers.browser import Browser, chromium, serving
from helpers.cpu_seconds import CpuSeconds
from helpers.support import run, save_checkpoint, small_spec

# The models here are so small that a second thread costs more than it brings, on a busy machine much more.
torch.set_num_threads(1)

# In processes that tests start, threads of OpenMP sleep while they wait for one another. By default they wait busily, and where
# others work on the same cores an export takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="try what takes long, and each promise as often as it says"
    )
    parser.addoption(
        "--cpu", type=int, metavar="N", help="print the processor seconds, and the N files and tests that took most"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LoadedForGood())
    if most := config.getoption("--cpu"):
        config.pluginmanager.register(CpuSeconds(most))


class LoadedForGood:
    """Leaves what is loaded for good out of garbage collection, as the commands do: each export collects all else.

    With the packages that all formats take, a collection looks through 400,000 objects and takes twice as long as the rest of an export.
    """

    FEW = 50
    """Modules that may be loaded before it is worth another collection."""

    def __init__(self) -> None:
        self._modules = 0

    def pytest_collection_finish(self) -> None:
        """The tests are loaded."""
        self.pytest_runtest_logfinish()

    def pytest_runtest_logfinish(self) -> None:
        """A test has ended, and may have loaded more."""
        if len(sys.modules) > self._modules + self.FEW:
            gc.collect()
            gc.freeze()
            self._modules = len(sys.modules)

    def pytest_unconfigure(self) -> None:
        """Nothing more is tested: what is loaded may be taken apart, which some packages insist on."""
        gc.unfreeze()


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
