"""Prepared images that stay in their files until they are needed, so that more can be judged than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import Size

MOST_KEPT = 1000
"""Images that are kept in memory; of a larger set each portion is read again whenever it is needed."""

MOST_BYTES = 1 << 30
"""The memory that they may take."""

PORTION = 64
"""Images that are in memory together, where the set is not; a multiple of what runs together (runtime.session.BATCH), so that each batch
holds the same images as it would without portions."""


@dataclass(frozen=True)
class ImageStream:
    """The images in ``files`` as a model of ``size`` sees them. It is indexed as their array (count, channels, height, width) float32
    would be, and reads those images then.

    Raises:
        DataError: where a file is not an image, when it is read.
    """

    files: tuple[Path, ...]
    preprocessing: Preprocessing
    size: Size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | Sequence[int]) -> Array:
        from s2mlp_deploy.data import images  # takes Pillow, which a device that checks tensors alone may not have

        return images.load(self.of(rows).files, self.preprocessing, self.size)

    def __iter__(self) -> Iterator[Array]:
        from s2mlp_deploy.data import images

        for file in self.files:
            yield images.prepare(file, self.preprocessing, self.size)

    def of(self, rows: slice | Sequence[int]) -> ImageStream:
        """Those of these ``rows``, still in their files."""
        chosen = self.files[rows] if isinstance(rows, slice) else tuple(self.files[i] for i in rows)
        return replace(self, files=chosen)


Images: TypeAlias = Array | ImageStream
"""Prepared images (count, channels, height, width) float32, in memory or in files."""


def read(files: Sequence[Path], preprocessing: Preprocessing, size: Size) -> Images:
    """The images in ``files``: in memory, where they are few enough.

    Raises:
        DataError: where a file is not an image.
    """
    found = ImageStream(tuple(files), preprocessing, size)
    image_bytes = 4 * len(preprocessing.mean) * size[0] * size[1]
    return found[:] if len(files) <= MOST_KEPT and len(files) * image_bytes <= MOST_BYTES else found


def take(images: Images, rows: Sequence[int]) -> Images:
    """Those of these ``rows``: in memory where ``images`` are."""
    return images.of(rows) if isinstance(images, ImageStream) else images[list(rows)]


def portions(images: Images) -> Iterator[Array]:
    """The images, as many together as memory is to hold: all where they are in memory already."""
    if not isinstance(images, ImageStream):
        yield images
        return
    for start in range(0, len(images), PORTION):
        yield images[start : start + PORTION]
