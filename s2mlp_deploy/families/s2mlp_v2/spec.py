"""The architecture of an S²-MLPv2 (arXiv 2108.01072).

Notation of the paper: c channels, r·c hidden channels, ĉ channels inside the split attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from s2mlp_deploy.families.staged.spec import Stage, StagedJson, StagedSpec, StageJson
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding
from s2mlp_deploy.schema.strict_model import Count

PARTS = 3
"""Parts of c channels that a block's first layer gives."""

LAYERS = ("embedding", "stem_norm", "norm1", "fc1", "fc2", "norm2", "fc3", "fc4", "norm", "fc")
"""The layers that may have a bias: those of the split attention have none."""


@dataclass(frozen=True)
class AttentionStage(Stage):
    """A stage whose blocks have ``attention`` (ĉ) channels inside their split attention."""

    widths: ClassVar[Mapping[str, str]] = {**Stage.widths, "attention": "attention1"}

    attention: int = 0


class _StageJson(StageJson):
    attention: Count


class _SpecJson(StagedJson):
    family: Literal["s2mlp_v2"] = "s2mlp_v2"
    stages: tuple[_StageJson, ...]


@dataclass(frozen=True)
class S2MLPv2Spec(StagedSpec):
    """An S²-MLPv2: its stages, the shift of its blocks' first part, and where biases and norms stand.

    Raises:
        SpecError: where the numbers cannot be an S²-MLPv2.
    """

    family: ClassVar[str] = "s2mlp_v2"
    layers: ClassVar[tuple[str, ...]] = LAYERS
    stage_type: ClassVar[type[Stage]] = AttentionStage
    json_type: ClassVar[type[StagedJson]] = _SpecJson

    biases: frozenset[str] = frozenset(LAYERS)

    @property
    def parts(self) -> tuple[Shift | None, ...]:
        """The shift of each part: of the first, the same along the other axes, and none."""
        return self.shift, self.shift.mirrored, None

    @property
    def shifts(self) -> tuple[Shift, ...]:
        """The shifts of the parts that move."""
        return tuple(shift for shift in self.parts if shift is not None)

    @property
    def shift_of_all_parts(self) -> Shift:
        """The shift that moves all parts at once, on 3·c channels.

        Of n groups to a part, group j of part p starts at (p·n + j)·3c // 3n = p·c + j·c // n: where its own part puts it.
        """
        still = ((0, 0),) * len(self.shift.offsets)
        offsets = tuple(offset for shift in self.parts for offset in (shift.offsets if shift else still))
        return Shift(offsets, self.shift.semantics, self.shift.border)

    def block_weights(self, stage: Stage) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Two norms, four linear layers, and the two of the split attention (paper, section 3.2)."""
        assert isinstance(stage, AttentionStage)
        c, hidden, attention = stage.channels, stage.hidden, stage.attention
        yield "norm1", (c,)
        yield "fc1", (PARTS * c, c)
        yield "attention1", (attention, c)
        yield "attention2", (PARTS * c, attention)
        yield "fc2", (c, c)
        yield "norm2", (c,)
        yield "fc3", (hidden, c)
        yield "fc4", (c, hidden)

    def block_products(self, stage: Stage, positions: int) -> Iterator[tuple[str, int, int, int]]:
        """Every linear layer; those of the split attention see one row, the sum over positions."""
        rows = {"attention1": 1, "attention2": 1}
        for layer, shape in self.block_weights(stage):
            if len(shape) == 2:
                yield layer, rows.get(layer, positions), shape[1], shape[0]

    def to_json(self) -> dict[str, Any]:
        """The spec as a flat JSON object, which begins with the family."""
        return {"family": self.family, **super().to_json()}


def two_stages(
    channels: Size, depths: Size, *, attention: Size, classes: int = 1000, image_size: Size = (224, 224)
) -> S2MLPv2Spec:
    """The paper's form: patches of 7 by 7, then of 2 by 2 of their maps, and channel MLPs three times as wide as the blocks."""
    stages = (
        AttentionStage(Embedding((patch, patch), (patch, patch)), c, 3 * c, depth, attention=width)
        for patch, c, depth, width in zip((7, 2), channels, depths, attention, strict=True)
    )
    return S2MLPv2Spec(tuple(stages), classes=classes, image_size=image_size)


PRESETS: dict[str, S2MLPv2Spec] = {
    "small/7": two_stages((192, 384), (4, 14), attention=(48, 96)),
    "medium/7": two_stages((256, 512), (7, 17), attention=(64, 128)),
}
"""S²-MLPv2-Small/7 and -Medium/7 (paper, table 1), with ĉ = c / 4."""
