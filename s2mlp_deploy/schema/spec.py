"""What an S²-MLP is, as data.

A :class:`Spec` holds everything that decides what the network computes, apart from the weights
themselves. It is made once, checked when made, and passed along unchanged. Nothing here needs a
runtime: counting parameters or asking for the size of a feature map works on any machine.

Notation of the paper (arXiv 2106.07477): c channels, c̄ = r·c hidden channels, N blocks. Feature
maps between blocks are ``(batch, height, width, channels)``; images ``(batch, 3, height, width)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, TypeAlias, get_args

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.system.wording import counted

Offset: TypeAlias = tuple[int, int]
"""(Δh, Δw): how far a channel group moves along the first and the second spatial axis."""

Size: TypeAlias = tuple[int, int]
"""(height, width)."""

Semantics: TypeAlias = Literal["paper", "inplace"]
"""What the shift computes: the paper's definition, or what its popular pseudocode does on a CPU."""

Border: TypeAlias = Literal["keep", "zero", "wrap"]
"""What a position gets whose source lies outside the map: its own value, zero, or the value from the other side."""

DIRECTIONS: dict[str, tuple[Offset, ...]] = {
    "4": ((1, 0), (-1, 0), (0, 1), (0, -1)),
    "8": ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)),
    "horizontal": ((0, 1), (0, -1)),
    "vertical": ((1, 0), (-1, 0)),
}
"""The direction sets of the paper's ablation; ``4`` is the model itself."""


def format_size(size: Size) -> str:
    """``HxW``, as the command line takes it."""
    return f"{size[0]}x{size[1]}"


_DIRECTION = re.compile(r"(?=.)(?:h([+-])([1-9]\d{0,2})?)?(?:w([+-])([1-9]\d{0,2})?)?")


def direction_name(offset: Offset) -> str:
    """``h+``, ``w-2``, ``h+w-``, …: the axis, the sign, and the distance beyond 1; ``0`` for a group that stays."""
    return (
        "".join(
            f"{axis}{'-' if d < 0 else '+'}{abs(d) if abs(d) > 1 else ''}"
            for axis, d in zip("hw", offset, strict=True)
            if d
        )
        or "0"
    )


def parse_directions(text: str) -> tuple[Offset, ...]:
    """The offsets of a set of :data:`DIRECTIONS`, or of directions in order with commas between, as in ``w+,w-,h+,h-``.

    Raises:
        ValueError: where ``text`` is neither.
    """
    if text in DIRECTIONS:
        return DIRECTIONS[text]
    offsets = []
    for part in text.split(","):
        match = _DIRECTION.fullmatch(part.strip())
        if not match and part.strip() != "0":
            raise ValueError(
                f"{part.strip()[:40]!r} is not a direction: expected {', '.join(DIRECTIONS)}, or the direction of each group as "
                "in h+,h-,w+,w- (h is the height, the first spatial axis; 0 stays)"
            )
        h_sign, h, w_sign, w = match.groups() if match else (None,) * 4
        offsets.append((_signed(h_sign, h), _signed(w_sign, w)))
    return tuple(offsets)


def _signed(sign: str | None, distance: str | None) -> int:
    return 0 if sign is None else int(f"{sign}{distance or 1}")


def overlap(offset: Offset, size: Size) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a map of ``size`` moved by ``offset`` lands inside itself: (to, of), each (rows, columns)."""
    to, of = [], []
    for delta, length in zip(offset, size, strict=True):
        low, high = min(max(delta, 0), length), max(length + min(delta, 0), 0)
        to.append(slice(low, max(high, low)))
        of.append(slice(low - delta, max(high, low) - delta))
    return (to[0], to[1]), (of[0], of[1])


@dataclass(frozen=True)
class Group:
    """Channels ``start:stop``, which move by ``offset``."""

    start: int
    stop: int
    offset: Offset


@dataclass(frozen=True)
class Shift:
    """The spatial shift: one offset for each of n equal channel groups, split at i·c//n.

    Under ``paper`` a position takes the value that lies ``offset`` before it; where that would be
    outside the map, ``border`` decides, and the paper's rule is to keep its own. Under ``inplace`` the
    same assignment runs in ascending memory order on one buffer, so that offsets pointing forward in
    memory read what they have just written: the border's value smears over the map.
    """

    offsets: tuple[Offset, ...] = DIRECTIONS["4"]
    semantics: Semantics = "paper"
    border: Border = "keep"

    def __post_init__(self) -> None:
        if not self.offsets:
            raise SpecError("a shift needs at least one offset, and got none")
        if self.semantics not in ("paper", "inplace"):
            raise SpecError(f"unknown shift semantics {self.semantics!r}: expected paper or inplace")
        if self.border not in get_args(Border):
            raise SpecError(f"unknown border {self.border!r}: expected {', '.join(get_args(Border))}")
        if self.semantics not in self.possible_semantics:
            raise SpecError(
                f"border {self.border} goes with paper semantics only: assignments in place write no border, so it keeps its "
                "values under them"
            )

    @property
    def possible_semantics(self) -> tuple[Semantics, ...]:
        """The semantics that this border leaves room for: statements in place keep it."""
        return get_args(Semantics) if self.border == "keep" else ("paper",)

    def groups(self, channels: int) -> tuple[Group, ...]:
        """The channel groups of a map with ``channels`` channels."""
        n = len(self.offsets)
        edges = [i * channels // n for i in range(n + 1)]
        return tuple(Group(a, b, o) for a, b, o in zip(edges, edges[1:], self.offsets, strict=False))

    def smears(self, offset: Offset) -> bool:
        """Whether a group with this offset reads values that the same assignment overwrote."""
        return self.semantics == "inplace" and offset > (0, 0)

    @property
    def directions(self) -> str:
        """The name of this set of offsets, or the offsets themselves."""
        for name, offsets in DIRECTIONS.items():
            if offsets == self.offsets:
                return name
        return ",".join(map(direction_name, self.offsets))


@dataclass(frozen=True)
class Embedding:
    """The convolution that opens a stage: patch embedding, or down-sampling between stages."""

    kernel: Size
    stride: Size
    padding: Size = (0, 0)

    def output_size(self, size: Size) -> Size:
        """Height and width after the convolution of a ``size`` map."""
        h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, *self._axes(), strict=True))
        return h, w

    def divides(self, size: Size) -> bool:
        """Whether the convolution sees every pixel of a ``size`` map."""
        return all((n + 2 * p - k) % s == 0 or p for n, k, s, p in zip(size, *self._axes(), strict=True))

    def _axes(self) -> tuple[Size, Size, Size]:
        return self.kernel, self.stride, self.padding


@dataclass(frozen=True)
class Stage:
    """An embedding followed by ``depth`` blocks of ``channels`` (c) and ``hidden`` (c̄) channels.

    ``stem_norm`` is a LayerNorm between them, which the paper does not have and some code bases do.
    """

    embedding: Embedding
    channels: int
    hidden: int
    depth: int
    stem_norm: bool = False


LAYERS = ("embedding", "stem_norm", "norm1", "fc1", "fc2", "norm2", "fc3", "fc4", "norm", "fc")
"""The layers that a parameter can belong to."""


def categories(classes: int) -> int:
    """How many classes a model with logits for ``classes`` tells apart.

    One logit, as torch's BCEWithLogitsLoss trains it, tells two apart: class 1 where it is positive, else class 0.
    """
    return max(classes, 2)


@dataclass(frozen=True)
class Spec:
    """The architecture that a set of weights implies.

    ``biases`` names the layers (of :data:`LAYERS`) that have one. ``final_norm`` is a LayerNorm
    before the mean over positions, or with ``norm_after_mean`` behind it, which the paper does not have
    and some code bases do.

    Raises:
        SpecError: where the numbers cannot be an S²-MLP.
    """

    stages: tuple[Stage, ...]
    classes: int
    image_size: Size = (224, 224)
    in_channels: int = 3
    shift: Shift = field(default_factory=Shift)
    biases: frozenset[str] = frozenset(LAYERS)
    final_norm: bool = False
    norm_epsilon: float = 1e-5
    norm_after_mean: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise SpecError("a model needs at least one stage, and got none")
        if unknown := self.biases - set(LAYERS):
            raise SpecError(f"biases of unknown layers {sorted(unknown)}: expected {', '.join(LAYERS)}")
        if self.norm_after_mean and not self.final_norm:
            raise SpecError("the norm after the mean is the norm of the head, and there is none: expected head.norm")
        groups = len(self.shift.offsets)
        for index, stage in enumerate(self.stages):
            if stage.depth and stage.channels < groups:
                raise SpecError(
                    f"stage {index} has {counted(stage.channels, 'channel')}, too few to split into the {groups} groups "
                    f"of shift directions {self.shift.directions}; choose another --shift-directions"
                )
        self.map_sizes(self.image_size)

    def map_sizes(self, image_size: Size) -> tuple[Size, ...]:
        """(height, width) of each stage's feature map for an image of ``image_size``.

        Raises:
            SpecError: where the image is smaller than the patch, or not a multiple of it.
        """
        sizes = []
        size = image_size
        for index, stage in enumerate(self.stages):
            e = stage.embedding
            where = f"image size {format_size(image_size)}" + (
                f", {format_size(size)} at stage {index}" if index else ""
            )
            if min(out := e.output_size(size)) < 1:
                raise SpecError(
                    f"{where} is smaller than the {format_size(e.kernel)} patch: give a larger --image-size"
                )
            if not e.divides(size):
                raise SpecError(
                    f"{where} is not a multiple of the {format_size(e.stride)} patch, so the last rows or columns would "
                    "be ignored: give an --image-size that is"
                )
            size = out
            sizes.append(size)
        return tuple(sizes)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's canonical name and shape, in the order of computation."""
        return dict(self._parameters())

    def _parameters(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        def layer(prefix: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield f"{prefix}.weight", shape
            if prefix.rsplit(".", 1)[-1] in self.biases:
                yield f"{prefix}.bias", shape[:1]

        width = self.in_channels
        for s, stage in enumerate(self.stages):
            c, hidden = stage.channels, stage.hidden
            yield from layer(f"stages.{s}.embedding", c, width, *stage.embedding.kernel)
            if stage.stem_norm:
                yield from layer(f"stages.{s}.stem_norm", c)
            for b in range(stage.depth):
                block = f"stages.{s}.blocks.{b}"
                yield from layer(f"{block}.norm1", c)
                yield from layer(f"{block}.fc1", c, c)
                yield from layer(f"{block}.fc2", c, c)
                yield from layer(f"{block}.norm2", c)
                yield from layer(f"{block}.fc3", hidden, c)
                yield from layer(f"{block}.fc4", c, hidden)
            width = c
        if self.final_norm:
            yield from layer("head.norm", width)
        yield from layer("head.fc", self.classes, width)

    @property
    def depth(self) -> int:
        """Blocks over all stages."""
        return sum(stage.depth for stage in self.stages)

    def parameters(self) -> int:
        """Number of learnt values."""
        return sum(prod(shape) for shape in self.parameter_shapes().values())

    def macs(self, image_size: Size | None = None) -> int:
        """Multiply-adds of one image's matrix products and convolutions (paper, section 3.4)."""
        total = 0
        width = self.in_channels
        for stage, (h, w) in zip(self.stages, self.map_sizes(image_size or self.image_size), strict=True):
            c = stage.channels
            total += h * w * c * width * prod(stage.embedding.kernel)
            total += stage.depth * h * w * (2 * c * c + 2 * c * stage.hidden)
            width = c
        return total + width * self.classes

    def with_shift(self, shift: Shift) -> Spec:
        """This spec with another shift."""
        return replace(self, shift=shift)

    def with_semantics(self, semantics: Semantics) -> Spec:
        """This spec with the same shift under other semantics."""
        return self.with_shift(replace(self.shift, semantics=semantics))

    def with_image_size(self, image_size: Size) -> Spec:
        """This spec for images of another size; the weights do not depend on it."""
        return replace(self, image_size=image_size)


def single_stage(
    *,
    channels: int,
    depth: int,
    patch: int = 16,
    expansion: int = 4,
    classes: int = 1000,
    image_size: Size = (224, 224),
    in_channels: int = 3,
) -> Spec:
    """The paper's form: one stage of equal blocks after one patch embedding."""
    stage = Stage(Embedding((patch, patch), (patch, patch)), channels, expansion * channels, depth)
    return Spec((stage,), classes, image_size, in_channels)


PRESETS: dict[str, Spec] = {
    "wide": single_stage(channels=768, depth=12),
    "deep": single_stage(channels=384, depth=36),
}
"""S²-MLP-wide and S²-MLP-deep (paper, table 2)."""
