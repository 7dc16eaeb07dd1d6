"""coremltools, Apple's package that writes and, on a Mac, runs Core ML's models; imported on first use, alone and without its warnings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.metadata import version
from threading import RLock
from typing import Any

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.dependencies import pip_install

PACKAGE = MODULE = "coremltools"

REMEDY = pip_install("coreml")

OF_OTHERS = (
    "torch",
    "torchvision",
    "torchaudio",
    "torchao",
    "executorch",
    "sklearn",
    "libsvm",
    "xgboost",
    "tensorflow",
    "transformers",
)
"""The packages whose models coremltools converts. It imports each that is installed, which takes seconds, and warns of their versions."""

_turn = RLock()


def load(name: str = MODULE) -> Any:
    """The module ``name`` of coremltools.

    At its first import it finds none of :data:`OF_OTHERS`: in this process its converters, which nothing here runs, are left out.
    Nor does it warn that it is on no Mac, which is told where it matters.

    Raises:
        RuntimeMissingError: where coremltools is not installed.
    """
    with _turn, nullcontext() if MODULE in sys.modules else _alone():
        try:
            return import_module(name)
        except ImportError as error:
            raise RuntimeMissingError(f"coremltools cannot be loaded ({error}): {REMEDY}") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Hide :data:`OF_OTHERS` from imports, and keep coremltools' logger quiet."""
    logger = logging.getLogger(MODULE)
    level, loaded = logger.level, {name: sys.modules[name] for name in OF_OTHERS if name in sys.modules}
    logger.setLevel(logging.CRITICAL)
    sys.modules.update(dict.fromkeys(OF_OTHERS))  # type: ignore[arg-type]  # None is what Python takes for a missing module
    try:
        yield
    finally:
        for name in OF_OTHERS:
            del sys.modules[name]
        sys.modules.update(loaded)
        logger.setLevel(level)


def toolkit_version() -> str:
    """The installed version of coremltools.

    Raises:
        RuntimeMissingError: where it is not installed.
    """
    load()
    return version(PACKAGE)
