"""The lines of a report, written to a file one by one: what a process that dies has measured is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import Error


@dataclass(frozen=True)
class Row:
    """One line: what it is ``about``, and its ``figures``, in the units that their names state, or the reason why it was ``not_run``."""

    about: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    not_run: str | None = None


class Sheet:
    """A file of rows, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, row: Row) -> None:
        """Write ``row``, so that it is there whatever happens next."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def measure(self, about: tuple[str, ...], figures: Callable[[], Mapping[str, Any]]) -> None:
        """Add the row of ``figures``, or the reason why there are none: one that fails must not take the others with it."""
        try:
            row = Row(about, figures())
        except Exception as error:
            row = Row(about, not_run=in_words(error))
        self.add(row)

    def read(self) -> Iterator[Row]:
        """The rows that are there; a last one that is torn is left out."""
        if self._path.exists():
            for line in self._path.read_text("utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    row = json.loads(line)
                    yield Row(tuple(row["about"]), row["figures"], row["not_run"])


def in_words(error: Exception) -> str:
    """An error on one line; one that is not this project's with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, Error) else f"{type(error).__name__}: {text}"


def complete(planned: Sequence[tuple[str, ...]], rows: Iterator[Row], reason: str) -> list[Row]:
    """A row for each that was planned, in that order, and all others behind; those that are missing were not run for ``reason``."""
    found = {row.about: row for row in rows}
    wanted = [found.pop(about, Row(about, not_run=reason)) for about in planned]
    return [*wanted, *found.values()]
