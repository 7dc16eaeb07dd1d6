"""Find labelled images in folders, and the class of each.

There is one subfolder a class, named by class index or label. Where no labels are known, subfolders that are called
otherwise are the classes in sorted order (torchvision's ImageFolder convention).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from s2mlp_deploy.data import image_files
from s2mlp_deploy.data.arrays import spread
from s2mlp_deploy.data.image_files import is_folder
from s2mlp_deploy.data.labels import AS_TEXT, match, shared
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.schema.report import LabelledFolder
from s2mlp_deploy.schema.spec import categories
from s2mlp_deploy.system.wording import counted, some

NamedBy = Literal["index", "label", "order"]
"""The way in which subfolders name classes: by index, by label, or by their sorted order."""


@dataclass(frozen=True)
class LabelledImages:
    """Image files and the class index of each.

    ``as_text`` are the indices if folders called by numbers stood for classes in their order as text (0, 1, 10, 2, …);
    empty where that is the same, or folders are called otherwise.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    folder: LabelledFolder
    as_text: tuple[int, ...] = ()

    def spread(self, count: int) -> LabelledImages:
        """At most ``count`` of them, evenly over the whole."""
        if len(self.paths) <= count:
            return self
        chosen = spread(len(self.paths), count)
        paths, labels = tuple(self.paths[i] for i in chosen), tuple(self.labels[i] for i in chosen)
        return replace(self, paths=paths, labels=labels, as_text=tuple(self.as_text[i] for i in chosen if self.as_text))


def find_labelled(directory: Path, classes: int, names: Sequence[str] | None = None) -> LabelledImages:
    """The images below ``directory``, by class; ``names`` are the model's labels, if known.

    Raises:
        DataError: where there is no such folder, no image, or the subfolders are not the classes.
    """
    found = image_files.entries(directory)
    folders = image_files.subfolders(directory)
    if not folders:
        raise DataError(f"{directory} has no subfolders: expected one a class, with that class's images in it")
    named_by, index = _class_indices(folders, classes, names, directory)
    files = {name: image_files.find(directory / name) for name in folders}
    pairs = [(path, index[name]) for name in folders for path in files[name].paths]
    left_out = sum((Counter(f.left_out) for f in files.values()), Counter[str]())
    left_out["outside the subfolders"] = sum(image_files.is_image(path.name) and not is_folder(path) for path in found)
    left_out["hidden"] += sum(is_folder(path) and path.name.startswith(".") for path in found)
    left_out = +left_out
    if not pairs:
        raise DataError(f"the subfolders of {directory} hold no images {image_files.expected(left_out)}")
    folder = LabelledFolder(
        named_by=named_by,
        classes=index,
        respelled=tuple(name for name in folders if named_by == "label" and names and name not in names),
        left_out=dict(sorted(left_out.items())),
        empty={name: f.left_out for name, f in files.items() if not f.paths},
        without_images=tuple(sorted(set(range(categories(classes))) - {i for _, i in pairs})),
    )
    labels = tuple(i for _, i in pairs)
    as_text: tuple[int, ...] = ()
    if named_by == "index" and classes > 10 and all(str(i) in index for i in index.values()):
        order = {i: place for place, i in enumerate(sorted(range(classes), key=str))}
        as_text = tuple(order[i] for i in labels)
    return LabelledImages(tuple(p for p, _ in pairs), labels, folder, as_text)


def find_pictures(
    directory: Path, classes: int, names: Sequence[str] | None = None
) -> tuple[tuple[Path, ...], tuple[int | None, ...]]:
    """The images in ``directory`` and their classes: those of its subfolders, or unknown where it has none.

    Raises:
        DataError: where there is no such folder, no image, or the subfolders are not the classes.
    """
    files = [p for p in image_files.entries(directory) if image_files.is_image(p.name) and os.path.isfile(p)]
    if files:
        return tuple(files), (None,) * len(files)
    labelled = find_labelled(directory, classes, names)
    return labelled.paths, labelled.labels


def _class_indices(
    folders: Sequence[str], classes: int, names: Sequence[str] | None, directory: Path
) -> tuple[NamedBy, dict[str, int]]:
    """The way in which ``folders`` are named, and the class of each."""
    groups = categories(classes)
    if names:
        if both := set(folders) & set(shared(names)):
            raise DataError(
                f"{directory} has a subfolder {min(both)}, which is the name of several classes: name the subfolders by class index"
            )
        index = match(folders, names)  # before indices: in ImageFolder's order, label "10" is class 2
        if index.keys() == set(folders):
            _check_distinct(index, "the label {}", names, directory)
            return "label", index
    if all(f.isascii() and f.isdigit() for f in folders):
        index = {f: int(f) for f in folders}
        last = max(index, key=index.__getitem__)
        if index[last] >= groups:
            raise DataError(
                f"{directory} has a subfolder {last}, and the model has classes 0 to {groups - 1} only"
                + (f": if training took {AS_TEXT}" if len(folders) == groups else "")
            )
        _check_distinct(index, "class index {}", [str(i) for i in range(groups)], directory)
        return "index", index
    if names:
        raise DataError(_mismatch(folders, names, index, directory))
    if len(folders) == groups:
        return "order", {f: i for i, f in enumerate(sorted(folders))}
    raise DataError(
        f"{directory} has {counted(len(folders), 'subfolder')} and the model {counted(groups, 'class')}: expected one for each class, or each "
        f"named by class index or label, and found {_first(folders)}"
    )


def _check_distinct(index: Mapping[str, int], what: str, names: Sequence[str], directory: Path) -> None:
    several = Counter(index.values()).most_common(1)[0]
    if several[1] > 1:
        both = ", ".join(f for f, i in index.items() if i == several[0])
        raise DataError(
            f"{directory} has {counted(several[1], 'subfolder')} for {what.format(names[several[0]])}: {both}"
        )


def _mismatch(folders: Sequence[str], names: Sequence[str], matched: Mapping[str, int], directory: Path) -> str:
    """Both lists, the first few of each."""
    unknown = [folder for folder in folders if folder not in matched]
    missing = [name for i, name in enumerate(names) if i not in matched.values()]
    return (
        f"{directory} has subfolders that are none of the model's {counted(len(names), 'label')}: {_first(unknown)}; labels without a "
        f"subfolder: {_first(missing)}. Name the subfolders by label or class index, or pass --labels with a file of the "
        "subfolders' names in the order of the classes"
    )


def _first(names: Sequence[str]) -> str:
    return some([*map(repr, names)], 5) or "none"
