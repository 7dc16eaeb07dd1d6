"""The base class of families whose networks are stages of blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.forms import Form
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.staged import infer_spec, layers
from s2mlp_deploy.families.staged.layout import StagedLayout
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec
from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

    from s2mlp_deploy.families.staged.emit import StagedEmitter
    from s2mlp_deploy.families.staged.reference import StagedModel
    from s2mlp_deploy.families.structure import Structure
    from s2mlp_deploy.graph.lowered import Axes
    from s2mlp_deploy.graph.spatial_shift import Lowering

S = TypeVar("S", bound=StagedSpec)


class StagedFamily(Family[S]):
    """Networks of stages with one kind of block, which the spec, the layout, the module and the emitter describe."""

    layout: ClassVar[type[StagedLayout]]

    activations: ClassVar[Mapping[str, str]]
    """The matrix products of a block that int8 quantizes, in the order of computation, and the layer that each reads."""

    @abstractmethod
    def model_type(self) -> type[StagedModel]:
        """The class of the module, which needs torch."""

    @abstractmethod
    def emitter_type(self) -> type[StagedEmitter]:
        """The class that writes the graph."""

    def build(self, spec: S, weights: Mapping[str, Tensor]) -> StagedModel:
        return self.model_type().of(spec, weights)

    def emit(self, spec: S, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        return self.emitter_type().emit(spec, weights, lowering, axes)

    def layout_type(self) -> type[StagedLayout]:
        return self.layout

    def infer_spec(self, match: Match[Any], shapes: Shapes, *, image_size: Size, shift: Shift) -> S:
        return infer_spec.infer_spec(self, match, shapes, image_size=image_size, shift=shift)

    def form_of(self, match: Match[Any], name: str, shapes: Shapes) -> Form | None:
        return infer_spec.form_of(match, name, shapes)

    def taken_on_trust(self, layout: StagedLayout, spec: S) -> tuple[str, ...]:
        return layout.taken_on_trust(spec)

    def alternatives(self, spec: S) -> Iterator[Iterator[Structure]]:
        from s2mlp_deploy.families.staged.structures import alternatives

        return alternatives(spec, self.model_type())

    def stage_lines(self, spec: S) -> tuple[str, ...]:
        return tuple(map(self.stage_line, spec.stages))

    def stage_line(self, stage: Stage) -> str:
        """A stage in words."""
        e = stage.embedding
        widths = [str(stage.channels), counted(stage.hidden, "channel")]
        blocks = f", {counted(stage.depth, 'block')} of {' and '.join(widths)}"
        return (
            f"{format_size(e.kernel)} convolution, stride {format_size(e.stride)}, {counted(stage.channels, 'channel')}"
            + blocks * bool(stage.depth)
        )

    def peculiarities(self, spec: S) -> tuple[str, ...]:
        return ("norm after the mean",) if spec.norm_after_mean else ()

    def block_layers(self, spec: S) -> tuple[Layer, ...]:
        return tuple(
            Layer(f"{block}/{fc}", f"{block}/{source}")
            for block in layers.block_names(spec)
            for fc, source in self.activations.items()
        )

    def end_layers(self, spec: S) -> tuple[Layer, ...]:
        return layers.end_layers(spec)
