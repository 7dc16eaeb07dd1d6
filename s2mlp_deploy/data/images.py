"""Read images and prepare them as model input; the only implementation, used wherever an image is read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from s2mlp_deploy.data import image_files
from s2mlp_deploy.data.arrays import fit_float32, read_arrays, spread
from s2mlp_deploy.data.preprocessing import normalize, plan
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.untrusted_input import check_regular
from s2mlp_deploy.system.wording import counted

logging.getLogger("PIL").addHandler(logging.NullHandler())  # the DataError alone reports an unreadable file

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The image formats that are read, whatever a file is called: Pillow knows others that start programs."""
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes for grey of 16 and 32 bits."""

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**31
"""Pillow's limit against files that decode to more than memory holds; it stands in the file's head."""


def load(paths: Sequence[Path], preprocessing: Preprocessing, size: Size) -> Array:
    """The prepared images: float32 (count, channels, height, width).

    Raises:
        DataError: where a file is not an image that Pillow can read.
    """
    return np.stack([prepare(path, preprocessing, size) for path in paths])


def prepare(path: Path, preprocessing: Preprocessing, size: Size) -> Array:
    """One image file as the model sees it: float32 (channels, height, width)."""
    return normalize(pixels_of(fit(read(path, preprocessing), preprocessing, size)), preprocessing)


def read(path: Path, preprocessing: Preprocessing) -> Image.Image:
    """The image in a file, upright, in the model's channels, with 8 bits each, at its own size.

    Raises:
        DataError: where there is none, or one that has too many pixels or too many bits.
    """
    with _opened(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode in DEEP:
            raise DataError(
                f"{path} has pixels of more than 8 bits (mode {image.mode}), which would be clipped: convert it to 8 bits"
            )
        if image.mode == "P":  # a palette may have an alpha channel, which is dropped as elsewhere
            image = image.convert("RGBA")
        return image.convert(preprocessing.channel_order)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image file at ``path``, of which the head has been read; an error in decoding it is a DataError, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata beside the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            check_regular(path)
            with Image.open(path, formats=FORMATS) as file:
                yield file
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is not an image that can be read: it has more than {MOST_PIXELS:,} pixels, and nothing was decoded; "
            "make it smaller"
        ) from error
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is not an image that can be read: {error}. Save it again, or move it away") from error


def pixel_count(path: Path) -> int:
    """The number of pixels of the image in a file; only its head is read.

    Raises:
        DataError: where it is not an image.
    """
    with _opened(path) as file:
        return file.width * file.height


def fit(image: Image.Image, preprocessing: Preprocessing, size: Size) -> Image.Image:
    """The part of ``image`` that the model sees, at its size.

    One axis at a time, along rows first: so does Pillow before version 13, which since then chooses the order by
    the sizes, and what lies between is rounded to bytes.
    """
    todo = plan(preprocessing, (image.height, image.width), size)
    (height, width), (top, left) = size, todo.corner
    (scaled_height, scaled_width), box = todo.scaled, todo.box
    filter = Image.Resampling[preprocessing.interpolation.upper()]
    image = image.resize((scaled_width, image.height), filter, box=(box[0], 0, box[2], image.height))
    image = image.resize((scaled_width, scaled_height), filter, box=(0, box[1], scaled_width, box[3]))
    return image.crop((left, top, left + width, top + height))


def fitted_bytes(pixels: Array, preprocessing: Preprocessing, size: Size) -> Array:
    """:func:`fit` for bytes (height, width, channels)."""
    return pixels_of(fit(image_of(pixels), preprocessing, size))


def image_of(pixels: Array) -> Image.Image:
    """The image of bytes (height, width, channels)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def pixels_of(image: Image.Image) -> Array:
    """The bytes of ``image``: uint8 (height, width, channels)."""
    return np.asarray(image, np.uint8).reshape(image.height, image.width, -1)


def read_inputs(
    path: Path, preprocessing: Preprocessing, spec: Spec, count: int, warn: Callable[[str], None] = lambda text: None
) -> Array:
    """At most ``count`` inputs, evenly over what ``path`` holds: (count, channels, height, width) float32.

    ``warn`` receives the files of a folder that are left out.

    ``path`` is a folder of images, with or without subfolders, or a .npy, .npz or .safetensors file
    of prepared inputs (``input``, or the only array).

    Raises:
        DataError: where there are none, or they do not fit the model.
    """
    if path.is_dir():
        found = image_files.find(path)
        files = found.paths
        if not files:
            raise DataError(f"{path} holds no images {image_files.expected(found.left_out)}")
        if found.left_out:
            warn(f"{path} holds more than images; left out: {image_files.describe(found.left_out)}")
        if spec.in_channels not in (1, 3):
            raise DataError(
                f"the model takes {counted(spec.in_channels, 'channel')}, which image files do not have: give prepared inputs"
            )
        return load([files[i] for i in spread(len(files), count)], preprocessing, spec.image_size)
    if not path.exists():
        raise DataError(
            f"cannot read {path} (no such file or folder): expected images in a folder, or prepared inputs as .npy, .npz or .safetensors"
        )
    inputs = read_arrays(path)
    array = inputs.get("input", next(iter(inputs.values())) if len(inputs) == 1 else None)
    expected = (spec.in_channels, *spec.image_size)
    if array is None or array.dtype.kind != "f" or array.shape[1:] != expected or not fit_float32(array):
        what = "no array called input" if array is None else f"input {list(array.shape)} {array.dtype}"
        raise DataError(
            f"{path} holds {what}: expected finite floating-point inputs [count, {', '.join(map(str, expected))}]"
        )
    return np.ascontiguousarray(array[list(spread(len(array), count))], np.float32)
