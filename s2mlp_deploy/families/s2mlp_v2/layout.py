"""Layouts of S²-MLPv2, and what its checkpoints are refused for."""

from __future__ import annotations

import re
from typing import ClassVar

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.s2mlp_v2.spec import PARTS, S2MLPv2Spec
from s2mlp_deploy.families.staged.layout import StagedLayout, layer_pattern


class S2MLPv2Layout(StagedLayout):
    """A layout of S²-MLPv2."""

    family: ClassVar[str] = S2MLPv2Spec.family
    layers: ClassVar[re.Pattern[str]] = layer_pattern(
        "norm1", "fc1", "attention1", "attention2", "fc2", "norm2", "fc3", "fc4"
    )
    ends: ClassVar[frozenset[str]] = StagedLayout.ends | {"stages.0.blocks.0.attention1.weight"}


def refuse_near_misses(match: Match[S2MLPv2Layout], shapes: Shapes) -> None:
    """Refuse blocks that are nearly S²-MLPv2's.

    Raises:
        LayoutError: where the split attention has biases, or a block's first layer gives another number of parts.
    """
    for name, key in match.names.items():
        *_, layer, kind = name.split(".")
        shape = shapes[key]
        if layer.startswith("attention") and kind == "bias":
            raise LayoutError(
                f"{key} {list(shape)} is a bias inside the split attention, which S²-MLPv2's has none of: expected two weights alone"
            )
        if layer == "fc1" and kind == "weight" and len(shape) >= 2 and shape[1] and shape[0] != PARTS * shape[1]:
            parts = f"{shape[0] // shape[1]} parts" if shape[0] % shape[1] == 0 else "no whole number of parts"
            raise LayoutError(
                f"{key} {list(shape)} gives {parts} of {shape[1]} channels, and S²-MLPv2 has {PARTS}, two that are shifted and one "
                f"that stays: expected shape [{PARTS * shape[1]}, {shape[1]}]"
            )
