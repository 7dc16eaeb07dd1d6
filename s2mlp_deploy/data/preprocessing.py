"""The arithmetic of preprocessing, without any image library: the crop of an image, and the normalization of its bytes.

docs/preprocessing.md describes the same steps, for implementations in other languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import Size


@dataclass(frozen=True)
class Plan:
    """The resize and the crop of an image, in this order.

    ``box`` (left, top, right, bottom) is the part of it that becomes an image of ``scaled`` (height, width); its
    edges may lie between pixels. Of that image the model sees its size from ``corner`` (top, left) on.
    """

    box: tuple[float, float, float, float]
    scaled: Size
    corner: tuple[int, int]


def plan(preprocessing: Preprocessing, image: Size, size: Size) -> Plan:
    """The plan for an image of size ``image`` (height, width), for a model of ``size``."""
    (h, w), (height, width) = image, size
    fraction = preprocessing.crop_fraction
    if preprocessing.resize == "shorter-then-crop":
        least_h, least_w = floor(height / fraction), floor(width / fraction)
        # Which side is the shorter one, measured in the model's size; integers, so that equal is equal.
        wider = w * least_h > h * least_w
        scaled = (least_h, int(least_h * w / h)) if wider else (int(least_w * h / w), least_w)
        top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
        return Plan((0.0, 0.0, float(w), float(h)), scaled, (top, left))
    box_w, box_h = float(w), float(h)
    if preprocessing.resize == "shorter":
        shape = width / height
        if w / h >= shape:
            box_w = shape * h
        else:
            box_h = w / shape
    box_w, box_h = box_w * fraction, box_h * fraction
    left_edge, top_edge = (w - box_w) * 0.5, (h - box_h) * 0.5
    return Plan((left_edge, top_edge, left_edge + box_w, top_edge + box_h), size, (0, 0))


def normalize(pixels: Array, preprocessing: Preprocessing) -> Array:
    """Bytes (…, height, width, channels) as the model sees them: float32 (…, channels, height, width)."""
    scaled = pixels.astype(np.float32) * np.float32(preprocessing.scale)
    x = (scaled - np.array(preprocessing.mean, np.float32)) / np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(np.moveaxis(x, -1, -3), np.float32)


def normalize_exactly(pixels: Array, preprocessing: Preprocessing) -> Array:
    """Normalize in float64: the comparison for a graph that takes bytes, which does not round in between."""
    x = (pixels * preprocessing.scale - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return np.ascontiguousarray(np.moveaxis(x, -1, -3), np.float64)


def nearest_bytes(x: Array, preprocessing: Preprocessing) -> Array:
    """The bytes (…, height, width, channels) that come closest to ``x`` (…, channels, height, width).

    For a result of :func:`normalize`, they are the original bytes.
    """
    channels_last = np.moveaxis(x, -3, -1).astype(np.float64)
    pixels = (channels_last * np.array(preprocessing.std) + np.array(preprocessing.mean)) / preprocessing.scale
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
