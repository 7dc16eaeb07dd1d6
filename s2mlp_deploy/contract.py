"""How images are to be prepared for a checkpoint: what was asked for, what it records, and what is assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.manifest import Preprocessing
from s2mlp_deploy.request import Request

if TYPE_CHECKING:  # needs torch
    from s2mlp_deploy.checkpoint import Checkpoint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing_for(source: Checkpoint, request: Request) -> Preprocessing:
    """Preprocessing as asked for, else as the checkpoint records it, else the default and ImageNet's normalization.

    Raises:
        UsageError: where the values do not fit the model's channels, or are recorded and not known here.
    """
    channels = source.spec.in_channels
    recorded = source.recorded
    mean, std = request.mean, request.std
    if recorded.crop_mode and recorded.resize is None and request.resize is None:
        raise UsageError(
            f"the checkpoint records crop_mode {recorded.crop_mode!r}, which is not known here: pass --resize with what comes "
            "closest, and judge it with --data"
        )
    known = {
        "resize": request.resize or recorded.resize,
        "interpolation": request.interpolation or recorded.interpolation,
        "crop_fraction": request.crop_fraction or recorded.crop_fraction,
        "mean": mean or recorded.mean,
        "std": std or recorded.std,
    }
    for option, given, stored in (("--mean", mean, recorded.mean), ("--std", std, recorded.std)):
        values = given or stored
        if values is not None and len(values) != channels:
            whose = f"{option} has" if given else f"the checkpoint records for {option}"
            raise UsageError(
                f"{whose} {len(values)} values, and the model's input has {channels} channels: pass {option} with {channels}"
            )
    mean = mean or recorded.mean or (IMAGENET_MEAN if channels == 3 else (0.5,) * channels)
    std = std or recorded.std or (IMAGENET_STD if channels == 3 else (0.5,) * channels)
    if min(std) <= 0:
        raise UsageError(f"--std must be positive, and has {min(std)}")
    return Preprocessing.model_validate(
        {
            **{name: value for name, value in known.items() if value is not None},
            "mean": mean,
            "std": std,
            "channel_order": "L" if channels == 1 else "RGB",
            "assumed": tuple(name for name, value in known.items() if value is None),
        }
    )
