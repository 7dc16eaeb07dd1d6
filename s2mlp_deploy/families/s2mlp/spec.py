"""The architecture of an S²-MLP (arXiv 2106.07477).

Notation of the paper: c channels, c̄ = r·c hidden channels, N blocks. Feature maps between blocks are
``(batch, height, width, channels)``; images ``(batch, 3, height, width)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Annotated, Any, ClassVar

from pydantic import Field

from s2mlp_deploy.errors import SpecError, UsageError
from s2mlp_deploy.families.s2mlp import layers
from s2mlp_deploy.schema.shift import Border, Semantics, Shift
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding, Product, Spec
from s2mlp_deploy.schema.strict_model import Count, Extent, Step, StrictModel
from s2mlp_deploy.system.wording import counted


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


class _StageJson(StrictModel):
    kernel: tuple[Extent, Extent]
    stride: tuple[Extent, Extent]
    padding: tuple[Count, Count]
    channels: Extent
    hidden: Count
    depth: Annotated[int, Field(ge=0, lt=2**16)]
    stem_norm: bool = False


class _SpecJson(StrictModel):
    """The JSON of a spec; bundles from before there was a choice leave out the fields that have a default here."""

    stages: tuple[_StageJson, ...]
    classes: Extent
    image_size: tuple[Extent, Extent]
    in_channels: Extent
    shift_offsets: tuple[tuple[Step, Step], ...]
    shift_semantics: Semantics
    biases: tuple[str, ...]
    final_norm: bool
    norm_epsilon: float
    shift_border: Border = "keep"
    norm_after_mean: bool = False


@dataclass(frozen=True)
class S2MLPSpec(Spec):
    """An S²-MLP: its stages, the shift of its blocks, and where biases and norms stand.

    ``biases`` names the layers (of :data:`LAYERS`) that have one. ``final_norm`` is a LayerNorm
    before the mean over positions, or with ``norm_after_mean`` behind it, which the paper does not have
    and some code bases do.

    Raises:
        SpecError: where the numbers cannot be an S²-MLP.
    """

    family: ClassVar[str] = "s2mlp"

    stages: tuple[Stage, ...]
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

    def layer_maps(self) -> dict[str, int | None]:
        """Embeddings, blocks and the logits; a feature map for each stage."""
        return dict(layers.layer_maps(self))

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The convolution that opens each stage."""
        return tuple(stage.embedding for stage in self.stages)

    @property
    def shifts(self) -> tuple[Shift, ...]:
        """The one shift of all blocks."""
        return (self.shift,)

    @property
    def depth(self) -> int:
        """Blocks over all stages."""
        return sum(stage.depth for stage in self.stages)

    def products(self, image_size: Size | None = None) -> tuple[Product, ...]:
        """FC₁ to FC₄ of every block."""
        return tuple(self._products(image_size or self.image_size))

    def _products(self, image_size: Size) -> Iterator[Product]:
        for s, (stage, (h, w)) in enumerate(zip(self.stages, self.map_sizes(image_size), strict=True)):
            c, hidden = stage.channels, stage.hidden
            for b in range(stage.depth):
                for layer, inputs, outputs in (("fc1", c, c), ("fc2", c, c), ("fc3", c, hidden), ("fc4", hidden, c)):
                    yield Product(f"{layers.block_name(s, b)}/{layer}", h * w, inputs, outputs)

    def macs(self, image_size: Size | None = None) -> int:
        """Multiply-adds of one image's matrix products and convolutions (paper, section 3.4)."""
        total, width = sum(product.macs for product in self.products(image_size)), self.in_channels
        for stage, (h, w) in zip(self.stages, self.map_sizes(image_size or self.image_size), strict=True):
            total += h * w * stage.channels * width * prod(stage.embedding.kernel)
            width = stage.channels
        return total + width * self.classes

    def with_shift(self, shift: Shift) -> S2MLPSpec:
        """This spec with another shift."""
        return replace(self, shift=shift)

    def with_semantics(self, semantics: Semantics) -> S2MLPSpec:
        """This spec with the same shift under other ``semantics``."""
        return self.with_shift(replace(self.shift, semantics=semantics))

    def to_json(self) -> dict[str, Any]:
        """The spec as a flat JSON object; ``family`` is left out."""
        stages = tuple(
            _StageJson(
                **asdict(stage.embedding),
                channels=stage.channels,
                hidden=stage.hidden,
                depth=stage.depth,
                stem_norm=stage.stem_norm,
            )
            for stage in self.stages
        )
        return _SpecJson(
            stages=stages,
            classes=self.classes,
            image_size=self.image_size,
            in_channels=self.in_channels,
            shift_offsets=self.shift.offsets,
            shift_semantics=self.shift.semantics,
            biases=tuple(sorted(self.biases)),
            final_norm=self.final_norm,
            norm_epsilon=self.norm_epsilon,
            shift_border=self.shift.border,
            norm_after_mean=self.norm_after_mean,
        ).model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> S2MLPSpec:
        """The spec that :meth:`to_json` wrote, with this or an earlier release.

        Raises:
            pydantic.ValidationError: where ``content`` is not such an object.
            SpecError: where the numbers cannot be an S²-MLP.
        """
        entry = _SpecJson.model_validate(content)
        return cls(
            stages=tuple(
                Stage(Embedding(s.kernel, s.stride, s.padding), s.channels, s.hidden, s.depth, s.stem_norm)
                for s in entry.stages
            ),
            classes=entry.classes,
            image_size=entry.image_size,
            in_channels=entry.in_channels,
            shift=Shift(entry.shift_offsets, entry.shift_semantics, entry.shift_border),
            biases=frozenset(entry.biases),
            final_norm=entry.final_norm,
            norm_epsilon=entry.norm_epsilon,
            norm_after_mean=entry.norm_after_mean,
        )


def only_s2mlp(spec: Spec, why: str) -> S2MLPSpec:
    """``spec``, which must be an S²-MLP's for the reason ``why``.

    Raises:
        UsageError: where it is another family's.
    """
    if not isinstance(spec, S2MLPSpec):
        raise UsageError(f"this is a network of the family {spec.family}, and {why}: give an S²-MLP")
    return spec


def single_stage(
    *,
    channels: int,
    depth: int,
    patch: int = 16,
    expansion: int = 4,
    classes: int = 1000,
    image_size: Size = (224, 224),
    in_channels: int = 3,
) -> S2MLPSpec:
    """The paper's form: one stage of equal blocks after one patch embedding."""
    stage = Stage(Embedding((patch, patch), (patch, patch)), channels, expansion * channels, depth)
    return S2MLPSpec((stage,), classes=classes, image_size=image_size, in_channels=in_channels)


PRESETS: dict[str, S2MLPSpec] = {
    "wide": single_stage(channels=768, depth=12),
    "deep": single_stage(channels=384, depth=36),
}
"""S²-MLP-wide and S²-MLP-deep (paper, table 2)."""
