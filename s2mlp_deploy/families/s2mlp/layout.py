"""Layouts of S²-MLP, and the spec that the shapes of a checkpoint imply."""

from __future__ import annotations

import re
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families import forms
from s2mlp_deploy.families.forms import Form, PatchOrder
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.recognition import Match, Shapes, some
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.schema.shift import Shift, direction_name
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Embedding

MOST_CHANNELS = 1024
"""Channels of an image: hyperspectral ones have some hundreds. Mean and deviation of each are shown and written."""

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


class S2MLPLayout(Layout):
    """A layout of S²-MLP.

    With ``pointwise_convolutions`` linear layers are kept as 1×1 convolutions; ``patch`` and ``downsampling`` are the
    strides and paddings of the stages' first convolutions.
    """

    family: ClassVar[str] = S2MLPSpec.family
    layers: ClassVar[re.Pattern[str]] = re.compile(
        r"stages\.(\d{1,4}|\{s(\+\d{1,4})?\})\.(embedding|stem_norm|blocks\.(\d{1,4}|\{b(\+\d{1,4})?\})\.(norm1|fc1|fc2|norm2|fc3|fc4))"
        r"|head\.(norm|fc)"
    )
    ends: ClassVar[frozenset[str]] = frozenset({"stages.0.embedding.weight", "head.fc.weight"})

    norm_after_mean: bool = False
    pointwise_convolutions: bool = False
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    patch: PatchGeometry = PatchGeometry()
    downsampling: Geometry = Geometry()


def taken_on_trust(layout: S2MLPLayout, spec: S2MLPSpec) -> tuple[str, ...]:
    """The facts about ``spec`` that ``layout`` states and weights do not show, in words."""

    def stated(field: str) -> str:
        return "" if field in layout.model_fields_set else " (the default)"

    first, *others = (stage.embedding for stage in spec.stages)
    parts = [
        f"shift directions {','.join(map(direction_name, spec.shift.offsets))}{stated('directions')}",
        f"border {spec.shift.border}{stated('border')}",
        "norms before the linear layers, and GELU",
        f"LayerNorm's epsilon {spec.norm_epsilon:g}{stated('norm_epsilon')}",
        f"patches of stride {format_size(first.stride)}, padding {format_size(first.padding)}{stated('patch')}",
    ]
    if layout.patch.order:
        parts.append(f"patches flattened {layout.patch.order}")
    if others:
        shown = " and ".join(
            dict.fromkeys(f"stride {format_size(e.stride)}, padding {format_size(e.padding)}" for e in others)
        )
        parts.append(f"down-sampling of {shown}{stated('downsampling')}")
    if spec.final_norm:
        where = "behind" if spec.norm_after_mean else "before"
        parts.append(f"the head's norm {where} the mean{stated('norm_after_mean')}")
    return tuple(parts)


def infer_spec(match: Match[S2MLPLayout], shapes: Shapes, *, image_size: Size, shift: Shift) -> S2MLPSpec:
    """The architecture that the shapes imply.

    Raises:
        LayoutError: where a parameter is missing, unexpected or misshapen.
        SpecError: where the numbers cannot be an S²-MLP.
    """
    have = {name: f.shape if (f := form_of(match, name, shapes)) else shapes[key] for name, key in match.names.items()}
    try:
        spec = _read_spec(have, match, image_size, shift)
    except KeyError as error:
        (name,) = error.args
        raise LayoutError(f"the checkpoint (layout {match.layout.name}) lacks {match.layout.key(name)}") from error
    want = spec.parameter_shapes()
    wrong = [f"{match.layout.key(n)} is missing" for n in want if n not in have]
    wrong += [f"{match.names[n]} {list(have[n])} is unexpected" for n in have if n not in want]
    wrong += [
        f"{match.names[n]} has shape {list(have[n])}, expected {list(want[n])}"
        + (_in_a_form(have[n]) if len(have[n]) == 4 > len(want[n]) else "")
        for n in want
        if n in have and have[n] != want[n]
    ]
    if wrong:
        raise LayoutError(
            f"the keys are those of layout {match.layout.name}, but the shapes form no S²-MLP: {some(wrong, '; ')}"
        )
    return spec


def form_of(match: Match[S2MLPLayout], name: str, shapes: Shapes) -> Form | None:
    """The form in which the checkpoint keeps the weight with this canonical name; None where it is the usual one.

    Raises:
        LayoutError: where the layout states a form that the weight's shape does not have.
    """
    layer, kind = name.rsplit(".", 2)[-2:]
    shape, patch = shapes[match.names[name]], match.layout.patch
    if kind != "weight":
        return None
    if name == "stages.0.embedding.weight" and patch.size and patch.order:
        if form := forms.patches(shape, patch.size, patch.order):
            return form
        raise LayoutError(
            f"{match.names[name]} has shape {list(shape)}, expected that of a linear layer on patches of "
            f"{format_size(patch.size)}, [out, {prod(patch.size)} · channels], as the layout says"
        )
    is_linear = layer in ("fc", "fc1", "fc2", "fc3", "fc4")
    return forms.pointwise(shape) if is_linear and match.layout.pointwise_convolutions else None


def _read_spec(have: Shapes, match: Match[S2MLPLayout], image_size: Size, shift: Shift) -> S2MLPSpec:
    first = _of_rank(have, match, "stages.0.embedding.weight", 4)
    if first[1] > MOST_CHANNELS:
        raise LayoutError(
            f"{match.names['stages.0.embedding.weight']} {list(first)} is for images of {first[1]:,} channels: expected at "
            f"most {MOST_CHANNELS:,}"
        )
    stages = []
    blocks_of: dict[int, set[int]] = {}
    for parts in (name.split(".") for name in have if name.startswith("stages.")):
        blocks_of.setdefault(int(parts[1]), set()).update([int(parts[3])] if parts[2] == "blocks" else [])
    for s in range(1 + max(blocks_of)):
        kernel = _of_rank(have, match, f"stages.{s}.embedding.weight", 4)
        blocks = blocks_of.get(s, set())
        if blocks and len(blocks) <= max(blocks):  # before anything is made for each block up to the last
            gap = next(b for b in range(max(blocks)) if b not in blocks)
            raise KeyError(f"stages.{s}.blocks.{gap}.norm1.weight")
        geometry = match.layout.downsampling if s else match.layout.patch
        stages.append(
            Stage(
                embedding=geometry.embedding((kernel[2], kernel[3])),
                channels=kernel[0],
                hidden=_of_rank(have, match, f"stages.{s}.blocks.0.fc3.weight", 2)[0] if blocks else 0,
                depth=1 + max(blocks, default=-1),
                stem_norm=f"stages.{s}.stem_norm.weight" in have,
            )
        )
    return S2MLPSpec(
        stages=tuple(stages),
        classes=_of_rank(have, match, "head.fc.weight", 2)[0],
        image_size=image_size,
        in_channels=first[1],
        shift=shift,
        biases=frozenset(n.split(".")[-2] for n in have if n.endswith(".bias")),
        final_norm="head.norm.weight" in have,
        norm_epsilon=match.layout.norm_epsilon,
        norm_after_mean=match.layout.norm_after_mean,
    )


def _of_rank(have: Shapes, match: Match[S2MLPLayout], name: str, rank: int) -> tuple[int, ...]:
    shape = have[name]
    if len(shape) != rank or not all(shape):
        kind = {2: "linear layer [out, in]", 4: "convolution [out, in, height, width]"}[rank]
        raise LayoutError(
            f"{match.names[name]} has shape {list(shape)}, expected the weight of a {kind}{_in_a_form(shape)}"
        )
    return shape


def _in_a_form(shape: tuple[int, ...]) -> str:
    """The remedy, in a layout file, where a weight of this shape may be kept in another form."""
    if len(shape) == 4 and shape[2:] == (1, 1):
        return ". If linear layers are 1×1 convolutions there, say pointwise_convolutions = true in a layout file"
    if len(shape) == 2:
        return ". If it is a linear layer on flattened patches, say their size and order under [patch] in a layout file"
    return ""
