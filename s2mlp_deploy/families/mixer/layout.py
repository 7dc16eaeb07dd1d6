"""Layouts of MLP-Mixer, and the spec that the shapes of a checkpoint imply."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isqrt
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families import forms
from s2mlp_deploy.families.forms import Form, PatchOrder
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.weight_shapes import WeightShapes
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Embedding

Extent = Annotated[int, Field(ge=1, lt=2**15)]

LINEAR = ("fc", "fc3", "fc4", "token1", "token2")

PICTURE_CHANNELS = (3, 1)
"""Channels of the images that a linear patch embedding may be for, if its layout does not state a patch size."""

_LAST = re.compile(r"\{last\+(\d)\}")
_BLOCK_NUMBER = re.compile(r"(?:^|\.)(\d{1,4})\.0\.fn\.0\.weight")


class Patch(BaseModel):
    """A linear layer on flattened patches: their order, and their size, N or [height, width].

    Without a size, patches are square ones of colour or grey images, of which the weight's width leaves one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: PatchOrder
    size: Annotated[tuple[Extent, Extent], BeforeValidator(lambda n: (n, n) if isinstance(n, int) else n)] | None = None


class MixerLayout(Layout):
    """A layout of MLP-Mixer.

    With ``pointwise_convolutions`` linear layers are kept as convolutions of one position; ``patch`` describes an
    embedding that is a linear layer. ``{last+1}`` on the right side counts on from the number of the last block, in
    code that keeps blocks and head in one nn.Sequential.
    """

    family: ClassVar[str] = MixerSpec.family
    layers: ClassVar[re.Pattern[str]] = re.compile(
        r"embedding|block(\d{1,4}|\{b([+-]\d{1,4})?\})\.(norm1|token1|token2|norm2|fc3|fc4)|head\.(norm|fc)"
    )
    ends: ClassVar[frozenset[str]] = frozenset({"embedding.weight", "head.fc.weight"})

    norm_after_mean: bool = False
    pointwise_convolutions: bool = False
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    patch: Patch | None = None

    @model_validator(mode="after")
    def _without_shift(self) -> MixerLayout:
        of_shifts = {"shift_semantics", "code_shifts_in_place", "directions", "border"} & self.model_fields_set
        if of_shifts:
            raise ValueError(f"MLP-Mixer has no shift: leave out {', '.join(sorted(of_shifts))}")
        return self

    def translate(self, keys: Iterable[str]) -> dict[str, dict[str, str]]:
        if not any(_LAST.search(prefix) for prefix in self.keys.values()):
            return super().translate(keys)
        keys = list(keys)
        last: dict[str, int] = {}
        for key in keys:
            if m := _BLOCK_NUMBER.search(key):
                prefix = key[: m.start(1)]
                last[prefix] = max(last.get(prefix, 0), int(m[1]))
        found = {}
        for prefix, number in last.items():
            names = super(MixerLayout, self._numbered(number)).translate(k for k in keys if k.startswith(prefix))
            if prefix in names:
                found[prefix] = names[prefix]
        return found

    def _numbered(self, last: int) -> MixerLayout:
        """This layout for a network whose last block has the number ``last``."""
        keys = {k: _LAST.sub(lambda m: str(last + int(m[1])), prefix) for k, prefix in self.keys.items()}
        return self.model_copy(update={"keys": keys})


def taken_on_trust(layout: MixerLayout, spec: MixerSpec) -> tuple[str, ...]:
    """The facts about ``spec`` that ``layout`` states and weights do not show, in words."""

    def stated(field: str) -> str:
        return "" if field in layout.model_fields_set else " (the default)"

    where = "behind" if spec.norm_after_mean else "before"
    patches = f", flattened {layout.patch.order}" if layout.patch else ""
    return (
        "norms before the linear layers, and GELU",
        f"LayerNorm's epsilon {spec.norm_epsilon:g}{stated('norm_epsilon')}",
        f"patches of {format_size(spec.patch)} side by side{patches}",
        f"the head's norm {where} the mean{stated('norm_after_mean')}",
    )


def infer_spec(match: Match[MixerLayout], shapes: Shapes, image_size: Size) -> MixerSpec:
    """The architecture that the shapes imply.

    Raises:
        LayoutError: where a parameter is missing, unexpected or misshapen, or the image has another number of positions.
        SpecError: where the numbers cannot be an MLP-Mixer.
    """
    have = _shapes(match, shapes)
    first, blocks = have.of_rank("embedding.weight", 4), _blocks(have)
    kernel = (first[2], first[3])
    spec = MixerSpec(
        Embedding(kernel, kernel),
        channels=first[0],
        token_hidden=have.of_rank("block0.token1.weight", 2)[0],
        hidden=have.of_rank("block0.fc3.weight", 2)[0],
        blocks=blocks,
        norm_epsilon=match.layout.norm_epsilon,
        norm_after_mean=match.layout.norm_after_mean,
        classes=have.of_rank("head.fc.weight", 2)[0],
        image_size=image_size,
        in_channels=first[1],
    )
    positions = have.shapes["block0.token1.weight"][1]
    if spec.positions != positions:
        raise LayoutError(
            f"an image of {format_size(image_size)} has {spec.positions} patches of {format_size(kernel)}, and the "
            f"token-mixing weights are for {positions}: give the model's own size with --image-size"
        )
    _check_gates(have, spec)
    have.check(spec.parameter_shapes(), "MLP-Mixer")
    return spec


def image_size_of(match: Match[MixerLayout], shapes: Shapes) -> Size:
    """The square image that has as many patches as the token-mixing weights have inputs.

    Raises:
        LayoutError: where no square image has.
    """
    have = _shapes(match, shapes)
    kernel = have.of_rank("embedding.weight", 4)[2:]
    positions = have.of_rank("block0.token1.weight", 2)[1]
    side = isqrt(positions)
    if side * side != positions:
        raise LayoutError(
            f"the token-mixing weights are for {positions} positions, which no square image has: give the size of the "
            f"model's images, a multiple of {kernel[0]}x{kernel[1]}, with --image-size"
        )
    return side * kernel[0], side * kernel[1]


def form_of(match: Match[MixerLayout], name: str, shapes: Shapes) -> Form | None:
    """The form in which the checkpoint keeps the weight with this canonical name; None where it is the usual one.

    Raises:
        LayoutError: where the layout states a form that the weight's shape does not have.
    """
    shape, layout = shapes[match.names[name]], match.layout
    if name == "embedding.weight" and layout.patch:
        for size in [layout.patch.size] if layout.patch.size else _square_patches(shape):
            if form := forms.patches(shape, size, layout.patch.order):
                return form
        raise LayoutError(
            f"{match.names[name]} has shape {list(shape)}, expected that of a linear layer on flattened "
            + (
                f"patches of {format_size(layout.patch.size)}"
                if layout.patch.size
                else "square patches of 3 channels or 1"
            )
            + ". Say their size under [patch] in a layout file (docs/layouts.md)"
        )
    layer, kind = name.rsplit(".", 2)[-2:]
    return forms.pointwise(shape) if kind == "weight" and layer in LINEAR and layout.pointwise_convolutions else None


def _square_patches(shape: tuple[int, ...]) -> list[Size]:
    """The sizes of square patches that a linear layer of this shape may read; one at most, for √3 is no fraction."""
    values = shape[1] if len(shape) == 2 else 0
    sides = [isqrt(values // channels) for channels in PICTURE_CHANNELS if values % channels == 0]
    return [(n, n) for n in sides if n and values in [n * n * channels for channels in PICTURE_CHANNELS]]


def _shapes(match: Match[MixerLayout], shapes: Shapes) -> WeightShapes:
    return WeightShapes.of(match, shapes, form_of, _in_a_form)


def _blocks(have: WeightShapes) -> int:
    """How many blocks there are, numbered from 0 on without a gap."""
    found = {int(m[1]) for name in have.shapes if (m := re.match(r"block(\d+)\.", name))}
    if len(found) <= max(found, default=0):
        missing = next(b for b in range(max(found, default=0) + 1) if b not in found)
        raise have.lacks(f"block{missing}.norm1.weight")
    return len(found)


def _check_gates(have: WeightShapes, spec: MixerSpec) -> None:
    gated, names = (spec.positions, spec.token_hidden // 2), have.match.names
    if have.shapes.get("block0.token2.weight") == gated and spec.token_hidden % 2 == 0:
        raise LayoutError(
            f"{names['block0.token2.weight']} reads half of the values that {names['block0.token1.weight']} gives, as "
            "gated layers do: this is a gMixer, whose gates MLP-Mixer does not have, and it is not exported"
        )


def _in_a_form(shape: tuple[int, ...], rank: int) -> str:
    """The remedy, in a layout file, where a weight of this shape is kept as a convolution of one position."""
    if forms.pointwise(shape):
        return ". If linear layers are convolutions there, say pointwise_convolutions = true in a layout file"
    return ""
