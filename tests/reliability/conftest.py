"""What tests of reliability share: how often to try, and a record of what came of it.

``make test`` tries each promise a few times. With ``--thorough`` it is tried as often as docs/reliability.md says, and
``--write FILE`` writes that page.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import npm, processes
from helpers.reliability.record import Record, Trials
from helpers.reliability.replacing import FEW, FORMATS, QUICK, Case
from helpers.support import save_checkpoint, small_spec


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption(
        "--write",
        metavar="FILE",
        type=Path,
        help="write what was tried, and what came of it, as Markdown; for whole modules",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "few_formats: publishing is the same for all formats, and this takes long")
    path = config.getoption("--write", default=None)
    if path and not hasattr(config, "workerinput"):  # not in a process that runs tests for another
        config.pluginmanager.register(Record(path))


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """How often to try what the test's docstring says, and what to tell of it."""
    counted = Trials(thorough=request.config.getoption("--thorough"))
    request.node.user_properties.append(counted.entry(request.module.__doc__, request.function.__doc__))
    return counted


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two checkpoints of the same shape, and inputs to calibrate with."""
    directory = tmp_path_factory.mktemp("checkpoints")
    for name, seed in (("old.pt", 1), ("new.pt", 2)):
        save_checkpoint(directory / name, small_spec(), seed=seed)
    images = np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32)
    np.save(directory / "calibration.npy", images)
    return directory


@pytest.fixture(scope="module")
def cases(checkpoints: Path) -> dict[str, Case]:
    """What was made once, by format."""
    return {}


@pytest.fixture
def case(request: pytest.FixtureRequest, checkpoints: Path, cases: dict[str, Case]) -> Case:
    """The case of the format that the test asks for."""
    name = request.param
    if name not in cases:
        format, *_ = name.split()
        if format == "trt-rtx":
            pytest.importorskip("tensorrt_rtx")
        if not npm.formats([format]):
            pytest.skip("no onnxruntime-web: make web-deps")
        options = [*FORMATS[name], *(["--calibration", checkpoints / "calibration.npy"] if "int8" in name else [])]
        made = checkpoints / name.replace(" ", "-")
        seconds = 0.0
        for which in ("old", "new"):
            arguments = [checkpoints / f"{which}.pt", "--format", format, *options]
            running = processes.export(checkpoints / "log", *arguments, "-o", made / which)
            assert running.wait() == 0, running.text
            seconds = time.monotonic() - running.started
        cases[name] = Case((checkpoints / "new.pt", "--format", format, *options), made / "old", made / "new", seconds)
    return cases[name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a case run for every format, or for a few."""
    if "case" in metafunc.fixturenames:
        names = list(FORMATS) if metafunc.config.getoption("--thorough") else list(QUICK)
        if metafunc.definition.get_closest_marker("few_formats"):
            names = [name for name in names if name in FEW]
        metafunc.parametrize("case", names, indirect=True)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A place of its own for temporary files."""
    (tmp_path / "tmp").mkdir()
    return {"TMPDIR": str(tmp_path / "tmp")}


@pytest.fixture
def strace(tmp_path: Path) -> None:
    """Skips where strace is not there or may not trace."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = subprocess.run(
        ["strace", "-o", tmp_path / "log", "-e", "trace=rename", "true"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("strace may not trace here")
