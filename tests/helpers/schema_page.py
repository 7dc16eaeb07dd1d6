"""A page of Markdown from JSON schemas of pydantic: each model with its fields, their types and their defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

INTRODUCTION = """\
# Files of a bundle

The fields of `manifest.json` and `report.json`, from the models that read and write them; the JSON Schemas are
[manifest.schema.json](manifest.schema.json) and [report.schema.json](report.schema.json). In a manifest an unknown field is an error, and a report is never
trusted ([stability.md](../stability.md)). What else lies in a bundle: [export.md](../export.md#what-is-in-a-bundle).
"""


def page(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with a section for each file of ``schemas``, by name."""
    sections = [INTRODUCTION]
    for file, schema in schemas.items():
        sections.append(f"\n## {file}\n\n{_model(schema, file)}")
        sections += [
            f"\n### {name} of {file}\n\n{_model(model, file)}"
            for name, model in schema["$defs"].items()
            if "properties" in model
        ]
    return "".join(sections)


def _model(model: Mapping[str, Any], file: str) -> str:
    rows = [
        f"| `{name}` | {_type(field, file)} | {_default(name, field, model)} |\n"
        for name, field in model["properties"].items()
    ]
    return f"{_prose(model.get('description', ''))}\n\n| field | type | if absent |\n|---|---|---|\n{''.join(rows)}"


def _prose(docstring: str) -> str:
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", docstring)
    return re.sub(r"\bdocs/(\w+)\.md\b", r"[\1.md](../\1.md)", text.replace("``", "`"))


def _default(name: str, field: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if name in model.get("required", ()) and "default" not in field:
        return "an error"
    return f"`{json.dumps(field.get('default'), ensure_ascii=False)}`"


def _type(field: Mapping[str, Any], file: str) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()}-of-{file.replace('.', '')})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one, file) for one in field["anyOf"]))
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'], file)}" if "items" in field else "list"
    if kind == "object" and isinstance(field.get("additionalProperties"), Mapping):
        return f"names, each with {_type(field['additionalProperties'], file)}"
    return kind
