"""The range of input shapes that an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from s2mlp_deploy.bundle.golden_tensors import LARGE
from s2mlp_deploy.errors import SpecError, UsageError
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_exporters.tensorrt.options import EngineOptions

Shape: TypeAlias = tuple[int, ...]

DEFAULT_BATCHES = (1, 1, 8)
"""For one image at a time, as on a device with a camera, and for up to eight at once."""


@dataclass(frozen=True)
class Profile:
    """The smallest, the most usual and the largest input: (batch, channels, height, width), or in its own layout."""

    smallest: Shape
    usual: Shape
    largest: Shape

    def admits(self, shape: Shape) -> bool:
        """Whether an input of ``shape`` is within the range."""
        return all(low <= n <= high for low, n, high in zip(self.smallest, shape, self.largest, strict=True))

    def admits_size_of(self, shape: Shape) -> bool:
        """The same, whatever the batch."""
        return self.admits((self.smallest[0], *shape[1:]))

    def __str__(self) -> str:
        return " to ".join(map(format_shape, (self.smallest, self.largest)))


def format_shape(shape: Shape) -> str:
    """``shape`` in words, as in 1x3x224x224."""
    return "x".join(map(str, shape)) or "no axes"


def profile_for(manifest: Manifest, golden: Mapping[str, Shape], options: EngineOptions) -> Profile:
    """The profile for the bundle's graph: its own shape, and where that is free, the range of ``options`` or of the golden inputs.

    ``golden`` are the shapes of the golden inputs by case: an engine that cannot take them could not be checked. Only
    the large ones may be left out, where the given range ends before them.

    Raises:
        UsageError: where the given range is none, or does not fit the model.
    """
    spec = manifest.classifier
    sizes = {_size(shape, manifest) for shape in golden.values()} | {spec.image_size}
    large = {_size(shape, manifest) for case, shape in golden.items() if case.startswith(LARGE)}
    batches = _batches(manifest.batch, options.batch)
    heights, widths = _sizes(manifest, spec, sizes, options.size_profile)
    profile = Profile(*(_shape(b, (h, w), manifest) for b, h, w in zip(batches, heights, widths, strict=True)))
    for size in sizes - large:
        if not profile.admits(_shape(profile.smallest[0], size, manifest)):
            raise UsageError(
                f"--size-profile leaves out {format_size(size)}, which the golden inputs have, so the engine could not be "
                "checked: widen the range, or export the graph with the --image-size that you need"
            )
    return profile


def _shape(batch: int, size: Size, manifest: Manifest) -> Shape:
    channels = manifest.classifier.in_channels
    return (batch, *size, channels) if manifest.input.layout == "NHWC" else (batch, channels, *size)


def _size(shape: tuple[Any, ...], manifest: Manifest) -> tuple[Any, Any]:
    """Height and width of an input's ``shape``."""
    return (shape[1], shape[2]) if manifest.input.layout == "NHWC" else (shape[2], shape[3])


def _batches(fixed: int | None, given: str | None) -> tuple[int, int, int]:
    if fixed:
        if given is not None:
            raise UsageError(
                f"--batch {given}: the bundle's graph has a fixed batch of {fixed}; export it with --batch dynamic"
            )
        return fixed, fixed, fixed
    return DEFAULT_BATCHES if given is None else parse_batches(given)


def parse_batches(given: str) -> tuple[int, int, int]:
    """The smallest, the most usual and the largest batch of ``--batch MIN:OPT:MAX``.

    Raises:
        UsageError: where it is no such range.
    """
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6}):(\d{1,6})", given)
    batches = tuple(map(int, match.groups())) if match else ()
    if len(batches) != 3 or not 0 < batches[0] <= batches[1] <= batches[2]:
        raise UsageError(f"--batch {given!r}: expected MIN:OPT:MAX in rising order, as in 1:4:16")
    return batches[0], batches[1], batches[2]


def _sizes(manifest: Manifest, spec: Spec, sizes: set[Size], given: str | None) -> tuple[Shape, Shape]:
    """Heights and widths, smallest, usual and largest."""
    if isinstance(_size(manifest.input.shape, manifest)[0], int):
        if given is not None:
            raise UsageError(
                f"--size-profile {given}: the bundle's graph has the fixed size {format_size(spec.image_size)}; export it with "
                "--dynamic-size"
            )
        return (spec.image_size[0],) * 3, (spec.image_size[1],) * 3
    if given is None:
        (h, w), tall, wide = spec.image_size, [size[0] for size in sizes], [size[1] for size in sizes]
        return (min(tall), h, max(tall)), (min(wide), w, max(wide))
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?:(\d{1,5})(?:x(\d{1,5}))?:(\d{1,5})(?:x(\d{1,5}))?", given)
    if not match:
        raise UsageError(f"--size-profile {given!r}: expected MIN:OPT:MAX, each N or HxW, as in 192:224:448")
    heights, widths = tuple(int(match[i]) for i in (1, 3, 5)), tuple(int(match[i] or match[i - 1]) for i in (2, 4, 6))
    if sorted(heights) != list(heights) or sorted(widths) != list(widths):
        raise UsageError(f"--size-profile {given!r}: expected MIN:OPT:MAX in rising order")
    for size in zip(heights, widths, strict=True):
        try:
            spec.map_sizes(size)  # TensorRT itself would take any
        except SpecError as error:
            raise UsageError(f"--size-profile {given!r}: {error}") from error
    return heights, widths
