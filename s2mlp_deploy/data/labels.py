"""Read class names from a file, in the forms that are in common use, or from the subfolders of a folder.

Text, a name a line; or JSON: a list, names by index ({"0": "cat"}) or indices by name ({"cat": 0}), as training
frameworks write class_to_idx. ImageNet's usual {"0": ["n01440764", "tench"]} is names by index, too. Of a folder, the
names of its subfolders in sorted order, as torchvision's ImageFolder has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from s2mlp_deploy.data import image_files
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.system import strict_json, untrusted_input
from s2mlp_deploy.system.wording import counted


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The ``classes`` names in ``path``, in the order of the model's classes.

    Raises:
        DataError: where there is another number of them, an empty one, or the file is none of the forms.
    """
    names = image_files.subfolders(path) if path.is_dir() else _in_file(path)
    if len(names) != classes:
        holds = counted(len(names), "subfolder" if path.is_dir() else "label")
        raise DataError(f"{path} has {holds}, and the model has {counted(classes, 'class')}: give one for each")
    if "" in names:
        raise DataError(f"{path} has an empty label for class {names.index('')}: name every class")
    return tuple(names)


def _in_file(path: Path) -> list[str]:
    """The names in a file, of whatever number.

    Raises:
        DataError: where the file is none of the forms.
    """
    try:
        text = untrusted_input.read_text(path)
    except OSError as error:
        raise DataError(f"cannot read the labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error.reason}): save the labels as UTF-8") from error
    except ValueError as error:
        raise DataError(f"{path} is too large for a list of labels: {error}") from error
    return _json(text, path) if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "[") else _lines(text)


AS_TEXT = (
    "the folders in the order of their names as text (0, 1, 10, 2, …), as torchvision's ImageFolder does, pass --labels with that "
    "folder, too"
)
"""The remedy where class names are numbers."""


def shared(names: Sequence[str]) -> tuple[str, ...]:
    """The names that several classes have, as "crane" and "maillot" in ImageNet."""
    return tuple(name for name, count in Counter(names).items() if count > 1)


def match(folders: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """The class of each folder that is called like one of the labels ``names``; others are left out.

    Names may differ in Unicode form (macOS decomposes é), in case, and in what stands between words: a folder cannot be
    called T-shirt/top. What is exactly one label is that one.
    """
    exact = {name: i for i, name in enumerate(names)}
    alike: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        alike.setdefault(_key(name), []).append(i)
    found = {}
    for folder in folders:
        candidates = [exact[folder]] if folder in exact else alike.get(_key(folder), [])
        if len(candidates) == 1:
            found[folder] = candidates[0]
    return found


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[\s_/\\:-]+", " ", plain).strip() or name


def _lines(text: str) -> list[str]:
    """A name a line; what ends the file is no name, but an empty line between names is one that is missing."""
    return [line.strip() for line in text.rstrip().splitlines()]


def _json(text: str, path: Path) -> list[str]:
    try:
        content = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}): save the labels again") from error
    names = in_order(content)
    if names is None:
        raise DataError(f"{path} {_FORMS}")
    if content and not names:
        raise DataError(
            f"{path} does not number its {counted(len(content), 'label')} from 0 to {len(content) - 1}, each once: number them as the "
            "model's classes"
        )
    return [name.strip() for name in names]


_FORMS = (
    'holds no labels in a form that is known: expected a name a line, or JSON as in ["cat", "dog"], {"0": "cat", "1": "dog"} '
    'or {"cat": 0, "dog": 1}'
)


def in_order(content: Any) -> tuple[str, ...] | None:
    """The names in a list, in names by index or in indices by name; None where ``content`` is none of these.

    Empty where the indices are not 0, 1, 2, …, each once.
    """
    if isinstance(content, (list, tuple)):
        names = list(content)
    elif isinstance(content, Mapping) and content and all(_is_index(v) for v in content.values()):
        names = _ordered([(int(index), name) for name, index in content.items()])
    elif isinstance(content, Mapping) and content and all(_is_index_key(k) for k in content):
        names = _ordered([(int(k), v) for k, v in content.items()])
    else:
        return None
    texts = [name[-1] if isinstance(name, (list, tuple)) and name else name for name in names]
    return tuple(texts) if all(isinstance(name, str) for name in texts) else None


def _ordered(by_index: list[tuple[int, Any]]) -> list[Any]:
    by_index.sort(key=lambda pair: pair[0])
    return [name for _, name in by_index] if [i for i, _ in by_index] == list(range(len(by_index))) else []


def _is_index(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _is_index_key(value: Any) -> bool:
    return _is_index(value) or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10)
