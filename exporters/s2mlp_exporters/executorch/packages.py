"""ExecuTorch's package and PyTorch, imported on first use."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.dependencies import pip_install

PACKAGE = MODULE = "executorch"

REMEDY = pip_install("executorch")


def missing() -> str | None:
    """Why programs can be neither made nor run here, in words; None where they can.

    ExecuTorch's package does not require torch, which it cannot be loaded without.
    """
    for name, command in ((MODULE, REMEDY), ("torch", pip_install("export"))):
        if find_spec(name) is None:
            return f"this needs the package {name}: {command}"
    return None


def load(name: str) -> Any:
    """The module ``name`` of ExecuTorch.

    Raises:
        RuntimeMissingError: where it cannot be loaded.
    """
    if reason := missing():
        raise RuntimeMissingError(f"ExecuTorch cannot be loaded: {reason}")
    try:
        import_module("torch")  # whose libraries ExecuTorch's are linked to
        return import_module(name)
    except ImportError as error:
        raise RuntimeMissingError(f"ExecuTorch cannot be loaded ({error}): {REMEDY}") from error


def executorch_version() -> str:
    """The installed version of ExecuTorch.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    if reason := missing():
        raise RuntimeMissingError(f"ExecuTorch cannot be loaded: {reason}")
    return version(PACKAGE)
