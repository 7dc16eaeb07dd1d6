"""Parse JSON, and refuse an object that repeats a key: readers differ in which of the two values they take."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """The content of ``text``.

    Raises:
        ValueError: where it is not JSON, or a key occurs twice.
        RecursionError: where it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content
