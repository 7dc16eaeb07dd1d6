"""Packages of this project that a folder of the user's own hides: ``exporters`` and ``bench`` are names that others use, too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
"""Where all packages of this project lie, beside each other."""


def hidden(*packages: str) -> str | None:
    """That Python finds something else under the name of one of ``packages``, in words; None where it finds them.

    Nothing of what it finds is run.
    """
    for package in packages:
        spec = find_spec(package)
        places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        if spec and places[0] and Path(places[0]).resolve().parent != HOME:
            return (
                f"Python finds {places[0]} where s2mlp-deploy's own package {package!r} should be: their names collide. Run this "
                "from another folder and without that one on PYTHONPATH, or rename it"
            )
    return None
