"""The families of this package, and which of them a spec belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.mixer.family import MixerFamily
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.schema.spec import Spec

FAMILIES: tuple[Family[Any], ...] = (S2MLPFamily(), MixerFamily())


def find(name: str) -> Family[Any]:
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
    return find(spec.family)


def read_spec(content: Any) -> Spec:
    """The spec in a JSON object that :meth:`Spec.to_json` wrote.

    Raises:
        pydantic.ValidationError: where it is no such object.
        SpecError: where the family is unknown, or the numbers cannot be a network of it.
    """
    name = content.get("family", S2MLPFamily.name) if isinstance(content, Mapping) else S2MLPFamily.name
    spec: Spec = find(str(name)).spec_type.from_json(content)
    return spec
