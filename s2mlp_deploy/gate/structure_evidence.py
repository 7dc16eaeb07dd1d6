"""Compare structures that weights do not show with recorded logits.

The keys and shapes of a checkpoint fit networks that compute different things. Where the assumed structure does not give
the logits that somebody recorded, the family's alternatives are tried in turn, so that the refusal can name the one that
does, and how to declare it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.families.structure import Change, Structure
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import Spec

MOST_SHOWN = 3
"""The largest number of fitting structures that a message names."""

CLEARLY_CLOSER = 10
"""A structure this many times further away than the closest does not fit as well."""


@dataclass(frozen=True)
class Fit:
    """A structure whose logits are ``relative_l2`` from the recorded ones."""

    structure: Structure
    relative_l2: float


def find(spec: Spec, weights: Mapping[str, Tensor], images: Array, recorded: Array, limit: float) -> tuple[Fit, ...]:
    """The structures that give the ``recorded`` logits (samples, classes) of ``images`` up to ``limit``, the closest first.

    Those that differ from ``spec`` in one thing are tried first, and only where none of them fits those that differ in two.
    """
    for structures in family_of(spec).alternatives(spec):
        fits = []
        for structure in structures:
            model = structure.build(weights)
            if compare(reference_logits.run(model, images[:1]), recorded[:1]).relative_l2 <= limit:
                fits.append(Fit(structure, compare(reference_logits.run(model, images), recorded).relative_l2))
        fits = sorted((fit for fit in fits if fit.relative_l2 <= limit), key=lambda fit: fit.relative_l2)
        if fits:
            return tuple(f for f in fits if f.relative_l2 <= CLEARLY_CLOSER * max(fits[0].relative_l2, 1e-7))
    return ()


def describe(fits: tuple[Fit, ...], assumed: Spec, layout: str, *, own: bool) -> str:
    """A message with the structures that fit; ``layout`` stated the ``assumed`` one, in a user's file if ``own``."""
    found = [tuple(fit.structure.changes(assumed)) for fit in fits[:MOST_SHOWN]]
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
