"""S²-MLPv2 as a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.s2mlp_v2.layout import S2MLPv2Layout, refuse_near_misses
from s2mlp_deploy.families.s2mlp_v2.spec import AttentionStage, S2MLPv2Spec
from s2mlp_deploy.families.staged.family import StagedFamily
from s2mlp_deploy.families.staged.spec import Stage
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size

if TYPE_CHECKING:
    from s2mlp_deploy.families.s2mlp_v2.emit import S2MLPv2Emitter
    from s2mlp_deploy.families.s2mlp_v2.reference import S2MLPv2


class S2MLPv2Family(StagedFamily[S2MLPv2Spec]):
    """S²-MLPv2 (arXiv 2108.01072). The products of its split attention, which see one row, stay in float."""

    name, title = S2MLPv2Spec.family, "S²-MLPv2"
    spec_type = S2MLPv2Spec
    layout = S2MLPv2Layout
    activations: ClassVar[Mapping[str, str]] = {"fc1": "norm1", "fc2": "attention", "fc3": "norm2", "fc4": "gelu2"}

    def model_type(self) -> type[S2MLPv2]:
        from s2mlp_deploy.families.s2mlp_v2.reference import S2MLPv2

        return S2MLPv2

    def emitter_type(self) -> type[S2MLPv2Emitter]:
        from s2mlp_deploy.families.s2mlp_v2.emit import S2MLPv2Emitter

        return S2MLPv2Emitter

    def infer_spec(self, match: Match[Any], shapes: Shapes, *, image_size: Size, shift: Shift) -> S2MLPv2Spec:
        refuse_near_misses(match, shapes)
        return super().infer_spec(match, shapes, image_size=image_size, shift=shift)

    def stage_line(self, stage: Stage) -> str:
        assert isinstance(stage, AttentionStage)
        return super().stage_line(stage) + f", split attention over {stage.attention}" * bool(stage.depth)
