"""Resolve a checkpoint's preprocessing from the request, the checkpoint's records, and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.pipeline.request import Source
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:  # needs torch
    from s2mlp_deploy.checkpoint.load import Checkpoint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LEAST_STD = 1e-4
"""A fortieth of the step between two bytes: to divide by less makes noise of rounding."""


def preprocessing_for(source: Checkpoint, stated: Source) -> Preprocessing:
    """Preprocessing as requested, else as the checkpoint records it, else the default and ImageNet's normalization.

    Raises:
        UsageError: where the values do not fit the model's channels or each other, or are recorded and not known here.
    """
    recorded = source.recorded
    if recorded.crop_mode and recorded.resize is None and stated.resize is None:
        raise UsageError(
            f"the checkpoint records crop_mode {recorded.crop_mode!r}, which is not known here: pass --resize with what comes "
            "closest, and check it with --data"
        )
    normalization = _normalization(source, stated)
    known = {
        "image_size": stated.image_size or recorded.image_size,
        "resize": stated.resize or recorded.resize,
        "interpolation": stated.interpolation or recorded.interpolation,
        "crop_fraction": stated.crop_fraction or recorded.crop_fraction,
        "mean": normalization.mean,
        "std": normalization.std,
    }
    channels = source.spec.in_channels
    assumed = {
        "mean": IMAGENET_MEAN if channels == 3 else (0.5,) * channels,
        "std": IMAGENET_STD if channels == 3 else (0.5,) * channels,
    }
    given = {name: value for name, value in known.items() if value is not None}
    return Preprocessing.model_validate(
        {
            **assumed,
            **{name: value for name, value in given.items() if name != "image_size"},  # which is the spec's
            "channel_order": "L" if channels == 1 else "RGB",
            "assumed": tuple(name for name in known if name not in given),
        }
    )


def warnings(source: Checkpoint, stated: Source, preprocessing: Preprocessing) -> list[str]:
    """Warnings about values of ``preprocessing`` and the image size that are assumed, conflicting or rescaled."""
    found = [
        f"the checkpoint records a value more than once and differently, and the first is taken: {conflict}"
        for conflict in source.recorded.conflicts
    ]
    if "image_size" in preprocessing.assumed:
        found.append(
            f"the checkpoint does not record the size of its images, which weights do not tell: "
            f"{format_size(source.spec.image_size)} is assumed and written into the bundle; pass --image-size if it was another"
        )
    if {"mean", "std"} & set(preprocessing.assumed):
        found.append(
            f"the checkpoint does not record how its images were normalized: mean {preprocessing.mean} and std "
            f"{preprocessing.std} are assumed and written into the bundle; pass --mean and --std if they were others"
        )
    if divided := _normalization(source, stated).divided:
        found.append(
            f"{' and '.join(divided)} {'are' if len(divided) > 1 else 'is'} of pixels in 0…255, and divided by 255: the bundle "
            "has them of pixels in 0…1"
        )
    return found


@dataclass(frozen=True)
class _Normalization:
    """Mean and deviation of each channel, of pixels in 0…1; None where nobody gave them.

    ``divided`` names those that were given for pixels in 0…255.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    divided: tuple[str, ...]


def _normalization(source: Checkpoint, stated: Source) -> _Normalization:
    recorded, channels = source.recorded, source.spec.in_channels
    values, names = [], []
    for option, given, stored in (("--mean", stated.mean, recorded.mean), ("--std", stated.std, recorded.std)):
        value = given or stored
        if value is not None and len(value) not in (1, channels):
            whose = f"{option} has" if given else f"the checkpoint records for {option}"
            raise UsageError(
                f"{whose} {counted(len(value), 'value')}, and the model's input has {counted(channels, 'channel')}: pass {option} with {channels}, or "
                "with one for all"
            )
        values.append(value * channels if value and len(value) == 1 else value)
        names.append(option if given else f"the recorded {option.lstrip('-')}")
    mean, std = values
    if std and min(std) < LEAST_STD:
        raise UsageError(f"--std must be positive, and at least {LEAST_STD:g}; it has {min(std):g}")
    scales = [_scales(value) for value in (mean, std)]
    common = scales[0] & scales[1]
    if not common:
        shown = " and ".join(
            f"{name} {', '.join(f'{v:g}' for v in value)}" for name, value in zip(names, values, strict=True) if value
        )
        raise UsageError(
            f"{shown}: expected mean and deviation of pixels in 0…1, or both of pixels in 0…255. Pass --mean and --std on one scale"
        )
    if 1 in common:
        return _Normalization(mean, std, ())
    divided = tuple(name for name, value in zip(names, values, strict=True) if value)
    mean, std = (tuple(v / 255 for v in value) if value else None for value in values)
    return _Normalization(mean, std, divided)


def _scales(values: tuple[float, ...] | None) -> set[int]:
    """The largest pixel, 1 or 255, that ``values`` can be statistics of: both where there are none, or zeros alone."""
    some = [v for v in values or () if v]
    return {largest for largest, least in ((1, 0), (255, 1)) if all(least < v <= largest for v in some)}
