"""What a training script wrote beside the weights: image size, preprocessing, labels.

Scripts keep their options under many names (``args``, ``config``, …), as a Namespace or a dict.
Only values that are plainly what their name says are taken; the command line shows each one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar, get_args

from s2mlp_deploy import strict_json
from s2mlp_deploy.labels import in_order
from s2mlp_deploy.manifest import Interpolation, Resize
from s2mlp_deploy.spec import Size

T = TypeVar("T")

CONTAINERS = ("args", "config", "cfg", "hparams", "hyper_parameters", "opt", "options", "pretrained_cfg", "default_cfg")

CROP_MODES: dict[Any, Resize | None] = {"center": "shorter-then-crop", "squash": "squash", "border": None}
"""timm's names for how it resizes; None for what this project does not do."""


LABELS = (
    "class_names", "labels", "classes", "CLASSES", "class_to_idx", "idx_to_class", "id2label", "label2id", "idx2label", "label2idx",
)  # fmt: skip
"""What scripts call the class names: a list, names by index, or indices by name."""


@dataclass(frozen=True)
class Recorded:
    """Options found in the checkpoint; None where it has none."""

    image_size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None
    crop_mode: str | None = None

    @property
    def resize(self) -> Resize | None:
        """How the code resized that recorded a crop as timm does; None where it recorded nothing, or what nobody here does."""
        if self.crop_mode is None and self.crop_fraction is None:
            return None
        return CROP_MODES[self.crop_mode or "center"]


def read_recorded(content: Mapping[str, Any]) -> Recorded:
    """The options that ``content``, a checkpoint's top level, records."""
    sources = list(_sources(content))

    def first(read: Callable[[Any], T | None], *names: str) -> T | None:
        values = (read(source[name]) for source in sources for name in names if name in source)
        return next((v for v in values if v is not None), None)

    return Recorded(
        image_size=first(_size, "image_size", "img_size", "input_size"),
        mean=first(_fractions, "mean"),
        std=first(_positive, "std"),
        labels=first(_names, *LABELS),
        interpolation=first(_interpolation, "interpolation"),
        crop_fraction=first(_share, "crop_pct"),
        crop_mode=first(_crop_mode, "crop_mode"),
    )


def _sources(content: Mapping[str, Any]) -> Iterator[dict[Any, Any]]:
    for name in CONTAINERS:
        value = content.get(name)
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, dict):
            yield value
    yield dict(content)


def _size(value: Any) -> Size | None:
    if _is(Integral, value):
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 3:  # timm: (channels, height, width)
        value = value[1:]
    if (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(_is(Integral, v) and 0 < v < 1 << 16 for v in value)
    ):
        return int(value[0]), int(value[1])
    return None


def _fractions(value: Any) -> tuple[float, ...] | None:
    """Statistics of pixels scaled to 0…1; those of bytes would normalize such pixels to nothing."""
    if isinstance(value, (list, tuple)) and value and all(_is(Real, v) and 0 <= v <= 1 for v in value):
        return tuple(float(v) for v in value)
    return None


def _positive(value: Any) -> tuple[float, ...] | None:
    values = _fractions(value)
    return values if values and min(values) > 0 else None


def _interpolation(value: Any) -> Interpolation | None:
    return next((name for name in get_args(Interpolation) if name == value), None)


def _share(value: Any) -> float | None:
    return float(value) if _is(Real, value) and 0 < value <= 1 else None


def _crop_mode(value: Any) -> str | None:
    return value if isinstance(value, str) and value in CROP_MODES else None


def _names(value: Any) -> tuple[str, ...] | None:
    """Labels in the order of the classes; the metadata of safetensors files hold text alone, so lists are JSON there."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = strict_json.loads(value)
        except (ValueError, RecursionError):
            return None
    return in_order(value) or None


def _is(kind: type, value: Any) -> bool:
    """Whether ``value`` is such a number: Python's or NumPy's, and no bool."""
    return isinstance(value, kind) and not isinstance(value, bool)
