"""Names of bundles in tables and pictures: without what all of them begin with, and folded where words end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from rich.cells import cell_len

WORTH = 4
"""Letters that a shared beginning has at the least, to be left out."""

_WORD = re.compile(r"[^-_./,: ]*[-_./,: ]*")
"""A word of a name, with what separates it from the next."""


def shared_prefix(names: Sequence[str]) -> str:
    """The words that all ``names`` begin with; something is left of each. Nothing where they are one, or it is too short."""
    words = [_words(name) for name in dict.fromkeys(names)]
    if len(words) < 2:
        return ""
    columns = list(zip(*words, strict=False))[: min(map(len, words)) - 1]
    prefix = "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))
    return prefix if len(prefix) >= WORTH else ""


def without(prefix: str, name: str) -> str:
    """``name`` without ``prefix``, which may stand behind what runs the bundle, as in "openvino, it-onnx-fp32"."""
    head, comma, tail = name.rpartition(", ")
    return head + comma + (tail.removeprefix(prefix) or tail)


def folded(name: str, width: int) -> str:
    """``name`` in lines of at most ``width`` cells that end where words do; a word that is longer is cut into pieces."""
    lines = [""]
    for word in _units(name, width):
        if cell_len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def _words(name: str) -> list[str]:
    return [word for word in _WORD.findall(name) if word]


def _units(name: str, width: int) -> Iterator[str]:
    """The parts that stay in one line: text between blanks, or, where that is too long, its words or pieces of them."""
    for part in re.findall(r" *[^ ]+ *|^ +$", name):
        if cell_len(part.rstrip()) <= width:
            yield part
        else:
            yield from (piece for word in _words(part) for piece in _pieces(word, width))


def _pieces(word: str, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if cell_len((pieces[-1] + letter).rstrip()) > width and pieces[-1]:
            pieces.append("")
        pieces[-1] += letter
    return pieces
