"""Alternative structures of a checkpoint of a network of stages that occur in practice.

Weights do not show the order of the channel groups, the border rule, the position of the head's norm, the activation,
the kind of norm, and the stride of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, combinations, permutations, product
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families.staged.reference import Block, StagedModel
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.families.structure import Change, Structure
from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Offset, Shift
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.schema.spec import Embedding, Spec


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation of GELU by a sigmoid."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "GELU": F.gelu,
    "ReLU": F.relu,
    "SiLU": F.silu,
    "Hardswish": F.hardswish,
    "LeakyReLU": F.leaky_relu,
    "quick GELU": quick_gelu,
}


class RmsNorm(nn.Module):
    """x / √(mean(x²) + ε) with the weight, and the bias if there is one, of a LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return scaled if self.bias is None else scaled + self.bias


@dataclass(frozen=True)
class StagedStructure(Structure):
    """A spec, and two things that no spec has: the activation (of :data:`ACTIVATIONS`), and RMSNorm for LayerNorm.

    ``model_type`` is the class of the module.
    """

    spec: StagedSpec
    model_type: type[StagedModel]
    activation: str = "GELU"
    rms_norm: bool = False

    def build(self, weights: Mapping[str, Tensor]) -> StagedModel:
        """The module of this structure around ``weights`` (canonical names)."""
        model = self.model_type.of(self.spec, weights)
        for parent in list(model.modules()):
            if isinstance(parent, Block):
                parent.activation = ACTIVATIONS[self.activation]
            for name, child in list(parent.named_children()):
                if self.rms_norm and isinstance(child, nn.LayerNorm):
                    setattr(parent, name, RmsNorm(child))
        return model

    def changes(self, assumed: Spec) -> Iterator[Change]:
        """How it differs from ``assumed``, of the same family; its semantics always, where they are a choice."""
        assert isinstance(assumed, StagedSpec)
        return _changes(self, assumed)


def alternatives(spec: StagedSpec, model_type: type[StagedModel]) -> Iterator[Iterator[StagedStructure]]:
    """Structures that differ from ``spec`` in one thing, then those that differ in two; none of them twice."""
    seen = {StagedStructure(spec.with_semantics(semantics), model_type) for semantics in spec.possible_semantics}

    def new(structures: Iterator[StagedStructure]) -> Iterator[StagedStructure]:
        for structure in structures:
            if structure not in seen:
                seen.add(structure)
                yield structure

    yield new(_one_change(StagedStructure(spec, model_type)))
    yield new(_two_changes(StagedStructure(spec, model_type)))


def _one_change(assumed: StagedStructure) -> Iterator[StagedStructure]:
    """The shift counts as one thing: its order, its semantics and its border."""
    for axis in (_likely_orders, _other_orders, _norm_position, _rms_norm, _activations, _patches, _down_samplings):
        yield from chain.from_iterable(map(_semantics, axis(assumed)))


def _two_changes(assumed: StagedStructure) -> Iterator[StagedStructure]:
    for one, other in combinations((_likely_orders, _norm_position, _rms_norm, _activations), 2):
        for structure in one(assumed):
            yield from chain.from_iterable(map(_semantics, other(structure)))


def _semantics(structure: StagedStructure) -> Iterator[StagedStructure]:
    for semantics in structure.spec.shift.possible_semantics:
        yield replace(structure, spec=structure.spec.with_semantics(semantics))


def _likely_orders(structure: StagedStructure) -> Iterator[StagedStructure]:
    """The axes exchanged and either axis turned round, under every semantics and border."""
    for order in dict.fromkeys(_symmetries(structure.spec.shift.offsets)):
        for border in get_args(Border):
            yield from _with_shift(structure, Shift(order, border=border))


def _other_orders(structure: StagedStructure) -> Iterator[StagedStructure]:
    """Four directions in every order, and other sets of directions."""
    assumed = structure.spec.shift
    orders = permutations(assumed.offsets) if len(assumed.offsets) <= 4 else ()
    for order in dict.fromkeys((*orders, *DIRECTIONS.values())):
        yield from _with_shift(structure, Shift(order, border=assumed.border))


def _with_shift(structure: StagedStructure, shift: Shift) -> Iterator[StagedStructure]:
    try:
        yield replace(structure, spec=structure.spec.with_shift(shift))
    except SpecError:  # too few channels for so many groups
        return


def _symmetries(offsets: tuple[Offset, ...]) -> Iterator[tuple[Offset, ...]]:
    for swap, h, w in product((False, True), (1, -1), (1, -1)):
        turned = [(h * dh, w * dw) for dh, dw in offsets]
        yield tuple((dw, dh) if swap else (dh, dw) for dh, dw in turned)


def _norm_position(structure: StagedStructure) -> Iterator[StagedStructure]:
    spec = structure.spec
    if spec.final_norm:
        yield replace(structure, spec=replace(spec, norm_after_mean=not spec.norm_after_mean))


def _rms_norm(structure: StagedStructure) -> Iterator[StagedStructure]:
    yield replace(structure, rms_norm=True)


def _activations(structure: StagedStructure) -> Iterator[StagedStructure]:
    for name in ACTIVATIONS:
        yield replace(structure, activation=name)


def _patches(structure: StagedStructure) -> Iterator[StagedStructure]:
    return _with_geometries(structure, 0, 1)


def _down_samplings(structure: StagedStructure) -> Iterator[StagedStructure]:
    return _with_geometries(structure, 1, len(structure.spec.stages))


def _with_geometries(structure: StagedStructure, first: int, end: int) -> Iterator[StagedStructure]:
    """Other strides and paddings of the first convolutions of stages ``first`` up to ``end``, the same for all."""
    stages = structure.spec.stages
    kernels = [max(stage.embedding.kernel) for stage in stages[first:end]]
    if not kernels:
        return
    k = max(kernels)
    strides = sorted({s for s in (k, k - 1, k // 2 + 1, k // 2, k // 4, 3 * k // 4) if s > 1}, reverse=True)
    for stride in strides:
        for padding in sorted({0, k // 2, (k - stride) // 2, (k - stride + 1) // 2}):
            changed = [
                replace(stage, embedding=Embedding(stage.embedding.kernel, (stride, stride), (padding, padding)))
                for stage in stages[first:end]
            ]
            try:
                spec = replace(structure.spec, stages=(*stages[:first], *changed, *stages[end:]))
            except SpecError:  # the recorded images have no such map
                continue
            yield replace(structure, spec=spec)


def _changes(structure: StagedStructure, assumed: StagedSpec) -> Iterator[Change]:
    spec, shift = structure.spec, structure.spec.shift
    if shift.offsets != assumed.shift.offsets:
        order = shift.directions
        yield Change(f"shift directions {order}", f'directions = "{order}"', f"--shift-directions {order}")
    if shift.border != assumed.shift.border:
        yield Change(f"border {shift.border}", f'border = "{shift.border}"')
    if len(shift.possible_semantics) > 1:
        s = shift.semantics
        yield Change(f"{s} semantics", f'shift_semantics = "{s}"', f"--shift-semantics {s}")
    if spec.norm_after_mean != assumed.norm_after_mean:
        where = "behind" if spec.norm_after_mean else "before"
        yield Change(f"the head's norm {where} the mean", f"norm_after_mean = {str(spec.norm_after_mean).lower()}")
    for table, here, there in (
        ("patch", spec.stages[:1], assumed.stages[:1]),
        ("downsampling", spec.stages[1:], assumed.stages[1:]),
    ):
        if here != there:
            e = here[0].embedding
            text = f"{table} of stride {format_size(e.stride)} and padding {format_size(e.padding)}"
            yield Change(text, f"{table} = {{ stride = {e.stride[0]}, padding = {e.padding[0]} }}")
    if structure.activation != "GELU":
        yield Change(f"{structure.activation} for GELU")
    if structure.rms_norm:
        yield Change("RMSNorm for LayerNorm")
