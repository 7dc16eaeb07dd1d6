"""The architecture of an S²-MLP (arXiv 2106.07477).

Notation of the paper: c channels, c̄ = r·c hidden channels, N blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Embedding, Spec

__all__ = ["LAYERS", "PRESETS", "S2MLPSpec", "Stage", "only_s2mlp", "single_stage"]

LAYERS = ("embedding", "stem_norm", "norm1", "fc1", "fc2", "norm2", "fc3", "fc4", "norm", "fc")
"""The layers that a parameter can belong to."""


@dataclass(frozen=True)
class S2MLPSpec(StagedSpec):
    """An S²-MLP: its stages, the shift of its blocks, and where biases and norms stand.

    Raises:
        SpecError: where the numbers cannot be an S²-MLP.
    """

    family: ClassVar[str] = "s2mlp"
    layers: ClassVar[tuple[str, ...]] = LAYERS

    biases: frozenset[str] = frozenset(LAYERS)

    def block_weights(self, stage: Stage) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Two norms and four linear layers (paper, equation 5)."""
        c, hidden = stage.channels, stage.hidden
        yield "norm1", (c,)
        yield "fc1", (c, c)
        yield "fc2", (c, c)
        yield "norm2", (c,)
        yield "fc3", (hidden, c)
        yield "fc4", (c, hidden)

    def block_products(self, stage: Stage, positions: int) -> Iterator[tuple[str, int, int, int]]:
        """FC₁ to FC₄ (paper, section 3.4)."""
        c, hidden = stage.channels, stage.hidden
        for layer, inputs, outputs in (("fc1", c, c), ("fc2", c, c), ("fc3", c, hidden), ("fc4", hidden, c)):
            yield layer, positions, inputs, outputs


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
