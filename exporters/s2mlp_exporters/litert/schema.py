"""The Python bindings of the .tflite schema that the package ai-edge-litert ships, imported on first use."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.dependencies import pip_install

PACKAGE = "ai-edge-litert"
MODULE = "ai_edge_litert"

REMEDY = pip_install("litert")

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3


def load_schema() -> Any:
    """The generated module of the schema, with its object API.

    Raises:
        RuntimeMissingError: where ai-edge-litert is not installed.
    """
    return load(f"{MODULE}.schema_py_generated")


def load(name: str) -> Any:
    """The module ``name`` of ai-edge-litert.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise RuntimeMissingError(f"LiteRT cannot be loaded ({error}): {REMEDY}") from error


def litert_version() -> str:
    """The installed version of ai-edge-litert.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    load(MODULE)
    return version(PACKAGE)
