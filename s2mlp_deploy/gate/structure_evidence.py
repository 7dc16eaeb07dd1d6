"""Structures that weights do not show, tried against recorded logits.

The keys and shapes of a checkpoint fit networks that compute different things: with the channel groups in
another order, other borders, the head's norm behind the mean, another activation or norm, or patches that
overlap. Where what was assumed does not give the logits that somebody recorded, the alternatives that are
met in practice are tried in turn, so that the refusal can say which one does, and how to say so.
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
from s2mlp_deploy.families.s2mlp import reference
from s2mlp_deploy.families.s2mlp.reference import S2MLP, Block
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import DIRECTIONS, Border, Embedding, Offset, Shift, Spec, format_size

MOST_SHOWN = 3
"""Structures that fit, of which a message names no more."""

CLEARLY_CLOSER = 10
"""What is this many times further away than the closest does not fit as well."""


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
class Structure:
    """A spec, and two things that no spec has: the activation (of :data:`ACTIVATIONS`), and RMSNorm for LayerNorm."""

    spec: Spec
    activation: str = "GELU"
    rms_norm: bool = False

    def build(self, weights: Mapping[str, Tensor]) -> S2MLP:
        """The module of this structure around ``weights`` (canonical names)."""
        model = reference.build(self.spec, weights)
        for parent in list(model.modules()):
            if isinstance(parent, Block):
                parent.activation = ACTIVATIONS[self.activation]
            for name, child in list(parent.named_children()):
                if self.rms_norm and isinstance(child, nn.LayerNorm):
                    setattr(parent, name, RmsNorm(child))
        return model


@dataclass(frozen=True)
class Fit:
    """A structure whose logits are ``relative_l2`` from the recorded ones."""

    structure: Structure
    relative_l2: float


def find(spec: Spec, weights: Mapping[str, Tensor], images: Array, recorded: Array, limit: float) -> tuple[Fit, ...]:
    """The structures that give the ``recorded`` logits (samples, classes) of ``images`` up to ``limit``, the closest first.

    Those that differ from ``spec`` in one thing are tried first, and only where none of them fits those that differ in two.
    """
    tried = {Structure(spec.with_semantics(semantics)) for semantics in spec.shift.possible_semantics}
    for structures in (_one_change(Structure(spec)), _two_changes(Structure(spec))):
        fits = []
        for structure in structures:
            if structure in tried:
                continue
            tried.add(structure)
            model = structure.build(weights)
            if compare(reference_logits.run(model, images[:1]), recorded[:1]).relative_l2 <= limit:
                fits.append(Fit(structure, compare(reference_logits.run(model, images), recorded).relative_l2))
        fits = sorted((fit for fit in fits if fit.relative_l2 <= limit), key=lambda fit: fit.relative_l2)
        if fits:
            return tuple(f for f in fits if f.relative_l2 <= CLEARLY_CLOSER * max(fits[0].relative_l2, 1e-7))
    return ()


def _one_change(assumed: Structure) -> Iterator[Structure]:
    """The shift counts as one thing: its order, its semantics and its border."""
    for axis in (_likely_orders, _other_orders, _norm_position, _rms_norm, _activations, _patches, _down_samplings):
        yield from chain.from_iterable(map(_semantics, axis(assumed)))


def _two_changes(assumed: Structure) -> Iterator[Structure]:
    for one, other in combinations((_likely_orders, _norm_position, _rms_norm, _activations), 2):
        for structure in one(assumed):
            yield from chain.from_iterable(map(_semantics, other(structure)))


def _semantics(structure: Structure) -> Iterator[Structure]:
    for semantics in structure.spec.shift.possible_semantics:
        yield replace(structure, spec=structure.spec.with_semantics(semantics))


def _likely_orders(structure: Structure) -> Iterator[Structure]:
    """The axes exchanged and either axis turned round, under every semantics and border."""
    for order in dict.fromkeys(_symmetries(structure.spec.shift.offsets)):
        for border in get_args(Border):
            yield from _with_shift(structure, Shift(order, border=border))


def _other_orders(structure: Structure) -> Iterator[Structure]:
    """Four directions in every order, and other sets of directions."""
    assumed = structure.spec.shift
    orders = permutations(assumed.offsets) if len(assumed.offsets) <= 4 else ()
    for order in dict.fromkeys((*orders, *DIRECTIONS.values())):
        yield from _with_shift(structure, Shift(order, border=assumed.border))


def _with_shift(structure: Structure, shift: Shift) -> Iterator[Structure]:
    try:
        yield replace(structure, spec=structure.spec.with_shift(shift))
    except SpecError:  # too few channels for so many groups
        return


def _symmetries(offsets: tuple[Offset, ...]) -> Iterator[tuple[Offset, ...]]:
    for swap, h, w in product((False, True), (1, -1), (1, -1)):
        turned = [(h * dh, w * dw) for dh, dw in offsets]
        yield tuple((dw, dh) if swap else (dh, dw) for dh, dw in turned)


def _norm_position(structure: Structure) -> Iterator[Structure]:
    spec = structure.spec
    if spec.final_norm:
        yield replace(structure, spec=replace(spec, norm_after_mean=not spec.norm_after_mean))


def _rms_norm(structure: Structure) -> Iterator[Structure]:
    yield replace(structure, rms_norm=True)


def _activations(structure: Structure) -> Iterator[Structure]:
    for name in ACTIVATIONS:
        yield replace(structure, activation=name)


def _patches(structure: Structure) -> Iterator[Structure]:
    return _with_geometries(structure, 0, 1)


def _down_samplings(structure: Structure) -> Iterator[Structure]:
    return _with_geometries(structure, 1, len(structure.spec.stages))


def _with_geometries(structure: Structure, first: int, end: int) -> Iterator[Structure]:
    """Other strides and paddings of the convolutions that open stages ``first`` up to ``end``; the same for all of them."""
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


@dataclass(frozen=True)
class Change:
    """One thing that is otherwise than assumed.

    ``line`` says it in a layout file and ``option`` on the command line; None where they cannot.
    """

    text: str
    line: str | None = None
    option: str | None = None


def changes(structure: Structure, assumed: Spec) -> Iterator[Change]:
    """How ``structure`` differs from ``assumed``; its semantics always, where they are a choice."""
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


def describe(fits: tuple[Fit, ...], assumed: Spec, layout: str, *, own: bool) -> str:
    """What fits, and how to say it; ``layout`` says what was ``assumed``, and is a file of the user's where ``own``."""
    found = [tuple(changes(fit.structure, assumed)) for fit in fits[:MOST_SHOWN]]
    texts = (
        f"{' and '.join(c.text for c in what)} (relative L2 {fit.relative_l2:.2g})"
        for what, fit in zip(found, fits, strict=False)
    )
    return f"but {' or '.join(texts)} gives them. {_advice(found[0], layout, own=own)}"


def _advice(what: tuple[Change, ...], layout: str, *, own: bool) -> str:
    if unknown := [change.text for change in what if change.line is None]:
        return f"A model with {' and '.join(unknown)} cannot be exported"
    if all(change.option for change in what):
        return f"If that is what your code does, pass {' '.join(str(change.option) for change in what)}"
    lines = ", ".join(str(change.line) for change in what)
    if own:
        return f"If that is what your code does, say so in the layout file: {lines}"
    return (
        f'If that is what your code does, say so in a layout file with extends = "{layout}", {lines}, and pass it with '
        "--layout FILE.toml (docs/layouts.md)"
    )
