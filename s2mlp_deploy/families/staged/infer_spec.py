"""Read the spec of a network of stages off the shapes of a checkpoint, whose names a layout explains."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TypeVar

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families import forms
from s2mlp_deploy.families.base import Family
from s2mlp_deploy.families.forms import Form
from s2mlp_deploy.families.recognition import Match, Shapes
from s2mlp_deploy.families.staged.layout import StagedLayout
from s2mlp_deploy.families.staged.spec import Stage, StagedSpec
from s2mlp_deploy.families.weight_shapes import WeightShapes
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.size import Size, format_size

S = TypeVar("S", bound=StagedSpec)

MOST_CHANNELS = 1024
"""Channels of an image: hyperspectral ones have some hundreds. Mean and deviation of each are shown and written."""


def infer_spec(family: Family[S], match: Match[StagedLayout], shapes: Shapes, *, image_size: Size, shift: Shift) -> S:
    """The architecture of a network of ``family`` that the shapes imply.

    Raises:
        LayoutError: where a parameter is missing, unexpected or misshapen.
        SpecError: where the numbers cannot be such a network.
    """
    have = WeightShapes.of(match, shapes, form_of, _in_a_form)
    spec = _read_spec(family.spec_type, have, image_size=image_size, shift=shift)
    have.check(spec.parameter_shapes(), family.title)
    return spec


def form_of(match: Match[StagedLayout], name: str, shapes: Shapes) -> Form | None:
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
    is_linear = layer != "embedding" and "norm" not in layer
    return forms.pointwise(shape) if is_linear and match.layout.pointwise_convolutions else None


def _read_spec(spec_type: type[S], have: WeightShapes, *, image_size: Size, shift: Shift) -> S:
    first, layout = have.of_rank("stages.0.embedding.weight", 4), have.match.layout
    if first[1] > MOST_CHANNELS:
        raise LayoutError(
            f"{have.match.names['stages.0.embedding.weight']} {list(first)} is for images of {first[1]:,} channels: expected at "
            f"most {MOST_CHANNELS:,}"
        )
    return spec_type(
        stages=tuple(_stages(spec_type.stage_type, have)),
        classes=have.of_rank("head.fc.weight", 2)[0],
        image_size=image_size,
        in_channels=first[1],
        shift=shift,
        biases=frozenset(n.split(".")[-2] for n in have.shapes if n.endswith(".bias")),
        final_norm="head.norm.weight" in have.shapes,
        norm_epsilon=layout.norm_epsilon,
        norm_after_mean=layout.norm_after_mean,
    )


def _stages(stage_type: type[Stage], have: WeightShapes) -> Iterator[Stage]:
    layout: StagedLayout = have.match.layout
    blocks_of: dict[int, set[int]] = {}
    for parts in (name.split(".") for name in have.shapes if name.startswith("stages.")):
        blocks_of.setdefault(int(parts[1]), set()).update([int(parts[3])] if parts[2] == "blocks" else [])
    for s in range(1 + max(blocks_of)):
        kernel = have.of_rank(f"stages.{s}.embedding.weight", 4)
        blocks = blocks_of.get(s, set())
        if blocks and len(blocks) <= max(blocks):  # before anything is made for each block up to the last
            gap = next(b for b in range(max(blocks)) if b not in blocks)
            raise have.lacks(f"stages.{s}.blocks.{gap}.norm1.weight")
        geometry = layout.downsampling if s else layout.patch
        yield stage_type(
            embedding=geometry.embedding((kernel[2], kernel[3])),
            channels=kernel[0],
            depth=1 + max(blocks, default=-1),
            stem_norm=f"stages.{s}.stem_norm.weight" in have.shapes,
            **{
                field: have.of_rank(f"stages.{s}.blocks.0.{layer}.weight", 2)[0] if blocks else 0
                for field, layer in stage_type.widths.items()
            },
        )


def _in_a_form(shape: tuple[int, ...], rank: int) -> str:
    """The remedy, in a layout file, where a weight of this shape may be kept in another form than that of ``rank`` axes."""
    if rank < 4 and shape[2:] == (1, 1):
        return ". If linear layers are 1×1 convolutions there, say pointwise_convolutions = true in a layout file"
    if rank == 4 and len(shape) == 2:
        return ". If it is a linear layer on flattened patches, say their size and order under [patch] in a layout file"
    return ""
