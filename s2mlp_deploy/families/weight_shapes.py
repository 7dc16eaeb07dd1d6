"""The shapes of a checkpoint's weights, from which a spec is read and to which it is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families.forms import Form
from s2mlp_deploy.families.recognition import Match, Shapes, listed

KINDS = {2: "linear layer [out, in]", 4: "convolution [out, in, height, width]"}
"""Weights, by how many axes they have."""


@dataclass(frozen=True)
class WeightShapes:
    """The shapes that weights have in this project's form, by canonical name.

    ``remedy`` gives what to write in a layout file where a weight of a shape stands in the place of one with so many axes;
    empty where that would not help.
    """

    match: Match[Any]
    shapes: Shapes
    remedy: Callable[[tuple[int, ...], int], str]

    @classmethod
    def of(
        cls,
        match: Match[Any],
        shapes: Shapes,
        form_of: Callable[[Match[Any], str, Shapes], Form | None],
        remedy: Callable[[tuple[int, ...], int], str],
    ) -> WeightShapes:
        """Of the checkpoint's own ``shapes``, whose keys ``match`` explains."""
        own = {name: f.shape if (f := form_of(match, name, shapes)) else shapes[k] for name, k in match.names.items()}
        return cls(match, own, remedy)

    def of_rank(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of the weight ``name``, which must have ``rank`` axes.

        Raises:
            LayoutError: where it is missing, or has others.
        """
        if name not in self.shapes:
            raise self.lacks(name)
        shape = self.shapes[name]
        if len(shape) != rank or not all(shape):
            raise LayoutError(
                f"{self.match.names[name]} has shape {list(shape)}, expected the weight of a {KINDS[rank]}"
                f"{self.remedy(shape, rank)}"
            )
        return shape

    def lacks(self, name: str) -> LayoutError:
        """The refusal of a checkpoint without the weight ``name``."""
        layout = self.match.layout
        head = ": save the whole network, with its classifier" if name == "head.fc.weight" else ""
        return LayoutError(f"the checkpoint (layout {layout.name}) lacks {layout.key(name)}{head}")

    def check(self, want: Mapping[str, tuple[int, ...]], title: str) -> None:
        """Refuse weights that are not those of ``want``, the parameters of the network ``title``.

        Raises:
            LayoutError: naming some that are missing, unexpected or misshapen.
        """
        if wrong := list(self._misfits(want)):
            raise LayoutError(
                f"the keys are those of layout {self.match.layout.name}, but the shapes form no {title}: {listed(wrong, '; ')}"
            )

    def _misfits(self, want: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        have, names = self.shapes, self.match.names
        yield from (f"{self.match.layout.key(n)} is missing" for n in want if n not in have)
        yield from (f"{names[n]} {list(have[n])} is unexpected" for n in have if n not in want)
        for name, shape in want.items():
            if have.get(name, shape) != shape:
                remedy = self.remedy(have[name], len(shape))
                yield f"{names[name]} has shape {list(have[name])}, expected {list(shape)}{remedy}"
