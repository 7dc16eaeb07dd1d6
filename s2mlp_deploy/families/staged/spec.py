"""The architecture of a network of stages with shifts: a convolution and a row of blocks in each, mean and classifier.

c are the channels of a stage, c̄ = r·c the hidden ones of its channel MLPs. Feature maps between blocks are
``(batch, height, width, channels)``; images ``(batch, 3, height, width)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families.staged import layers
from s2mlp_deploy.schema.shift import Border, Semantics, Shift
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding, Product, Spec
from s2mlp_deploy.schema.strict_model import Count, Extent, Step, StrictModel
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Stage:
    """An embedding followed by ``depth`` blocks of ``channels`` (c) and ``hidden`` (c̄) channels.

    ``stem_norm`` is a LayerNorm between them, which the papers do not have and some code bases do.
    """

    widths: ClassVar[Mapping[str, str]] = {"hidden": "fc3"}
    """The fields that are the number of outputs of a block's layer, and that layer."""

    embedding: Embedding
    channels: int
    hidden: int
    depth: int
    stem_norm: bool = False


class StageJson(StrictModel):
    """The JSON of a stage."""

    kernel: tuple[Extent, Extent]
    stride: tuple[Extent, Extent]
    padding: tuple[Count, Count]
    channels: Extent
    hidden: Count
    depth: Annotated[int, Field(ge=0, lt=2**16)]
    stem_norm: bool = False


class StagedJson(StrictModel):
    """The JSON of a spec; bundles from before there was a choice leave out the fields that have a default here."""

    stages: tuple[StageJson, ...]
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
class StagedSpec(Spec):
    """Stages of blocks with a shift, and where biases and norms stand.

    ``biases`` names the layers that have one, of those in ``layers``. ``final_norm`` is a LayerNorm
    before the mean over positions, or with ``norm_after_mean`` behind it, which the papers do not have
    and some code bases do.

    Raises:
        SpecError: where the numbers cannot be such a network.
    """

    layers: ClassVar[tuple[str, ...]]
    """The layers that may have a bias."""

    stage_type: ClassVar[type[Stage]] = Stage
    json_type: ClassVar[type[StagedJson]] = StagedJson

    stages: tuple[Stage, ...]
    shift: Shift = field(default_factory=Shift)
    biases: frozenset[str] = frozenset()
    final_norm: bool = False
    norm_epsilon: float = 1e-5
    norm_after_mean: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise SpecError("a model needs at least one stage, and got none")
        if unknown := self.biases - set(self.layers):
            raise SpecError(f"biases of unknown layers {sorted(unknown)}: expected {', '.join(self.layers)}")
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

    @abstractmethod
    def block_weights(self, stage: Stage) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The layers of a block of ``stage`` in the order of computation, with the shape of each one's weight."""

    @abstractmethod
    def block_products(self, stage: Stage, positions: int) -> Iterator[tuple[str, int, int, int]]:
        """The matrix products of a block for one map of ``positions``: layer, rows, inputs and outputs."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's canonical name and shape, in the order of computation."""
        return dict(self._parameters())

    def _parameters(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for layer, shape in self._weights():
            yield f"{layer}.weight", shape
            if layer.rsplit(".", 1)[-1] in self.biases:
                yield f"{layer}.bias", shape[:1]

    def _weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        width = self.in_channels
        for s, stage in enumerate(self.stages):
            yield f"stages.{s}.embedding", (stage.channels, width, *stage.embedding.kernel)
            if stage.stem_norm:
                yield f"stages.{s}.stem_norm", (stage.channels,)
            for b in range(stage.depth):
                for layer, shape in self.block_weights(stage):
                    yield f"stages.{s}.blocks.{b}.{layer}", shape
            width = stage.channels
        if self.final_norm:
            yield "head.norm", (width,)
        yield "head.fc", (self.classes, width)

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
        """The matrix products of every block."""
        maps = self.map_sizes(image_size or self.image_size)
        return tuple(
            Product(f"{layers.block_name(s, b)}/{layer}", rows, inputs, outputs)
            for s, (stage, size) in enumerate(zip(self.stages, maps, strict=True))
            for b in range(stage.depth)
            for layer, rows, inputs, outputs in self.block_products(stage, prod(size))
        )

    def macs(self, image_size: Size | None = None) -> int:
        """Multiply-adds of one image's matrix products and convolutions."""
        total, width = sum(product.macs for product in self.products(image_size)), self.in_channels
        for stage, (h, w) in zip(self.stages, self.map_sizes(image_size or self.image_size), strict=True):
            total += h * w * stage.channels * width * prod(stage.embedding.kernel)
            width = stage.channels
        return total + width * self.classes

    def with_shift(self, shift: Shift) -> Self:
        """This spec with another shift."""
        return replace(self, shift=shift)

    def with_semantics(self, semantics: Semantics) -> Self:
        """This spec with the same shift under other ``semantics``."""
        return self.with_shift(replace(self.shift, semantics=semantics))

    def to_json(self) -> dict[str, Any]:
        """The spec as a flat JSON object."""
        stages = []
        for stage in self.stages:
            entry = asdict(stage)
            stages.append({**entry.pop("embedding"), **entry})
        return self.json_type.model_validate(
            {
                "stages": tuple(stages),
                "classes": self.classes,
                "image_size": self.image_size,
                "in_channels": self.in_channels,
                "shift_offsets": self.shift.offsets,
                "shift_semantics": self.shift.semantics,
                "biases": tuple(sorted(self.biases)),
                "final_norm": self.final_norm,
                "norm_epsilon": self.norm_epsilon,
                "shift_border": self.shift.border,
                "norm_after_mean": self.norm_after_mean,
            }
        ).model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The spec that :meth:`to_json` wrote, with this or an earlier release.

        Raises:
            pydantic.ValidationError: where ``content`` is not such an object.
            SpecError: where the numbers cannot be a network of the family.
        """
        entry = cls.json_type.model_validate(content)
        stages = []
        for stage in entry.stages:
            fields = stage.model_dump()
            embedding = Embedding(*(fields.pop(name) for name in ("kernel", "stride", "padding")))
            stages.append(cls.stage_type(embedding, **fields))
        return cls(
            stages=tuple(stages),
            classes=entry.classes,
            image_size=entry.image_size,
            in_channels=entry.in_channels,
            shift=Shift(entry.shift_offsets, entry.shift_semantics, entry.shift_border),
            biases=frozenset(entry.biases),
            final_norm=entry.final_norm,
            norm_epsilon=entry.norm_epsilon,
            norm_after_mean=entry.norm_after_mean,
        )
