"""A part of the measurements: what it measures, and what is found of one model or several.

Each part is a package of this folder: ``measure`` takes the samples, ``goals`` compares them with what was promised, ``table`` shows them,
``part`` joins these, and ``page.md.j2`` is the prose of its page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from rich.console import RenderableType

from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.goal import Goal
from s2mlp_studies.models import Model

NAMES = ("export", "latency", "scale", "engines", "repair", "training", "tune", "sweep", "devices", "gpu")
"""All parts, in the order in which they are measured."""

SEED = 20210614
"""Draws the order of candidates in each round."""


@dataclass(frozen=True)
class Run:
    """The settings of a run: the ``models`` to measure; ``rounds`` of latency; ``repeats`` of whole processes, where given.

    ``checkpoint`` gives the random weights of a model.
    """

    models: Sequence[Model]
    rounds: int
    repeats: int | None
    listener: Listener
    checkpoint: Callable[[Model], Path]

    def models_of(self, part: str) -> list[Model]:
        """The models that are measured by ``part``."""
        return [model for model in self.models if part in model.parts]


@dataclass(frozen=True)
class Finding:
    """What a part has found of a ``model`` (or of all that it has), by its ``title`` in prose.

    ``samples`` are JSON, in the units that their names state. ``draw`` draws a picture into a file, where there is one.
    """

    model: str
    title: str
    tables: RenderableType
    samples: Mapping[str, Any]
    goals: Sequence[Goal] = ()
    draw: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Part:
    """``about`` is a line for the index, ``why`` what is known of missed goals, by a word of what they are about.

    ``require`` raises RuntimeMissingError where something is missing without which nothing can be measured.
    """

    name: str
    title: str
    about: str
    measure: Callable[[Run], Iterator[Finding]]
    require: Callable[[], object] = lambda: None
    why: Mapping[str, str] = field(default_factory=dict)


def load(name: str) -> Part:
    """The part called ``name``, one of :data:`NAMES`; its packages are imported now."""
    part: Part = resolve_name(f"s2mlp_studies.{name}.part:PART")
    return part


def announce(text: str) -> None:
    """Write a line of progress to stderr."""
    sys.stderr.write(f"{text} …\n")
