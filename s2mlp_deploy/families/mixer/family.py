"""MLP-Mixer as a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.forms import Form
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.mixer import layout
from s2mlp_deploy.families.mixer.layout import MixerLayout, taken_on_trust
from s2mlp_deploy.families.mixer.spec import EMBEDDING, HEAD_MEAN, HEAD_NORM, MixerSpec
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.graph.layer import INPUT, OUTPUT, Layer
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

    from s2mlp_deploy.families.mixer.reference import Mixer
    from s2mlp_deploy.graph.lowered import Axes
    from s2mlp_deploy.graph.spatial_shift import Lowering


class MixerFamily(Family[MixerSpec]):
    """MLP-Mixer (arXiv 2105.01601)."""

    name, title = MixerSpec.family, "MLP-Mixer"
    spec_type = MixerSpec

    def build(self, spec: MixerSpec, weights: Mapping[str, Tensor]) -> Mixer:
        from s2mlp_deploy.families.mixer.reference import build

        return build(spec, weights)

    def emit(self, spec: MixerSpec, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        from s2mlp_deploy.families.mixer.emit import emit

        return emit(spec, weights, axes)

    def layout_type(self) -> type[Layout]:
        return MixerLayout

    def infer_spec(self, match: Match[MixerLayout], shapes: Shapes, *, image_size: Size, shift: Shift) -> MixerSpec:
        return layout.infer_spec(match, shapes, image_size)

    def default_image_size(self, match: Match[MixerLayout], shapes: Shapes) -> Size:
        return layout.image_size_of(match, shapes)

    def form_of(self, match: Match[MixerLayout], name: str, shapes: Shapes) -> Form | None:
        return layout.form_of(match, name, shapes)

    def taken_on_trust(self, layout: MixerLayout, spec: MixerSpec) -> tuple[str, ...]:
        return taken_on_trust(layout, spec)

    def stage_lines(self, spec: MixerSpec) -> tuple[str, ...]:
        e = spec.embedding
        return (
            f"{format_size(e.kernel)} convolution, stride {format_size(e.stride)}, {counted(spec.channels, 'channel')}, "
            f"{counted(spec.depth, 'block')} of {spec.token_hidden} values over {spec.positions} positions and "
            f"{counted(spec.hidden, 'channel')}",
        )

    def peculiarities(self, spec: MixerSpec) -> tuple[str, ...]:
        return ("norm after the mean",) if spec.norm_after_mean else ()

    def block_layers(self, spec: MixerSpec) -> tuple[Layer, ...]:
        """The two products over positions and the two over channels of every block, in the order of computation."""
        inputs = {"token1": "norm1", "token2": "gelu1", "fc3": "norm2", "fc4": "gelu2"}
        blocks = [name for name in spec.layer_maps() if name not in (EMBEDDING, OUTPUT)]
        return tuple(Layer(f"{block}/{fc}", f"{block}/{source}") for block in blocks for fc, source in inputs.items())

    def end_layers(self, spec: MixerSpec) -> tuple[Layer, ...]:
        return Layer(f"{EMBEDDING}/conv", INPUT), Layer(OUTPUT, HEAD_NORM if spec.norm_after_mean else HEAD_MEAN)
