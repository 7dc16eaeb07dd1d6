"""Class names are read in the forms that occur, and refused where they cannot be the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.support import Ran, random_model, run, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import image_folders
from s2mlp_deploy.data.labels import read_labels
from s2mlp_deploy.errors import DataError

NAMES = ("cat", "dog", "großer Panda", "犬")


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "cat\ndog\ngroßer Panda\n犬\n"),
        ("labels.txt", "cat\r\ndog\r\n  großer Panda \r\n犬\r\n\r\n"),
        ("labels.txt", "\ufeffcat\ndog\ngroßer Panda\n犬"),
        ("labels.json", list(NAMES)),
        ("labels.json", {"0": "cat", "2": "großer Panda", "1": "dog", "3": "犬"}),
        ("class_to_idx.json", {"großer Panda": 2, "cat": 0, "犬": 3, "dog": 1}),
        ("imagenet.json", {str(i): [f"n{i:08d}", name] for i, name in enumerate(NAMES)}),
        ("labels", list(NAMES)),
    ],
    ids=["lines", "Windows", "byte order mark", "list", "by index", "by name", "ImageNet's", "JSON without a suffix"],
)
def test_labels_are_read_in_the_order_of_the_classes(tmp_path: Path, name: str, content: Any) -> None:
    assert read_labels(write(tmp_path / name, content), 4) == NAMES


def test_names_that_are_digits_are_names_where_the_values_are_indices(tmp_path: Path) -> None:
    """As torchvision sorts folders called 0 to 10, class 2 is called "10"."""
    content = {name: i for i, name in enumerate(sorted(str(i) for i in range(11)))}
    assert read_labels(write(tmp_path / "a.json", content), 11)[2] == "10"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("cat\ndog\nbird\n", "has 3 labels, and the model has 4 classes"),
        ("", "has 0 labels, and the model has 4 classes"),
        ("cat\n\ndog\nbird\n", "has an empty label for class 1"),
        (["cat", "dog", " ", "bird"], "has an empty label for class 2"),
        ({"1": "a", "2": "b", "3": "c", "4": "d"}, "does not number its 4 labels from 0 to 3"),
        ({"a": 0, "b": 1, "c": 1, "d": 2}, "does not number its 4 labels from 0 to 3"),
        ('{"0": "a", "0": "b"}', "a key occurs twice"),
        ('["a", "b"', "is not valid JSON"),
        ([1, 2, 3, 4], "in a form that is known"),
        ({"names": ["a", "b", "c", "d"]}, "in a form that is known"),
        ("{}", "in a form that is known"),
        ({"a": True, "b": False}, "in a form that is known"),
    ],
)
def test_what_cannot_be_the_models_labels_is_refused(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(write(tmp_path / "labels.x", content), 4)
    assert problem in str(caught.value) and str(tmp_path / "labels.x") in str(caught.value)


def test_a_folder_names_the_classes_by_its_subfolders_as_imagefolder_sorts_them(tmp_path: Path) -> None:
    for name in ("b", "a", "C", "é", ".cache", "._b", "@eaDir"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert read_labels(tmp_path, 4) == ("C", "a", "b", "é")
    with pytest.raises(DataError, match="has 4 subfolders, and the model has 5 classes: give one for each"):
        read_labels(tmp_path, 5)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the labels"):
        read_labels(tmp_path / "nowhere.txt", 4)
    (tmp_path / "latin1.txt").write_bytes("großer Panda".encode("latin-1"))
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_labels(tmp_path / "latin1.txt", 1)


# Through the command


def labelled(directory: Path, names: list[str] | None) -> Path:
    path = directory / "small.pt"
    recorded = {"class_names": names} if names else {}
    torch.save({"model": random_model(small_spec()).state_dict(), "img_size": [20, 28], **recorded}, path)
    return path


def export(directory: Path, names: list[str] | None, content: Any) -> Ran:
    labels = write(directory / "labels.txt", content)
    return run("export", labelled(directory, names), "--labels", labels, "-o", directory / "out")


def test_given_labels_go_into_the_bundle_and_the_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    ran = export(tmp_path, None, list("abcdefg"))
    assert ran.code == 0, ran.err
    assert read_bundle(tmp_path / "out").manifest.labels == tuple("abcdefg")
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    assert json.loads(metadata["s2mlp.labels"]) == list("abcdefg")


@pytest.mark.parametrize("recorded", [list("tuvwxyz"), list("abc")])
def test_given_labels_replace_recorded_ones_and_that_is_said(tmp_path: Path, recorded: list[str]) -> None:
    ran = export(tmp_path, recorded, list("abcdefg"))
    assert read_bundle(tmp_path / "out").manifest.labels == tuple("abcdefg")
    assert f"records {len(recorded)} class names, and --labels replaces them" in " ".join(ran.err.split())


def test_the_same_labels_again_are_no_news(tmp_path: Path) -> None:
    assert "class names" not in export(tmp_path, list("abcdefg"), list("abcdefg")).err


def test_a_name_of_several_classes_is_said_and_names_no_folder(tmp_path: Path) -> None:
    """ImageNet has two cranes: a bird and a machine."""
    ran = export(tmp_path, None, "crane\na\nb\nc\ncrane\nd\ne\n")
    assert ran.code == 0 and "gives the same name to several classes: crane" in " ".join(ran.err.split())
    (tmp_path / "data" / "crane").mkdir(parents=True)
    with pytest.raises(DataError, match="a subfolder crane, which is the name of several classes"):
        image_folders.find_labelled(tmp_path / "data", 7, ("crane", "a", "b", "c", "crane", "d", "e"))


def test_another_number_of_labels_publishes_nothing(tmp_path: Path) -> None:
    ran = export(tmp_path, None, list("abc"))
    assert ran.code == 3 and "has 3 labels, and the model has 7 classes" in ran.err
    assert not (tmp_path / "out").exists()


def test_folders_of_images_are_named_by_given_labels(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("g", "a"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (28, 20), (50, 100, 150)).save(tmp_path / "data" / name / "0.png")
    labels = write(tmp_path / "labels.txt", "\n".join("abcdefg"))
    ran = run(
        "export",
        labelled(tmp_path, None),
        "--labels",
        labels,
        "--golden-images",
        tmp_path / "data",
        "-o",
        tmp_path / "out",
    )
    assert ran.code == 0, ran.err
    assert [image.label for image in read_bundle(tmp_path / "out").manifest.golden_images] == [0, 6]
