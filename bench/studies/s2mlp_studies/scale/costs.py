"""Exact costs of an S²-MLP and an MLP-Mixer of its form: the columns of the paper's tables, and their growth."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod

from s2mlp_bench.baselines import mixer
from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families.s2mlp.spec import PRESETS, S2MLPSpec
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding


@dataclass(frozen=True)
class Cost:
    """Learnt values, and multiply-adds of one image."""

    parameters: int
    macs: int


PAPER: dict[str, Cost] = {"wide": Cost(71_000_000, 14_000_000_000), "deep": Cost(51_000_000, 10_500_000_000)}
"""What the paper (arXiv 2106.07477) reports for its models, of 1000 classes and 224×224 pixels, in its own digits. Its
"FLOPs" are multiply-adds."""


@dataclass(frozen=True)
class Compared:
    """One form: its patches, the images it takes, how many positions they make; ``mixer`` is None where there is none."""

    patch: Size
    image_size: Size
    positions: int
    s2mlp: Cost
    mixer: Cost | None


def compared(spec: S2MLPSpec, image_size: Size) -> Compared:
    """``spec`` and an MLP-Mixer of its form on images of ``image_size``.

    Raises:
        SpecError: where the patches do not fill the image.
    """
    other = None
    if mixer.refusal(spec) is None:
        like = mixer.like(spec, image_size)
        other = Cost(like.parameters(), like.macs())
    own = Cost(spec.parameters(), spec.macs(image_size))
    positions = prod(spec.map_sizes(image_size)[0])
    return Compared(spec.stages[0].embedding.stride, image_size, positions, own, other)


def presets() -> dict[str, Compared]:
    """The paper's models, by name."""
    return {name: compared(spec, spec.image_size) for name, spec in PRESETS.items()}


def at_sizes(spec: S2MLPSpec, sizes: Iterable[Size]) -> tuple[Compared, ...]:
    """``spec`` on images of each size.

    Raises:
        SpecError: as :func:`compared`.
    """
    return tuple(compared(spec, size) for size in sizes)


def at_patches(spec: S2MLPSpec) -> tuple[Compared, ...]:
    """``spec`` on its own images with patches twice as high and wide, its own, and half, as far as they fill the image.

    Nothing where the first stage does not cut images into patches that lie side by side.
    """
    embedding = spec.stages[0].embedding
    if embedding.kernel != embedding.stride or embedding.padding != (0, 0):
        return ()
    height, width = embedding.kernel
    halves = [(height // 2, width // 2)] if height % 2 == width % 2 == 0 else []
    found = []
    for patch in [(2 * height, 2 * width), (height, width), *halves]:
        with suppress(SpecError):
            found.append(compared(_with_patch(spec, patch), spec.image_size))
    return tuple(found)


def _with_patch(spec: S2MLPSpec, patch: Size) -> S2MLPSpec:
    first, *others = spec.stages
    return replace(spec, stages=(replace(first, embedding=Embedding(patch, patch)), *others))
