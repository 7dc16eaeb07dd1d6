"""Describe a model in TFLite's own metadata, for Android's tools: what its input holds, and the classes' names.

By the published schema, tensorflow/tflite-support's metadata_schema.fbs, version 1.0: a FlatBuffer among the model's
metadata, and behind the model a zip archive with the file of labels, which that FlatBuffer names.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zipfile import ZipFile, ZipInfo

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.schema.manifest import Preprocessing

ENTRY = "TFLITE_METADATA"
"""The name of the entry of a model's metadata."""

LABELS = "labels.txt"

PREPROCESSING, NAMES, CHECKPOINT = "s2mlp.preprocessing", "s2mlp.labels", "s2mlp.checkpoint_sha256"

_IDENTIFIER, _PARSER_VERSION = b"M001", "1.0.0"

_TABLES: Mapping[str, tuple[str, ...]] = {
    "AssociatedFile": ("name", "description", "type", "locale"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "Content": ("content_properties_type", "content_properties", "range"),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "Stats": ("max", "min"),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
}
"""The fields of the schema's tables, in its order, as far as they are used here."""

_FEATURES, _IMAGE = 1, 2
"""ContentProperties."""

_COLOURS = {"RGB": 1, "L": 2}
"""ColorSpaceType."""

_AXIS_LABELS, _NORMALIZATION = 2, 1
"""AssociatedFileType.TENSOR_AXIS_LABELS, ProcessUnitOptions.NormalizationOptions."""

_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class Facts:
    """The facts that tools want: how images become the input, the names of input and output, and the classes' names.

    ``in_bytes`` says that the input is pixels as bytes, with channels last; else it is prepared, with channels first.
    """

    preprocessing: Preprocessing
    input: str
    output: str
    in_bytes: bool
    labels: tuple[str, ...]
    checkpoint: str


def facts(metadata: Mapping[str, str], input: tuple[str, str], output: tuple[str, int]) -> Facts | None:
    """The facts in this project's ``metadata``, with name and type of the input, and name and length of the output.

    None where there are none, as in files that no export wrote.

    Raises:
        ValueError: where they are not what an export writes.
    """
    if PREPROCESSING not in metadata:
        return None
    labels = json.loads(metadata.get(NAMES, "null")) or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{NAMES} is no list of names")
    preprocessing = Preprocessing.model_validate_json(metadata[PREPROCESSING])
    if not preprocessing.scale > 0:
        raise ValueError(f"{PREPROCESSING} has the scale {preprocessing.scale}")
    named = tuple(labels) if len(labels) == output[1] else ()  # one logit names two classes
    return Facts(preprocessing, input[0], output[0], input[1] == "uint8", named, metadata.get(CHECKPOINT, ""))


def refuse_lines(facts: Facts) -> None:
    """Refuse labels that a file of one label a line cannot hold.

    Raises:
        UsageError: naming the first.
    """
    if odd := [label for label in facts.labels if _LINE_BREAKS.search(label)]:
        raise UsageError(
            f"the label {odd[0]!r} goes over several lines, and a .tflite file has one a line: give the class another name"
        )


def flatbuffer(facts: Facts) -> bytes:
    """The metadata's FlatBuffer."""
    import flatbuffers

    files = [
        _Table("AssociatedFile", {"name": LABELS, "description": "names of the classes", "type": _AXIS_LABELS})
    ] * bool(facts.labels)
    output: dict[str, _Field] = {
        "name": facts.output,
        "description": f"{facts.output} of the classes, in the order of their labels",
        "content": _content("FeatureProperties", _FEATURES),
    }
    if files:
        output["associated_files"] = files
    graph = _Table(
        "SubGraphMetadata",
        {"input_tensor_metadata": [_input(facts)], "output_tensor_metadata": [_Table("TensorMetadata", output)]},
    )
    model = _Table(
        "ModelMetadata",
        {
            "name": "Image classifier",
            "description": f"Written by s2mlp-deploy from the checkpoint with the SHA-256 {facts.checkpoint}",
            "subgraph_metadata": [graph],
            "min_parser_version": _PARSER_VERSION,
        },
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), _IDENTIFIER)
    return bytes(builder.Output())


def archive(facts: Facts, begin: int) -> bytes:
    """The zip archive that follows a model of ``begin`` bytes, stored and without times; empty where there are no labels."""
    if not facts.labels:
        return b""
    behind = _Behind(begin)
    with ZipFile(behind, "w") as made:
        info = ZipInfo(LABELS)
        info.create_system, info.external_attr = 3, 0o644 << 16
        made.writestr(info, "".join(f"{label}\n" for label in facts.labels).encode())
    return behind.getvalue()


class _Behind(io.BytesIO):
    """A file of which only what lies behind ``begin`` bytes is kept."""

    def __init__(self, begin: int) -> None:
        super().__init__()
        self._begin = begin

    def tell(self) -> int:
        return self._begin + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._begin + super().seek(offset - self._begin if whence == io.SEEK_SET else offset, whence)


def _input(facts: Facts) -> _Table:
    """Normalization by pixels of 0 to 255, as the schema has it; bytes are normalized by the model itself."""
    p = facts.preprocessing
    mean, std = ([x / p.scale for x in values] for values in (p.mean, p.std))
    lowest, highest = ([(pixel * p.scale - m) / s for m, s in zip(p.mean, p.std, strict=True)] for pixel in (0, 255))
    fields: dict[str, _Field] = {
        "name": facts.input,
        "description": f"Images as prepared by the file's entry {PREPROCESSING}",
        "dimension_names": ["batch", "channels", "height", "width"],
        "content": _content("FeatureProperties", _FEATURES),
    }
    if facts.in_bytes:
        mean, std, lowest, highest = [0.0], [1.0], [0.0], [255.0]
        fields["description"] = f"Pixels, upright and of the model's size by the file's entry {PREPROCESSING}"
        fields["dimension_names"] = ["batch", "height", "width", "channels"]
        fields["content"] = _content("ImageProperties", _IMAGE, color_space=_COLOURS[p.channel_order])
    normalization = _Table("NormalizationOptions", {"mean": mean, "std": std})
    fields["process_units"] = [_Table("ProcessUnit", {"options_type": _NORMALIZATION, "options": normalization})]
    fields["stats"] = _Table("Stats", {"max": highest, "min": lowest})
    return _Table("TensorMetadata", fields)


def _content(table: str, kind: int, **fields: int) -> _Table:
    return _Table("Content", {"content_properties_type": kind, "content_properties": _Table(table, fields)})


@dataclass(frozen=True)
class _Table:
    """A table of the schema: its name, and its fields that are set."""

    name: str
    fields: Mapping[str, _Field] = field(default_factory=dict)


_Field: TypeAlias = "str | int | _Table | Sequence[str] | Sequence[float] | Sequence[_Table]"
"""A field: text, an enumeration's value, a table, or a list of texts, numbers or tables."""


def _write(builder: Any, value: _Field) -> int:
    """Write ``value`` to ``builder``, its parts first; returns where it lies."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, _Table):
        names = _TABLES[value.name]
        places = {n: x if isinstance(x, int) else _write(builder, x) for n, x in value.fields.items()}
        builder.StartObject(len(names))
        for slot, name in enumerate(names):
            if isinstance(value.fields.get(name), int):
                builder.PrependInt8Slot(slot, places[name], 0)
            elif name in places:
                builder.PrependUOffsetTRelativeSlot(slot, places[name], 0)
        return int(builder.EndObject())
    assert not isinstance(value, int)
    numbers = all(isinstance(item, float) for item in value)
    items = [item if isinstance(item, float) else _write(builder, item) for item in value]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        (builder.PrependFloat32 if numbers else builder.PrependUOffsetTRelative)(item)
    return int(builder.EndVector())
