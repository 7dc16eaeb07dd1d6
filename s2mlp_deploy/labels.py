"""Class names from a file, in the forms that are found in the wild.

Text, a name a line; or JSON: a list, names by index ({"0": "cat"}) or indices by name ({"cat": 0}), as training
frameworks write class_to_idx. ImageNet's usual {"0": ["n01440764", "tench"]} is names by index, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2mlp_deploy import limits, strict_json
from s2mlp_deploy.errors import DataError


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The ``classes`` names in ``path``, in the order of the model's classes.

    Raises:
        DataError: where there is another number of them, an empty one, or the file is none of the forms.
    """
    try:
        text = limits.read_text(path)
    except OSError as error:
        raise DataError(f"cannot read the labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error.reason}): save the labels as UTF-8") from error
    except ValueError as error:
        raise DataError(f"{path} is too large for a list of labels: {error}") from error
    names = _json(text, path) if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "[") else _lines(text)
    if len(names) != classes:
        raise DataError(f"{path} has {len(names)} labels, and the model has {classes} classes: give one for each")
    if "" in names:
        raise DataError(f"{path} has an empty label for class {names.index('')}: name every class")
    return tuple(names)


def shared(names: Sequence[str]) -> tuple[str, ...]:
    """The names that several classes have, as "crane" and "maillot" in ImageNet."""
    return tuple(name for name, count in Counter(names).items() if count > 1)


def _lines(text: str) -> list[str]:
    """A name a line; what ends the file is no name, but an empty line between names is one that is missing."""
    return [line.strip() for line in text.rstrip().splitlines()]


def _json(text: str, path: Path) -> list[str]:
    try:
        content = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}): save the labels again") from error
    if isinstance(content, list):
        names = content
    elif isinstance(content, dict) and content and all(_is_index(v) for v in content.values()):
        names = _ordered({index: name for name, index in content.items()}, len(content), path)
    elif isinstance(content, dict) and content and all(k.isascii() and k.isdigit() and len(k) < 10 for k in content):
        names = _ordered({int(k): v for k, v in content.items()}, len(content), path)
    else:
        raise DataError(f"{path} {_FORMS}")
    texts = [name[-1] if isinstance(name, list) and name else name for name in names]
    if not all(isinstance(name, str) for name in texts):
        raise DataError(f"{path} {_FORMS}")
    return [name.strip() for name in texts]


_FORMS = (
    'holds no labels in a form that is known: expected a name a line, or JSON as in ["cat", "dog"], {"0": "cat", "1": "dog"} '
    'or {"cat": 0, "dog": 1}'
)


def _ordered(by_index: dict[int, Any], count: int, path: Path) -> list[Any]:
    if sorted(by_index) != list(range(count)):
        raise DataError(
            f"{path} does not number its {count} labels from 0 to {count - 1}, each once: number them as the model's classes"
        )
    return [by_index[i] for i in range(count)]


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
