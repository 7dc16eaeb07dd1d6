"""The oldest versions that pyproject.toml allows, as constraints for pip: ``make licenses``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

EXTRAS = ("export", "openvino", "plot", "sbom", "bench")
"""Those whose oldest versions can be run here. The others need a GPU, a Jetson or a compiler, or are for development."""

LEFT_OUT = ("torch",)
"""The registry has builds for the CPU alone of newer releases only."""

HEADER = """\
# The oldest versions that pyproject.toml allows, but for torch. make licenses writes this file, and make oldest runs the tests with them.
"""


def project() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return content


def pins() -> list[str]:
    """``name==version`` for each requirement, with what says where it holds."""
    content = project()
    extras = (content["optional-dependencies"][name] for name in EXTRAS)
    wanted = map(Requirement, [*content["dependencies"], *(r for extra in extras for r in extra)])
    return sorted({_pin(r) for r in wanted if r.name not in LEFT_OUT})


def document() -> str:
    """The file."""
    return HEADER + "".join(f"{pin}\n" for pin in pins())


def _pin(requirement: Requirement) -> str:
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{canonicalize_name(requirement.name)}=={_oldest(requirement)}{marker}"


def _oldest(requirement: Requirement) -> str:
    (version,) = (s.version for s in requirement.specifier if s.operator == ">=")
    return version


if __name__ == "__main__":
    sys.stdout.write(document())
