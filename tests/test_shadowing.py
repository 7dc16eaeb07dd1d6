"""A project that has folders ``bench`` and ``exporters`` of its own is told so, and nothing of it is run instead of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import Ran, save_checkpoint, small_spec

TOUCHED = "raise SystemExit('the user\\'s own package was run')\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project, with a checkpoint."""
    for name in ("bench", "exporters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(TOUCHED)
    save_checkpoint(tmp_path / "small.pt", small_spec())
    return tmp_path


def command(project: Path, name: str, *arguments: object) -> Ran:
    """``s2mlp-NAME`` with the current directory first on Python's path, as ``python -m``, notebooks and PYTHONPATH=. have it."""
    code = f"from s2mlp_deploy import commands; commands.{name}()"
    whole = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(whole, cwd=project, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "arguments", "folder"),
    [
        ("export", ("small.pt",), "exporters"),
        ("bench", ("bundle",), "bench"),
        ("bench", ("scale", "small.pt"), "bench"),
    ],
)
def test_the_folder_is_named_with_what_to_do(project: Path, name: str, arguments: tuple[str, ...], folder: str) -> None:
    before = sorted(project.iterdir())
    ran = command(project, name, *arguments)
    assert (ran.code, ran.out) == (4, "") and "Traceback" not in ran.err
    assert f"Python finds {project / folder} where s2mlp-deploy's own package {folder!r} should be" in ran.err
    assert "Run this from another folder" in ran.err and sorted(project.iterdir()) == before


def test_the_benchmark_needs_both_packages(project: Path) -> None:
    (project / "bench" / "__init__.py").unlink()
    (project / "bench").rmdir()
    ran = command(project, "bench", "bundle")
    assert ran.code == 4 and f"Python finds {project / 'exporters'}" in ran.err


def test_the_doctor_says_it_of_each_format(project: Path) -> None:
    ran = command(project, "doctor")
    assert ran.code == 0 and f"Python finds {project / 'exporters'}" in " ".join(ran.out.split()).replace("/ ", "/")


def test_what_needs_neither_works(project: Path) -> None:
    assert command(project, "inspect", "small.pt").code == 0


def test_folders_that_are_no_packages_hide_nothing(project: Path) -> None:
    for name in ("bench", "exporters"):
        (project / name / "__init__.py").unlink()
    ran = command(project, "export", "small.pt", "-o", "bundle")
    assert ran.code == 0 and (project / "bundle" / "manifest.json").is_file(), ran.err
