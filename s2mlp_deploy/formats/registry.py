"""Formats by name: ONNX, which is built in, and those that the entry point group ``s2mlp_deploy.exporters`` names, inside or outside
this project.
"""

from __future__ import annotations

import functools
import inspect as inspection
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats.options import Options, expectation
from s2mlp_deploy.system.dependencies import PROJECT

if TYPE_CHECKING:  # the runtimes' side, which names and options do not need
    from s2mlp_deploy.bundle.contents import Bundle
    from s2mlp_deploy.formats.base import Compiler, Exporter, Format

GROUP = "s2mlp_deploy.exporters"

ONNX = "onnx"
"""The built-in format, which all others start from."""


def names() -> tuple[str, ...]:
    """The names of all formats, in alphabetical order; none is loaded."""
    return tuple(sorted({ONNX, *_points()}))


def find(name: str) -> Exporter | Compiler:
    """The format called ``name``.

    Raises:
        UsageError: where no installed package offers it.
        RuntimeMissingError: where the package that offers it cannot be loaded, or its class is not a whole format.
    """
    if name == ONNX:
        from s2mlp_deploy.formats.onnx import OnnxFile

        return OnnxFile()
    points = _points()
    if name not in points:
        raise UsageError(f"no exporter for format {name!r} is installed: there are {', '.join(names())}")
    try:
        found = points[name].load()
    except (ImportError, AttributeError) as error:
        raise RuntimeMissingError(
            f"the exporter for format {name!r} cannot be loaded ({error}): install what it needs, or reinstall it"
        ) from error
    if reason := _unfit(found, name):
        raise RuntimeMissingError(
            f"the format {name!r} of the package {_package(points[name])} cannot be used: {reason}. Install a release of that package "
            "for this release of s2mlp-deploy, or uninstall it"
        )
    return cast("Exporter | Compiler", found())


def built_in_options() -> dict[str, type[Options]]:
    """The options of the formats that come with this project, without loading what the formats need.

    Each package of exporters keeps them in a module ``options``, whose ``OPTIONS`` has a model by format; one that has no such
    module has no options.
    """
    modules = (f"{point.module.rpartition('.')[0]}.options" for name, point in _points().items() if is_built_in(name))
    found = {module: import_module(module).OPTIONS for module in sorted(set(modules)) if find_spec(module)}
    return {name: model for models in found.values() for name, model in models.items()}


def is_built_in(name: str) -> bool:
    """Whether the format called ``name`` comes with this project."""
    return name == ONNX or (name in (points := _points()) and _package(points[name]) == PROJECT)


def inspect(bundle: Bundle) -> None:
    """Inspect a bundle by its format's rules, before the first use of one that may come from elsewhere.

    Raises:
        BundleError: as :meth:`~s2mlp_deploy.formats.base.Format.inspect`.
        UsageError, RuntimeMissingError: as :func:`find`.
    """
    find(bundle.manifest.format).inspect(bundle)


def options(target: Format, given: Mapping[str, Any]) -> Options:
    """The options ``given`` by name, as text or as values, in the model of the format ``target``.

    Raises:
        UsageError: for an option that the format does not have, or a value that the option cannot have.
    """
    known = target.options.model_fields
    if unknown := sorted(given.keys() - known.keys()):
        raise UsageError(
            f"{flags(target.name, *unknown)}: not for --format {target.name}"
            + (f", which knows {flags(target.name, *known)}" if known else "")
        )
    try:
        return target.options.model_validate(dict(given))
    except ValidationError as error:
        name, value, reason = expectation(error)
        raise UsageError(f"{flags(target.name, name)} {value}: {reason}") from error


def flags(format: str, *options: str) -> str:
    """The ``options`` of ``format`` as one types them: those of a format that comes with this project have flags of their own."""
    named = is_built_in(format)
    return ", ".join("--" + name.replace("_", "-") if named else f"-O {name}" for name in options)


def _points() -> Mapping[str, EntryPoint]:
    return _points_on(tuple(sys.path))


@functools.lru_cache(maxsize=1)
def _points_on(_path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """The entry points of the packages on a search path, kept since one command looks them up ten times, for 10 ms each."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name != ONNX}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _unfit(found: object, name: str) -> str | None:
    """Why the object behind an entry point is not a format called ``name``; None where it is."""
    from s2mlp_deploy.formats.base import Compiler, Exporter

    if not (isinstance(found, type) and issubclass(found, (Exporter, Compiler))):
        return "it is no subclass of s2mlp_deploy.formats.base.Exporter or Compiler"
    if inspection.isabstract(found):
        missing = sorted(found.__abstractmethods__)
        unsafe = (
            "inspect" in missing and ", and without inspect its artifacts could not be checked before they are loaded"
        )
        return f"its class {found.__name__} does not define {', '.join(missing)}{unsafe or ''}"
    own: object = found.name
    return None if own == name else f"its class {found.__name__} calls itself {own!r}"
