"""Layouts of networks of stages."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from s2mlp_deploy.families.forms import PatchOrder
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.schema.shift import direction_name
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Embedding

Extent = Annotated[int, Field(ge=1, lt=2**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Geometry(_Strict):
    """Stride and padding of a stage's convolution, which its weights do not show."""

    stride: Annotated[int, Field(ge=1, lt=2**15)] | Literal["kernel"] = "kernel"
    padding: Annotated[int, Field(ge=0, lt=2**15)] = 0

    def embedding(self, kernel: Size) -> Embedding:
        """The convolution with this geometry and a kernel of (height, width)."""
        stride = kernel if self.stride == "kernel" else (self.stride, self.stride)
        return Embedding(kernel, stride, (self.padding, self.padding))


class PatchGeometry(Geometry):
    """Geometry of the patch embedding, or of a linear layer on flattened patches of ``size``, N or [height, width]."""

    size: Annotated[tuple[Extent, Extent], BeforeValidator(lambda n: (n, n) if isinstance(n, int) else n)] | None = None
    order: PatchOrder | None = None

    @model_validator(mode="after")
    def _both(self) -> PatchGeometry:
        if (self.size is None) != (self.order is None):
            raise ValueError("a linear patch embedding has both a size and an order, channels-first or channels-last")
        if self.size and (self.stride, self.padding) != ("kernel", 0):
            raise ValueError("a linear patch embedding takes patches side by side: leave out stride and padding")
        return self


def layer_pattern(*block: str) -> re.Pattern[str]:
    """The layers of a canonical model whose blocks have those called ``block``."""
    return re.compile(
        r"stages\.(\d{1,4}|\{s(\+\d{1,4})?\})\."
        rf"(embedding|stem_norm|blocks\.(\d{{1,4}}|\{{b(\+\d{{1,4}})?\}})\.({'|'.join(block)}))|head\.(norm|fc)"
    )


class StagedLayout(Layout):
    """A layout of a network of stages.

    With ``pointwise_convolutions`` linear layers are kept as 1×1 convolutions; ``patch`` and ``downsampling`` are the
    strides and paddings of the stages' first convolutions.
    """

    ends: ClassVar[frozenset[str]] = frozenset({"stages.0.embedding.weight", "head.fc.weight"})

    norm_after_mean: bool = False
    pointwise_convolutions: bool = False
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    patch: PatchGeometry = PatchGeometry()
    downsampling: Geometry = Geometry()

    def taken_on_trust(self, spec: StagedSpec) -> tuple[str, ...]:
        """The facts about ``spec`` that this layout states and weights do not show, in words."""

        def stated(field: str) -> str:
            return "" if field in self.model_fields_set else " (the default)"

        first, *others = (stage.embedding for stage in spec.stages)
        parts = [
            f"shift directions {','.join(map(direction_name, spec.shift.offsets))}{stated('directions')}",
            f"border {spec.shift.border}{stated('border')}",
            "norms before the linear layers, and GELU",
            f"LayerNorm's epsilon {spec.norm_epsilon:g}{stated('norm_epsilon')}",
            f"patches of stride {format_size(first.stride)}, padding {format_size(first.padding)}{stated('patch')}",
        ]
        if self.patch.order:
            parts.append(f"patches flattened {self.patch.order}")
        if others:
            shown = " and ".join(
                dict.fromkeys(f"stride {format_size(e.stride)}, padding {format_size(e.padding)}" for e in others)
            )
            parts.append(f"down-sampling of {shown}{stated('downsampling')}")
        if spec.final_norm:
            where = "behind" if spec.norm_after_mean else "before"
            parts.append(f"the head's norm {where} the mean{stated('norm_after_mean')}")
        return tuple(parts)
