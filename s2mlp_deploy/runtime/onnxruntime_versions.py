"""The oldest release of ONNX Runtime that computes each feature of bundles correctly.

Commands refuse old releases by this table, ``s2mlp-doctor`` prints from it, and docs/engines.md repeats it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Literal, TypeAlias

from packaging.version import Version

from s2mlp_deploy.system import dependencies

Feature: TypeAlias = Literal["graphs", "engines", "float16", "plugins", "bytes"]


@dataclass(frozen=True)
class Least:
    """The first release that does ``what``, and the behaviour of older ones."""

    release: str
    what: str
    older: str


LEAST: dict[Feature, Least] = {
    "graphs": Least("1.17", "bundles of any format", "do not load graphs of ONNX opset 20, which all bundles hold"),
    "engines": Least("1.18", "bundles of format ort", "do not load what a newer one has optimized"),
    "float16": Least("1.19", "graphs that compute in float16 on a CPU", "give NaN from the second run on"),
    "plugins": Least("1.23", "execution providers that are packages of their own", "do not load them"),
    "bytes": Least("1.25", "products of bytes on a CPU with AMX", "give wrong numbers for many shapes"),
}
"""Measured with each release from 1.16.3 on; the last row is microsoft/onnxruntime#27671."""


def installed() -> Version:
    """The release at hand: of the module where it is loaded, else of its package, which takes no import."""
    if "onnxruntime" not in sys.modules and (owners := dependencies.owners("onnxruntime")):
        return Version(version(owners[0]))
    return Version(import_module("onnxruntime").__version__)


def too_old(feature: Feature) -> str | None:
    """Why the release at hand does not serve for ``feature``, and which release does; None where it serves."""
    least, here = LEAST[feature], installed()
    if here >= Version(least.release):
        return None
    return f"releases of onnxruntime before {least.release} {least.older}, and {here} is installed: {remedy(feature)}"


def remedy(feature: Feature) -> str:
    """The remedy: the release to install for ``feature``."""
    return f"pip install 'onnxruntime>={LEAST[feature].release}'"
