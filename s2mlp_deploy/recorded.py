"""What a training script wrote beside the weights: image size, normalization, labels.

Scripts keep their options under many names (``args``, ``config``, …), as a Namespace or a dict.
Only values that are plainly what their name says are taken; the command line shows each one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from s2mlp_deploy.spec import Size

CONTAINERS = ("args", "config", "cfg", "hparams", "hyper_parameters", "opt", "options")


@dataclass(frozen=True)
class Recorded:
    """Options found in the checkpoint; None where it has none."""

    image_size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None


def read_recorded(content: Mapping[str, Any]) -> Recorded:
    """The options that ``content``, a checkpoint's top level, records."""
    options: dict[str, Any] = {}
    for source in _sources(content):
        for key, value in source.items():
            options.setdefault(key, value)

    def first(*names: str) -> Any:
        return next((options[n] for n in names if options.get(n) is not None), None)

    return Recorded(
        image_size=_size(first("image_size", "img_size", "input_size")),
        mean=_floats(first("mean")),
        std=_floats(first("std")),
        labels=_strings(first("class_names", "labels", "classes")),
    )


def _sources(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in CONTAINERS:
        value = content.get(name)
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, dict):
            yield {k: v for k, v in value.items() if isinstance(k, str)}
    yield dict(content)


def _size(value: Any) -> Size | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 3:  # timm: (channels, height, width)
        value = value[1:]
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) is int and 0 < v < 1 << 16 for v in value):
        return value[0], value[1]
    return None


def _floats(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, (list, tuple)) and value and all(type(v) in (int, float) and isfinite(v) for v in value):
        return tuple(float(v) for v in value)
    return None


def _strings(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return None
