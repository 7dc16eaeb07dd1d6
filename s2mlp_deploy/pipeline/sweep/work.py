"""The interface of the items that workers work on, here or on a cluster, and of the workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.sweep.outcome import Failure

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """An item that gives an ``R`` (with a field ``attempts``), wherever a process works on it."""

    @property
    def key(self) -> str:
        """What tells it from the others."""
        ...

    @property
    def reads(self) -> tuple[Path, ...]:
        """The files and folders that a process must see to work on it."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a GPU."""
        ...

    def moved(self, places: Mapping[Path, Path]) -> Work[R_co]:
        """The same, reading each of :attr:`reads` where ``places`` has it."""
        ...

    def failed(self, failure: Failure, attempts: int = 1) -> R_co:
        """What it gives where it could not be worked on."""
        ...


class Workers(Protocol[R]):
    """Processes that work on items."""

    def run(self, items: Iterable[Work[R]]) -> Iterator[R]:
        """What each of ``items`` gives, in any order; items are taken as they are needed."""
        ...
