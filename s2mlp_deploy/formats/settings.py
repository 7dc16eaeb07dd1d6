"""Read the settings that a manifest records for an artifact as a pydantic model of its format."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from s2mlp_deploy.bundle.contents import MANIFEST, Artifact
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.schema.manifest import Setting

M = TypeVar("M", bound=BaseModel)


def recorded(artifact: Artifact, model: type[M], settings: Mapping[str, Setting] | None = None) -> M:
    """The settings that the artifact's manifest records, or ``settings`` among them, as ``model``.

    Raises:
        BundleError: where they are not what the format records.
    """
    try:
        return model.model_validate(dict(artifact.settings if settings is None else settings))
    except ValidationError as error:
        raise BundleError(
            f"{artifact.directory / MANIFEST}: engine: {complaint(error)}. The bundle was changed or damaged; copy it again"
        ) from error


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong: where, the value, and what was expected."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:200]
    return f"{where} {reprlib.repr(first['input'])}: {first['msg']}"
