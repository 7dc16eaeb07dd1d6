"""Alternative structures of a checkpoint, which its keys and shapes do not distinguish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from s2mlp_deploy.families.reference import ReferenceModel


@dataclass(frozen=True)
class Change:
    """One difference from the assumed structure.

    ``line`` states it in a layout file and ``option`` on the command line; None where they cannot.
    """

    text: str
    line: str | None = None
    option: str | None = None


class Structure(ABC):
    """A network that has the same parameters as another, and may compute something else."""

    @abstractmethod
    def build(self, weights: Mapping[str, Tensor]) -> ReferenceModel:
        """The module of this structure around ``weights`` (canonical names)."""

    @abstractmethod
    def changes(self, assumed: Spec) -> Iterator[Change]:
        """How it differs from ``assumed``; its semantics always, where they are a choice."""
