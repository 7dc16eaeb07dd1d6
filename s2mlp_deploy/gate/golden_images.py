"""Golden images: pictures that travel in the bundle beside their prepared tensors.

With them an app in any language can test each step by itself: decode, resize, crop, normalize, model, classes. They
are PNG files, so that everybody decodes the same bytes, upright and at their original size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.data.arrays import spread
from s2mlp_deploy.data.image_stream import Images
from s2mlp_deploy.data.preprocessing import normalize
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import GoldenImage, Manifest, Preprocessing

COUNT = 8
"""Real images that travel in the bundle, where there are any."""

MOST_PIXELS = 1_000_000
"""Larger images are not chosen: the bundle would grow by megabytes."""

SAME_LEVEL = 1e-3
"""Largest difference of a pixel, of 255 levels: far below one, far above float32's rounding."""

_COMPRESSION = 9
"""Fixed, so that the same image gives the same bytes wherever Pillow and its zlib are the same."""


@dataclass(frozen=True)
class Pictures:
    """Some real images as the model sees them, (count, channels, height, width) float32, and their classes.

    ``rows`` are their indices among all images; ``files`` their image files, or none where those do not travel.
    """

    images: Array
    rows: tuple[int, ...]
    files: tuple[Path, ...] = ()
    labels: tuple[int | None, ...] = ()

    @classmethod
    def choose(cls, images: Images, files: Sequence[Path] = (), labels: Sequence[int | None] = ()) -> Pictures:
        """Some of ``images``, evenly; of those with files only such as are small enough, where any is."""
        rows = small_ones(files)
        if not rows:
            rows = spread(len(images), COUNT)
            return cls(images[list(rows)], rows)
        return cls(images[list(rows)], rows, tuple(files[i] for i in rows), tuple(labels[i] for i in rows))


def small_ones(files: Sequence[Path]) -> tuple[int, ...]:
    """Indices of the ``files`` that travel: evenly spaced among those that are small enough.

    Raises:
        DataError: where one is not an image.
    """
    if not files:
        return ()
    from s2mlp_deploy.data import images

    small = [i for i, file in enumerate(files) if images.pixel_count(file) <= MOST_PIXELS]
    return tuple(small[i] for i in spread(len(small), COUNT))


def write(pictures: Pictures, preprocessing: Preprocessing, directory: Path) -> tuple[GoldenImage, ...]:
    """Write the files of ``pictures`` as PNG into ``directory``, without anything but pixels, and list them."""
    if not pictures.files:
        return ()
    from s2mlp_deploy.data import images

    entries = []
    for i, (file, label) in enumerate(zip(pictures.files, pictures.labels, strict=True)):
        pixels = images.pixels_of(images.read(file, preprocessing))
        name = f"{case_of(i)}.png"
        # Of the pixels alone, since Pillow would carry over a profile or a transparent colour.
        images.image_of(pixels).save(directory / name, "PNG", compress_level=_COMPRESSION)
        entries.append(GoldenImage(file=name, label=label))
    return tuple(entries)


def case_of(index: int) -> str:
    """The case name of golden image ``index``."""
    return f"image-{index:02d}"


@dataclass(frozen=True)
class Preparation:
    """Whether this machine prepares the golden images as the one that exported them did.

    ``largest_levels`` is the largest difference of a prepared pixel, in levels of 255 (infinite where an image has another
    size); ``skipped`` is why nothing was prepared.
    """

    images: int
    largest_levels: float = 0.0
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every image comes out the same, or none could be tried."""
        return self.largest_levels <= SAME_LEVEL


def check(bundle: Bundle, golden: Golden) -> Preparation | None:
    """Prepare each golden image with this machine's Pillow and compare it with the golden tensor; None without images.

    Raises:
        BundleError: where the golden tensors do not hold them, or one is larger than those that are chosen.
        DataError: where a file is not an image.
    """
    manifest = bundle.manifest
    if not manifest.golden_images:
        return None
    count = len(manifest.golden_images)
    if find_spec("PIL") is None:
        return Preparation(count, skipped="Pillow is not installed")
    wanted = _wanted(golden, manifest, bundle)
    files = [bundle.directory / entry.file for entry in manifest.golden_images]
    worst = [_difference(_prepared(file, manifest), want, manifest) for file, want in zip(files, wanted, strict=True)]
    return Preparation(count, max(worst))


def _wanted(golden: Golden, manifest: Manifest, bundle: Bundle) -> list[Array]:
    """The golden tensor of each golden image, in the manifest's order."""
    count = len(manifest.golden_images)
    if manifest.interface.input == "image":
        rows = [row for i in range(count) for row in golden.inputs.get(case_of(i), ())]
    else:
        rows = list(golden.inputs.get("images", ()))
    if len(rows) != count:
        raise BundleError(
            f"{bundle.golden} does not hold the {count} golden images of the manifest: copy the bundle again"
        )
    return rows


def _prepared(file: Path, manifest: Manifest) -> Array:
    from s2mlp_deploy.data import images

    if images.pixel_count(file) > MOST_PIXELS:
        raise BundleError(f"{file} has more than {MOST_PIXELS:,} pixels, as no golden image has: copy the bundle again")
    image = images.read(file, manifest.images)
    if manifest.interface.input == "image":
        return images.pixels_of(image)
    pixels = images.pixels_of(images.fit(image, manifest.images, manifest.classifier.image_size))
    return pixels if manifest.interface.input == "uint8" else normalize(pixels, manifest.images)


def _difference(actual: Array, expected: Array, manifest: Manifest) -> float:
    """The largest difference in levels of 255."""
    if actual.shape != expected.shape:
        return float("inf")
    distance = np.abs(actual.astype(np.float64) - expected)
    if manifest.interface.input == "float":
        distance *= np.array(manifest.images.std)[:, None, None] / manifest.images.scale
    largest = float(distance.max())
    return largest if np.isfinite(largest) else float("inf")
