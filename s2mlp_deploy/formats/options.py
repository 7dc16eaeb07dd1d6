"""The options of a format, as a pydantic model of its own. It needs pydantic alone, so that ``--help`` lists them without any runtime."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from typing import Any

from pydantic import BeforeValidator, ValidationError

from s2mlp_deploy.schema.strict_model import StrictModel


class Options(StrictModel):
    """The options of a format; subclasses have a field for each, with a description, a default and constraints.

    Fields are set by name, as in ``-O workspace_mib=64``, from the text that follows: numbers, words, paths and truth values
    are read by pydantic. A field that is not given keeps its default and is not in ``model_fields_set``.
    """

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


def expectation(error: ValidationError) -> tuple[str, str, str]:
    """The field that is wrong first, its value, and what was expected of it."""
    first = error.errors()[0]
    reason = re.sub("^(Value error, |Assertion failed, )", "", first["msg"])
    reason = re.sub("^Input should be (?=less|greater)", "expected a number ", reason)
    return str(first["loc"][0]), reprlib.repr(first["input"]), re.sub("^Input should be ", "expected ", reason)
