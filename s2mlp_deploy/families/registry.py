"""The registry of families: find a family by name or spec, and a layout by name or path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import LayoutError, SpecError
from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.layouts import Layout, extend, read_toml, validate
from s2mlp_deploy.families.mixer.family import MixerFamily
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.families.s2mlp_v2.family import S2MLPv2Family
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.spec import Network, Spec
from s2mlp_deploy.system import untrusted_input
from s2mlp_deploy.system.wording import shortened

MOST_LAYOUT = 64 << 10
"""Bytes of a layout file: of one that names every layer of 36 blocks by itself, and more."""

FAMILIES: tuple[Family[Any], ...] = (S2MLPFamily(), S2MLPv2Family(), MixerFamily())


def find_family(name: str) -> Family[Any]:
    """The family called ``name``.

    Raises:
        SpecError: where there is none of that name.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise SpecError(f"no family of networks is called {name[:40]!r}: expected {known}")


def family_of(spec: Spec) -> Family[Any]:
    """The family that ``spec`` belongs to."""
    return find_family(spec.family)


def read_network(content: Any) -> Network:
    """The network in a JSON object that :meth:`Network.to_json` wrote: of any family, or of none.

    Raises:
        pydantic.ValidationError, SpecError: as :func:`read_spec`.
    """
    if isinstance(content, Mapping) and content.get("family") == OnnxNetwork.family:
        return OnnxNetwork.from_json(content)
    return read_spec(content)


def read_spec(content: Any) -> Spec:
    """The spec in a JSON object that :meth:`Spec.to_json` wrote.

    Raises:
        pydantic.ValidationError: where it is no such object.
        SpecError: where the family is unknown, or the numbers cannot be a network of it.
    """
    name = content.get("family", S2MLPFamily.name) if isinstance(content, Mapping) else S2MLPFamily.name
    spec: Spec = find_family(str(name)).spec_type.from_json(content)
    return spec


@cache
def builtin_layouts() -> tuple[Layout, ...]:
    """The layouts that come with the package: those of each family, in the order of their names."""
    found = []
    for family in FAMILIES:
        if family.layout_type():
            folder = resources.files(f"s2mlp_deploy.families.{family.name}") / "layouts"
            files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
            found += [_parse(f.read_text("utf-8"), f.name, family) for f in files]
    return tuple(found)


def find_layout(name_or_file: str) -> Layout:
    """The layout of that name, or in the TOML file at that path.

    Raises:
        LayoutError: where there is no such layout, or the file is not a layout.
    """
    path = Path(name_or_file)
    if path.suffix != ".toml":
        return _named(name_or_file)
    try:
        return _parse(untrusted_input.read_text(path, MOST_LAYOUT), str(path), FAMILIES[0])
    except OSError as error:
        raise LayoutError(f"cannot read the layout file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not a text file in UTF-8, so not a layout") from error
    except ValueError as error:
        raise LayoutError(f"{path} is too large for a layout: {error}") from error


def _named(name: str) -> Layout:
    for layout in builtin_layouts():
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in builtin_layouts())
    raise LayoutError(f"no layout is called {shortened(name)!r}: expected one of {known}, or a .toml file")


def _parse(text: str, where: str, default: Family[Any]) -> Layout:
    """The layout in ``text``: of the family that it names or extends, else of ``default``."""
    content = read_toml(text, where)
    family = default
    try:
        if "family" in content:
            family = find_family(str(content.pop("family")))
        if "extends" in content:
            base = _named(str(content.pop("extends")))
            family, content = find_family(base.family), extend(content, base, Path(where).stem)
    except SpecError as error:
        raise LayoutError(f"{where}: family: {error}") from error
    except LayoutError as error:
        raise LayoutError(f"{where}: extends: {error}") from error
    layout_type = family.layout_type()
    if layout_type is None:
        raise LayoutError(f"{where}: family: checkpoints of {family.title} are not exported")
    return validate(content, where, layout_type)
