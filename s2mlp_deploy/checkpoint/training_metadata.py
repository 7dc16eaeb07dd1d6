"""The image size, preprocessing and labels that a training script recorded beside the weights.

Scripts keep their options under many names (``args``, ``config``, …), as a Namespace, a dict or a configuration of
nested ones. Only values that clearly fit their name are taken; the command line shows each one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar, get_args

from s2mlp_deploy.checkpoint.torch_format.training_objects import entries, plain
from s2mlp_deploy.data.labels import in_order
from s2mlp_deploy.schema.choices import Interpolation, Resize
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.system import strict_json

T = TypeVar("T")

CONTAINERS = (
    "args",
    "config",
    "cfg",
    "hparams",
    "hyper_parameters",
    "opt",
    "options",
    "pretrained_cfg",
    "default_cfg",
    "conf",
    "arguments",
    "train_args",
    "model_args",
    "model_config",
    "data_config",
    "settings",
    "preprocessing",
    "preprocess",
    "transforms",
)
"""Entries of a checkpoint that hold options, and dicts of options."""

SIZES = (
    "image_size",
    "img_size",
    "input_size",
    "image_resolution",
    "input_resolution",
    "resolution",
    "imgsz",
    "val_crop_size",
    "test_crop_size",
    "crop_size",
)
"""Names of the size that the model sees, the plainest first. ``size`` alone may be anything's."""

_NOT_OF_IMAGES = re.compile("optim|sched|loss|init")
"""Dicts of options that have means and sizes of other things: the ``init_cfg`` of weights, schedules."""

MOST_DICTS, MOST_DEPTH, MOST_ENTRIES = 300, 5, 10_000
"""How many dicts of options are read, how deep, and of how many entries: no script has more."""

CROP_MODES: dict[Any, Resize | None] = {"center": "shorter-then-crop", "squash": "squash", "border": None}
"""timm's names for how it resizes; None for what this project does not do."""


LABELS = (
    "class_names",
    "label_names",
    "labels",
    "classes",
    "class_to_idx",
    "idx_to_class",
    "id2label",
    "label2id",
    "idx2label",
    "label2idx",
)
"""The keys under which scripts keep class names: a list, names by index, or indices by name."""


@dataclass(frozen=True)
class Recorded:
    """Options found in the checkpoint; None where it has none.

    ``mean`` and ``std`` are as they were recorded: of pixels in 0…1 or in 0…255. ``conflicts`` lists values that are
    recorded more than once and differently; the first is the one taken.
    """

    image_size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None
    crop_mode: str | None = None
    conflicts: tuple[str, ...] = ()

    @property
    def resize(self) -> Resize | None:
        """The way of resizing that a timm crop mode implies; None where none is recorded, or an unsupported one."""
        if self.crop_mode is None and self.crop_fraction is None:
            return None
        return CROP_MODES[self.crop_mode or "center"]


def read_recorded(content: Mapping[Any, Any]) -> Recorded:
    """The options that ``content``, a checkpoint's top level, records."""
    sources = list(_sources(content))
    conflicts: list[str] = []

    def first(read: Callable[[Any], T | None], *names: str) -> T | None:
        found: dict[str, tuple[T, str]] = {}
        for where, source in sources:
            for name in names:
                if name in source and (value := read(plain(source[name]))) is not None:
                    found.setdefault(_shown(value), (value, f"{where}{name}"))
        if len(found) > 1:
            conflicts.append(", ".join(f"{text[:60]} ({where})" for text, (_, where) in list(found.items())[:4]))
        return next((value for value, _ in found.values()), None)

    return Recorded(
        image_size=first(_size, *SIZES),
        mean=first(_statistics, "mean", "image_mean", "img_mean"),
        std=first(_positive, "std", "image_std", "img_std"),
        labels=first(_names, *LABELS),
        interpolation=first(_interpolation, "interpolation"),
        crop_fraction=first(_share, "crop_pct"),
        crop_mode=first(_crop_mode, "crop_mode"),
        conflicts=tuple(conflicts),
    )


def _sources(content: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, names in small letters and their values) of each dict of options, the outer ones first."""
    top = _named(content)
    waiting = deque((f"{name}.", 1, entries(top[name])) for name in CONTAINERS if name in top)
    waiting.append(("", MOST_DEPTH, content))
    seen: set[int] = set()
    while waiting and len(seen) < MOST_DICTS:
        where, depth, options = waiting.popleft()
        if options is None or id(options) in seen or len(options) > MOST_ENTRIES:
            continue
        seen.add(id(options))
        named = _named(options)
        yield where, named
        if depth < MOST_DEPTH:
            inner = [name for name in named if not _NOT_OF_IMAGES.search(name)]
            waiting.extend((f"{where}{name}.", depth + 1, entries(named[name])) for name in inner)


def _named(options: Mapping[Any, Any]) -> dict[str, Any]:
    """``options`` under names as Python has them; configurations also write IMG_SIZE and img-size."""
    return {name.lower().replace("-", "_"): value for name, value in options.items() if isinstance(name, str)}


def _shown(value: Any) -> str:
    """``value`` in a few words; numbers that differ by rounding alone are shown alike."""
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)


def _size(value: Any) -> Size | None:
    """(height, width) of a number, of two or three, or of such a text: 28, [20, 28], (3, 20, 28), "20x28"."""
    value = [value.get("height"), value.get("width")] if isinstance(value, dict) else _listed(value)
    if _is(Integral, value):
        value = [value]
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 3:
        return None
    if len(value) == 3:  # (channels, height, width), as timm has it, or channels last
        value = value[:2] if _is(Integral, value[0]) and value[0] > 4 >= value[2] else value[1:]
    if not all(_is(Integral, v) and 0 < v < 1 << 16 for v in value):
        return None
    return int(value[0]), int(value[-1])


def _statistics(value: Any) -> tuple[float, ...] | None:
    """Statistics of pixels in 0…1 or in 0…255, a value a channel: a list, or a text of several numbers."""
    numbers = _listed(value)
    if isinstance(value, str) and isinstance(numbers, list) and len(numbers) < 2:
        return None
    value = numbers
    if isinstance(value, (list, tuple)) and value and all(_is(Real, v) and 0 <= v <= 255 for v in value):
        return tuple(float(v) for v in value)
    return None


def _positive(value: Any) -> tuple[float, ...] | None:
    values = _statistics(value)
    return values if values and min(values) > 0 else None


_NUMBER = re.compile(r"\d{1,9}|\d{0,9}\.\d{1,20}|\d{1,9}\.")


def _listed(value: Any) -> Any:
    """``value``, or the numbers in a text: "28", "20x28", "(28, 28)", "0.5 0.5 0.5"; also as items of a list."""
    if isinstance(value, str):
        parts = re.split(r"[\s,;x×]+", value.strip(" ()[]")) if len(value) < 20_000 else []
    else:
        parts = list(value) if isinstance(value, (list, tuple)) and len(value) <= MOST_ENTRIES else []
    if not parts or not all(isinstance(part, str) and _NUMBER.fullmatch(part) for part in parts):
        return value
    return [float(part) if "." in part else int(part) for part in parts]


def _interpolation(value: Any) -> Interpolation | None:
    return next((name for name in get_args(Interpolation) if name == value), None)


def _share(value: Any) -> float | None:
    return float(value) if _is(Real, value) and 0 < value <= 1 else None


def _crop_mode(value: Any) -> str | None:
    return value if isinstance(value, str) and value in CROP_MODES else None


def _names(value: Any) -> tuple[str, ...] | None:
    """Labels in the order of the classes; metadata of safetensors files are text alone, so lists are JSON there."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = strict_json.loads(value)
        except (ValueError, RecursionError):
            return None
    return in_order(value) or None


def _is(kind: type, value: Any) -> bool:
    """Whether ``value`` is such a number: Python's or NumPy's, and no bool."""
    return isinstance(value, kind) and not isinstance(value, bool)
