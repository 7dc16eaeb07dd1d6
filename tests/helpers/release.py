"""Build the wheel and the source distribution, check both, and try each in empty environments: ``make dist``.

``dist`` holds the two files afterwards. Needs an index for pip. Every Python from 3.10 on that this machine has takes part; each gets
an environment for the wheel and one for the source distribution, with nothing but what they require, where the commands that need no
runtime run.
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
NONE = Path(os.devnull)
"""No constraints: the newest versions, as users get them."""
COMMANDS = ("inspect", "export", "repair", "tune", "sweep", "verify", "doctor", "bench")


def main() -> None:
    """Stop at the first thing that fails, with what it printed."""
    bundle = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        built = building.build(place / "build", 0)
        _check(built, place / "tools")
        for version in VERSIONS:
            python = building.interpreter(version)
            if python is None:
                print(f"not run    Python {version} is not here", flush=True)
                continue
            for kind, file in (("wheel", built.wheel), ("sdist", built.sdist)):
                _try(
                    building.environment(python, place / f"{version}-{kind}", str(file), constraints=NONE),
                    place,
                    bundle,
                )
                print(
                    f"passed     Python {version}, from the {kind}: --help of every command, s2mlp-doctor, s2mlp-inspect BUNDLE",
                    flush=True,
                )
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


def _try(python: Path, place: Path, bundle: Path) -> None:
    """Run, in ``python``'s environment, what needs no runtime."""
    for name in COMMANDS:
        _run(python.parent, place, f"s2mlp-{name}", "--help")
    _run(python.parent, place, "s2mlp-doctor")
    _run(python.parent, place, "s2mlp-doctor", "--json")
    _run(python.parent, place, "s2mlp-inspect", str(bundle.resolve()), "--json")
    _run(python.parent, place, "python", "-m", "s2mlp_deploy", "completion", "bash")


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
