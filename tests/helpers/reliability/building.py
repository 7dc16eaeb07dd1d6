"""Wheels and source distributions, built without a network, and virtual environments that they are installed into."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from helpers.support import ROOT

SOURCES = (
    "s2mlp_deploy",
    "exporters",
    "bench",
    "tests",
    "examples",
    "docs",
    "Makefile",
    "constraints.txt",
    "constraints-oldest.txt",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "package.json",
    "package-lock.json",
    "biome.jsonc",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".gitignore",
)
"""What a distribution is built from; besides, a clone holds only what belongs to developing."""

EPOCH = 1_500_000_000


class NotToBeHadError(Exception):
    """pip does not find the versions that were asked for."""


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


def build(place: Path, turn: int) -> Built:
    """Build both from a copy of the sources in ``place``, whose order, times and modes depend on ``turn``, as does the hash seed."""
    rng = random.Random(turn)
    copy = place / f"copy-{turn}"
    names = [f for name in SOURCES for f in ([ROOT / name] if (ROOT / name).is_file() else _files(ROOT / name))]
    rng.shuffle(names)
    for name in names:
        target = copy / name.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, target)
        target.chmod(rng.choice((0o600, 0o644, 0o666)))
        os.utime(target, (EPOCH + rng.randrange(10**8),) * 2)
    _hatch(copy, place / "dist", rng.randrange(1000))
    (wheel,), (sdist,) = place.glob("dist/*.whl"), place.glob("dist/*.tar.gz")
    return Built(wheel, sdist)


def wheel_of(sdist: Path, place: Path) -> Path:
    """The wheel that is built from a source distribution, in ``place``."""
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (copy,) = (path for path in place.iterdir() if path.is_dir())
    _hatch(copy, place / "dist", 0)
    (wheel,) = place.glob("dist/*.whl")
    return wheel


def interpreter(version: str) -> str | None:
    """A Python of this minor version that works, on the path or of pyenv's."""
    there = (Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob(f"{version}.*/bin/python")
    for found in (shutil.which(f"python{version}"), *map(str, sorted(there))):
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def environment(python: str, place: Path, *requirements: str, constraints: Path = ROOT / "constraints.txt") -> Path:
    """The Python of a new virtual environment in ``place`` with ``requirements`` installed.

    Raises:
        NotToBeHadError: where they cannot be.
    """
    subprocess.run([python, "-m", "venv", str(place)], check=True)
    fresh = place / "bin" / "python"
    pip = [str(fresh), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
    if done.returncode:
        raise NotToBeHadError(done.stderr)
    return fresh


def _files(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"]


def _hatch(sources: Path, destination: Path, seed: int) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(destination)],
        cwd=sources,
        env={**variables, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
