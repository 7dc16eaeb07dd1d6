"""S²-MLP as a family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.forms import Form
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.s2mlp import layers, layout
from s2mlp_deploy.families.s2mlp.layout import S2MLPLayout, taken_on_trust
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

    from s2mlp_deploy.families.s2mlp.reference import S2MLP
    from s2mlp_deploy.families.structure import Structure
    from s2mlp_deploy.graph.lowered import Axes
    from s2mlp_deploy.graph.spatial_shift import Lowering


class S2MLPFamily(Family[S2MLPSpec]):
    """S²-MLP (arXiv 2106.07477)."""

    name, title = S2MLPSpec.family, "S²-MLP"
    spec_type = S2MLPSpec

    def build(self, spec: S2MLPSpec, weights: Mapping[str, Tensor]) -> S2MLP:
        from s2mlp_deploy.families.s2mlp.reference import build

        return build(spec, weights)

    def emit(self, spec: S2MLPSpec, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        from s2mlp_deploy.families.s2mlp.emit import emit

        return emit(spec, weights, lowering, axes)

    def layout_type(self) -> type[Layout]:
        return S2MLPLayout

    def infer_spec(self, match: Match[S2MLPLayout], shapes: Shapes, *, image_size: Size, shift: Shift) -> S2MLPSpec:
        return layout.infer_spec(match, shapes, image_size=image_size, shift=shift)

    def form_of(self, match: Match[S2MLPLayout], name: str, shapes: Shapes) -> Form | None:
        return layout.form_of(match, name, shapes)

    def taken_on_trust(self, layout: S2MLPLayout, spec: S2MLPSpec) -> tuple[str, ...]:
        return taken_on_trust(layout, spec)

    def alternatives(self, spec: S2MLPSpec) -> Iterator[Iterator[Structure]]:
        from s2mlp_deploy.families.s2mlp.structures import alternatives

        return alternatives(spec)

    def stage_lines(self, spec: S2MLPSpec) -> tuple[str, ...]:
        return tuple(map(_stage_line, spec.stages))

    def peculiarities(self, spec: S2MLPSpec) -> tuple[str, ...]:
        return ("norm after the mean",) if spec.norm_after_mean else ()

    def block_layers(self, spec: S2MLPSpec) -> tuple[Layer, ...]:
        return layers.block_layers(spec)

    def end_layers(self, spec: S2MLPSpec) -> tuple[Layer, ...]:
        return layers.end_layers(spec)


def _stage_line(stage: Stage) -> str:
    e = stage.embedding
    blocks = f", {counted(stage.depth, 'block')} of {stage.channels} and {counted(stage.hidden, 'channel')}"
    return (
        f"{format_size(e.kernel)} convolution, stride {format_size(e.stride)}, {counted(stage.channels, 'channel')}"
        + blocks * bool(stage.depth)
    )
