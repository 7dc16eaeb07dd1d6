"""Build the wheel and the source distribution, check both, and try the wheel in empty environments: ``make dist``.

``dist`` holds the two files afterwards. Needs an index for pip. Every Python from 3.10 on that this machine has takes part; each gets
an environment with the wheel and nothing but what it requires, where the commands that need no runtime run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.reliability import building

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CHECKERS = ("twine==7.0.0", "check-wheel-contents==0.6.3")
COMMANDS = ("inspect", "export", "repair", "verify", "doctor", "bench")


def main() -> None:
    """Stop at the first thing that fails, with what it printed."""
    bundle = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        built = building.build(place / "build", 0)
        _check(built, place / "tools")
        for version in VERSIONS:
            _try(version, built.wheel, place, bundle)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        (ROOT / "dist").mkdir()
        for file in (built.wheel, built.sdist):
            print(f"built      {shutil.copy(file, ROOT / 'dist')}")


def _check(built: building.Built, place: Path) -> None:
    """Hold both files to the rules of the index, and the wheel to those of wheels."""
    python = building.environment(sys.executable, place, *CHECKERS)
    _run(python.parent, place, "twine", "check", "--strict", str(built.wheel), str(built.sdist))
    _run(python.parent, place, "check-wheel-contents", "--config", str(ROOT / "pyproject.toml"), str(built.wheel))
    print("passed     twine check --strict, check-wheel-contents")


def _try(version: str, wheel: Path, place: Path, bundle: Path) -> None:
    python = building.interpreter(version)
    if python is None:
        print(f"not run    Python {version} is not here")
        return
    fresh = building.environment(python, place / version, str(wheel), constraints=Path(os.devnull))
    for name in COMMANDS:
        _run(fresh.parent, place, f"s2mlp-{name}", "--help")
    _run(fresh.parent, place, "s2mlp-doctor", "--json")
    _run(fresh.parent, place, "s2mlp-inspect", str(bundle.resolve()), "--json")
    _run(fresh.parent, place, "python", "-m", "s2mlp_deploy", "doctor")
    print(f"passed     Python {version}: --help of every command, s2mlp-doctor, s2mlp-inspect BUNDLE")


def _run(programs: Path, directory: Path, program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(programs / program), *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{program} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
