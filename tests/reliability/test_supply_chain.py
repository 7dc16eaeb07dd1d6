"""What is installed is what was tested, and everybody's part in it is told

The wheel holds all that the commands need, and nothing else; it is built reproducibly, and bundles made with it in another
environment are the same (above). The lowest version of every dependency is one that exists and works: `make oldest` runs the tests
with them. [dependencies.md](dependencies.md) lists what is installed, with licences, and says how to ask for known
vulnerabilities; `--sbom` writes what made a bundle into it.

Not covered: torch before 2.13, and the extras for GPUs and Jetsons, in their lowest versions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers import licenses, oldest
from helpers.reliability import building
from helpers.reliability.record import Trials
from helpers.support import ROOT, SOURCES

RUNTIMES = (
    "base",
    "export",
    "gpu",
    "trt",
    "trt-rtx",
    "openvino",
    "litert",
    "executorch",
    "coreml",
    "plot",
    "sbom",
    "sign",
    "bench",
    "loadgen",
)


NOT_NEEDED = {"tqdm", "certifi", "hypothesis"}
"""LiteRT's package requires tqdm to show how far it is in compiling for NPUs, ExecuTorch's requires the others to fetch models and to test itself, model-signing's certifi for Sigstore alone;
tests/formats/test_litert.py and test_executorch.py run models without. coremltools loads tqdm, to show how far its converters are, which nothing here runs."""


def test_what_the_wheel_holds(tmp_path: Path, trials: Trials) -> None:
    """Every file of the three packages is in the wheel, with the licence and the marker of typed packages; no test or cache is."""
    with zipfile.ZipFile(building.build(tmp_path, 0).wheel) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    sources = {
        f.relative_to(ROOT / place).as_posix()
        for package, place in SOURCES.items()
        for f in (ROOT / place / package).rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == sources
    assert {f"{package}/py.typed" for package in SOURCES} <= inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    trials.tried("files", len(names))


def test_the_oldest_versions_are_those_of_pyproject(trials: Trials) -> None:
    """constraints-oldest.txt, which `make oldest` installs, says what pyproject.toml allows."""
    assert (ROOT / "constraints-oldest.txt").read_text("utf-8") == oldest.document()
    trials.tried("lower bounds", len(oldest.pins()))


def test_the_list_of_licences_is_the_environments(trials: Trials) -> None:
    """docs/dependencies.md is what `make licenses` writes for the versions of constraints.txt."""
    pinned = [
        Requirement(line) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[0] != "#"
    ]
    if other := [r.name for r in pinned if not _has(r)]:
        pytest.skip(f"other versions are installed: {', '.join(other[:5])}")
    written = licenses.document()
    assert (ROOT / "docs" / "dependencies.md").read_text("utf-8") == written
    trials.tried("packages", written.count("\n| "))


def _has(requirement: Requirement) -> bool:
    try:
        return version(requirement.name).partition("+")[0] in requirement.specifier
    except PackageNotFoundError:
        return False


def test_no_copyleft_is_needed_to_run_anything(trials: Trials) -> None:
    """The licences of what each extra installs, but for tqdm, the Jetson's and those for development, ask nothing of who passes it on."""
    content = oldest.project()
    groups = {"base": content["dependencies"], **content["optional-dependencies"]}
    for name in RUNTIMES:
        packages = licenses.closure_of(groups[name])
        found = {n for n, p in packages.items() if licenses.COPYLEFT.search(" ".join(p.licenses))}
        assert found - NOT_NEEDED == set()
        trials.tried("packages", len(packages))


def test_a_device_with_the_oldest_python_and_the_oldest_versions(
    pristine: Path, tmp_path: Path, trials: Trials
) -> None:
    """The wheel is installed with the lowest versions by Python 3.10, without torch; there a bundle is verified and compiled in four formats."""
    if not trials.thorough:
        pytest.skip("only with --thorough: installs packages")
    python = building.interpreter("3.10")
    if not python:
        pytest.skip("no Python 3.10")
    wheel = building.build(tmp_path / "dist", 0).wheel
    fresh = building.environment(
        python,
        tmp_path / "device",
        f"{wheel}[openvino]",
        "onnxruntime",
        "pillow",
        constraints=ROOT / "constraints-oldest.txt",
    )
    commands = [["verify", str(pristine), "--per-block"]]
    for format in ("ort", "openvino", "triton"):
        commands += [["export", str(pristine), "--format", format, "-o", format], ["verify", format]]
    for command, *arguments in commands:
        done = subprocess.run(
            [str(fresh.parent / f"s2mlp-{command}"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        trials.tried("commands")
    trials.note(
        f"Python 3.10, lowest versions; the newest are Python {'.'.join(map(str, sys.version_info[:2]))}'s of constraints.txt"
    )
