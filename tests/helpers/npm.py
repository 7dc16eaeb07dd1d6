"""What is here of npm's packages, for tests: no other module of them looks into ``node_modules``.

``make test`` runs the tests without the mark ``npm`` first and brings the packages after that, so in a fresh clone those tests
are known to need none of them. ``@pytest.mark.npm("PACKAGE", …)`` marks a test that needs packages and is skipped without them,
``@pytest.mark.npm()`` one that runs without them and tries more with them.
"""

from __future__ import annotations

from collections.abc import Iterable

from helpers.support import ROOT
from s2mlp_exporters.web.exporter import DIST

NODE_MODULES = ROOT / "node_modules"
WEB = ROOT / DIST
"""ONNX Runtime Web's files."""


def has(package: str) -> bool:
    """Whether ``make web-deps`` has put ``package`` here."""
    return (NODE_MODULES / package / "package.json").is_file()


def formats(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the formats ``names`` that can be made here: ``web`` takes ONNX Runtime Web."""
    return tuple(name for name in names if name != "web" or has("onnxruntime-web"))
