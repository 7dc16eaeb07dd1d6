"""A format's options, and the settings that its manifests record, as pydantic models of the format's own."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from s2mlp_deploy.bundle.contents import MANIFEST, Artifact
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.schema.manifest import Setting

M = TypeVar("M", bound=BaseModel)


class Options(BaseModel):
    """The options of a format; subclasses have a field for each, with a description, a default and constraints.

    Fields are set by name, as in ``-O workspace_mib=64``, from the text that follows: numbers, words, paths and truth values
    are read by pydantic. A field that is not given keeps its default and is not in ``model_fields_set``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def given(self) -> dict[str, Any]:
        """The fields that were given, without defaults."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


@dataclass(frozen=True)
class Metavar:
    """In a field's ``Annotated`` type: the name of its value in ``--help``, such as ``DIR``."""

    text: str


def _split(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


CommaSeparated = BeforeValidator(_split)
"""In a field's ``Annotated`` type, a tuple: the command line gives its items with commas between."""


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


def expectation(error: ValidationError) -> tuple[str, str, str]:
    """The field that is wrong first, its value, and what was expected of it."""
    first = error.errors()[0]
    reason = re.sub("^(Value error, |Assertion failed, )", "", first["msg"])
    reason = re.sub("^Input should be (?=less|greater)", "expected a number ", reason)
    return str(first["loc"][0]), reprlib.repr(first["input"]), re.sub("^Input should be ", "expected ", reason)
