"""MLP-Mixer as a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.mixer.spec import EMBEDDING, MixerSpec
from s2mlp_deploy.graph.layer import INPUT, OUTPUT, Layer

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

    from s2mlp_deploy.families.mixer.reference import Mixer
    from s2mlp_deploy.graph.lowered import Axes
    from s2mlp_deploy.graph.spatial_shift import Lowering


class MixerFamily(Family[MixerSpec]):
    """MLP-Mixer (arXiv 2105.01601), for benchmarks: it has no layouts, so no checkpoint is recognised as one."""

    name, title = MixerSpec.family, "MLP-Mixer"
    spec_type = MixerSpec

    def build(self, spec: MixerSpec, weights: Mapping[str, Tensor]) -> Mixer:
        from s2mlp_deploy.families.mixer.reference import build

        return build(spec, weights)

    def emit(self, spec: MixerSpec, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        from s2mlp_deploy.families.mixer.emit import emit

        return emit(spec, weights, axes)

    def block_layers(self, spec: MixerSpec) -> tuple[Layer, ...]:
        """FC₃ and FC₄: the weight of a product over positions is its first factor, which int8 does not quantize."""
        inputs = {"fc3": "norm2", "fc4": "gelu2"}
        blocks = [name for name in spec.layer_maps() if name not in (EMBEDDING, OUTPUT)]
        return tuple(Layer(f"{block}/{fc}", f"{block}/{source}") for block in blocks for fc, source in inputs.items())

    def end_layers(self, spec: MixerSpec) -> tuple[Layer, ...]:
        return Layer(f"{EMBEDDING}/conv", INPUT), Layer(OUTPUT, "head/mean")
