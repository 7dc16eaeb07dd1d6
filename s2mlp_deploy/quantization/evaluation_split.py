"""Divide the user's images into those that calibrate a quantized model and those that evaluate it: no image does both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2mlp_deploy.data import image_stream, images
from s2mlp_deploy.data.image_stream import Images
from s2mlp_deploy.data.labelled_data import LabelledData
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.quantization.calibration import MINIMUM_IMAGES, noise
from s2mlp_deploy.quantization.task import QuantizationTask
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.wording import counted

HELD_OUT = 4
"""Without labelled images, every fourth calibration image evaluates instead."""


@dataclass(frozen=True)
class ImageSplit:
    """Images (count, channels, height, width) float32 that calibrate, and those that evaluate (None for synthetic calibration)."""

    calibration: Array
    evaluation: EvaluationSet | None


def split_images(task: QuantizationTask, spec: Spec, warn: Callable[[str], None]) -> ImageSplit:
    """Read the calibration images of ``task``, and set apart those that evaluate.

    Labelled images evaluate, where there are any; an image that is in both sets goes to one of them in turn. Without,
    every fourth calibration image evaluates.

    Raises:
        DataError: where the images cannot be read, or leave too few to evaluate.
    """
    settings = task.settings
    if settings.synthetic:
        return ImageSplit(noise(spec), None)
    assert settings.calibration is not None  # else the request was refused
    given = images.read_inputs(
        Path(settings.calibration), task.adapter.preprocessing, spec, settings.calibration_count, warn
    )
    given = given[sorted({image.tobytes(): i for i, image in enumerate(given)}.values())]  # each image once
    calibrating, evaluating = _hold_out(given) if task.data is None else _separate(given, task.data)
    snapped = task.adapter.snapped(evaluating.images)
    if len(snapped) < MINIMUM_IMAGES:
        raise DataError(
            f"calibration leaves {counted(len(snapped), 'image')} to evaluate the int8 model on, and it takes at least "
            f"{MINIMUM_IMAGES} that took no part in calibration: give more, or other, images"
        )
    logits = reference_logits.run(task.model, snapped)
    return ImageSplit(calibrating, EvaluationSet(snapped, logits, evaluating.labels, evaluating.files))


@dataclass(frozen=True)
class _Evaluating:
    """The images that evaluate, before they are rounded to the values of picture files."""

    images: Images
    labels: Array | None = None
    files: tuple[Path, ...] = ()


def _hold_out(given: Array) -> tuple[Array, _Evaluating]:
    held_out = np.arange(len(given)) % HELD_OUT == HELD_OUT - 1
    return given[~held_out], _Evaluating(given[held_out])


def _separate(given: Array, data: LabelledData) -> tuple[Array, _Evaluating]:
    """The calibration images and the labelled ones, each of those in both left to one of them in turn."""
    known = {image.tobytes(): i for i, image in enumerate(given)}
    both = [(i, known[x.tobytes()]) for i, x in enumerate(data.images) if x.tobytes() in known]
    keep = np.ones(len(data.images), bool)
    keep[[i for i, _ in both[::2]]] = False
    calibrating = np.delete(given, [j for _, j in both[1::2]], axis=0)
    files = tuple(path for path, kept in zip(data.files, keep, strict=False) if kept)
    return calibrating, _Evaluating(
        image_stream.take(data.images, np.flatnonzero(keep).tolist()), data.labels[keep], files
    )
