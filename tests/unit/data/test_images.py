"""Images become input in one way, and a folder of labelled images means what torchvision makes of it, or is refused."""

from __future__ import annotations

import json
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.support import random_model, run, small_spec
from s2mlp_deploy.data import image_files, image_folders, images
from s2mlp_deploy.data.image_folders import LabelledImages
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.families.s2mlp.spec import single_stage
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing

SIZE = (20, 28)
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
"""Pixels as they are, 0 to 255."""
GREY = Preprocessing(mean=(0.0,), std=(1.0,), scale=1.0, channel_order="L")


def pixels(height: int = 20, width: int = 28, channels: int = 3) -> Array:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, array: Array | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels() if array is None else array).save(path)
    return path


def folders(directory: Path, *names: str, count: int = 1) -> Path:
    """One subfolder a name, each with ``count`` images."""
    for name in names:
        for i in range(count):
            save(directory / name / f"{i}.png")
    return directory


def classes_of(found: LabelledImages) -> dict[str, int]:
    return {path.parent.name: label for path, label in zip(found.paths, found.labels, strict=True)}


# Folders


def test_folders_named_by_class_index_are_those_classes_and_need_not_be_all(tmp_path: Path) -> None:
    found = image_folders.find_labelled(folders(tmp_path, "0", "2", "10"), 11)
    assert classes_of(found) == {"0": 0, "2": 2, "10": 10}


def test_indices_may_have_leading_zeros(tmp_path: Path) -> None:
    assert classes_of(image_folders.find_labelled(folders(tmp_path, "00", "07", "10"), 11)) == {
        "00": 0,
        "07": 7,
        "10": 10,
    }


def test_folders_named_by_label_are_those_classes(tmp_path: Path) -> None:
    names = ("zebra", "ant", "T-shirt", "cat")
    assert classes_of(image_folders.find_labelled(folders(tmp_path, "cat", "zebra"), 4, names)) == {
        "cat": 3,
        "zebra": 0,
    }


def test_labels_that_look_like_indices_are_labels(tmp_path: Path) -> None:
    """As torchvision sorts folders, those called 0 to 10 are classes 0, 1, 10, 2, …"""
    names = sorted(str(i) for i in range(11))
    assert classes_of(image_folders.find_labelled(folders(tmp_path, "1", "2", "10"), 11, names)) == {
        "1": 1,
        "2": 3,
        "10": 2,
    }


def test_other_folders_are_the_classes_in_sorted_order_if_there_is_one_for_each(tmp_path: Path) -> None:
    folders(tmp_path, "n02", "n10", "N01", "é")
    found = image_folders.find_labelled(tmp_path, 4)
    assert classes_of(found) == {"N01": 0, "n02": 1, "n10": 2, "é": 3} == found.folder.classes
    assert found.folder.named_by == "order"


def test_where_labels_are_known_other_folders_are_refused_with_both_lists(tmp_path: Path) -> None:
    """In sorted order they would give the wrong labels, without a word."""
    folders(tmp_path, "n02", "n10", "N01", "tench")
    with pytest.raises(DataError) as caught:
        image_folders.find_labelled(tmp_path, 4, ("tench", "goldfish", "shark", "ray"))
    said = str(caught.value)
    assert (
        "none of the model's 4 labels: 'N01', 'n02', 'n10'; labels without a subfolder: 'goldfish', 'shark', 'ray'"
        in said
    )
    assert "--labels" in said
    folders(tmp_path, *(f"m{i}" for i in range(20)))
    with pytest.raises(DataError, match=re.escape("'m1', 'm10', 'm11', and 18 more")):
        image_folders.find_labelled(tmp_path, 4, ("tench", "goldfish", "shark", "ray"))


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        (unicodedata.normalize("NFD", "Café"), unicodedata.normalize("NFC", "Café")),
        (unicodedata.normalize("NFC", "Café"), unicodedata.normalize("NFD", "Café")),
        ("ankle boot", "Ankle boot"),
        ("Ankle_boot", "Ankle boot"),
        ("ankle-boot", "Ankle  boot "),
        ("T-shirt_top", "T-shirt/top"),
        ("STRASSE", "Straße"),
    ],
)
def test_labels_are_known_by_another_spelling(tmp_path: Path, folder: str, label: str) -> None:
    found = image_folders.find_labelled(folders(tmp_path, "ant", folder), 3, ("zebra", label, "ant"))
    assert {p.parent.name: i for p, i in zip(found.paths, found.labels, strict=True)} == {folder: 1, "ant": 2}
    assert found.folder.named_by == "label" and found.folder.respelled == (folder,)


def test_a_label_goes_before_what_is_spelled_almost_like_it(tmp_path: Path) -> None:
    names = ("Polish", "polish", "ant")
    assert classes_of(image_folders.find_labelled(folders(tmp_path, "Polish", "polish"), 3, names)) == {
        "Polish": 0,
        "polish": 1,
    }
    with pytest.raises(DataError, match="'POLISH'"):
        image_folders.find_labelled(folders(tmp_path, "POLISH"), 3, names)
    with pytest.raises(DataError, match="has 2 subfolders for the label ant: Ant, ant"):
        image_folders.find_labelled(folders(tmp_path / "two", "ant", "Ant"), 3, names)


def test_folders_counted_from_one_are_no_indices_and_the_remedy_is_named(tmp_path: Path) -> None:
    data = folders(tmp_path / "data", *(str(i) for i in range(1, 12)))
    with pytest.raises(DataError, match=r"classes 0 to 10 only: if training took .* pass --labels"):
        image_folders.find_labelled(data, 11)
    names = sorted(str(i) for i in range(1, 12))  # as LC_ALL=C ls writes them
    found = image_folders.find_labelled(data, 11, names)
    assert classes_of(found)["10"] == 1 and classes_of(found)["2"] == 3


def test_the_order_of_numbers_as_text_is_kept_in_mind(tmp_path: Path) -> None:
    found = image_folders.find_labelled(folders(tmp_path, *(str(i) for i in range(12)), count=2), 12).spread(12)
    as_text = {p.parent.name: i for p, i in zip(found.paths, found.as_text, strict=True)}
    assert as_text == {name: i for i, name in enumerate(sorted(map(str, range(12))))}
    assert image_folders.find_labelled(folders(tmp_path / "few", "0", "1", "2"), 10).as_text == ()
    assert image_folders.find_labelled(folders(tmp_path / "padded", "00", "01", "10"), 11).as_text == ()


@pytest.mark.parametrize(
    ("names", "classes", "problem"),
    [
        (("9", "10"), 10, "has a subfolder 10, and the model has classes 0 to 9 only"),
        (("1", "01"), 10, "has 2 subfolders for class index 1: 01, 1"),
        (("cat", "dog"), 3, "has 2 subfolders and the model 3 classes"),
        (("cat", "dog", "1"), 2, "has 3 subfolders and the model 2 classes"),
        (("²", "3"), 10, "has 2 subfolders and the model 10 classes"),
    ],
)
def test_folders_that_are_not_the_classes_are_refused(
    tmp_path: Path, names: Sequence[str], classes: int, problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        image_folders.find_labelled(folders(tmp_path, *names), classes)
    assert problem in str(caught.value) and str(tmp_path) in str(caught.value)


def test_images_lie_in_the_order_of_classes_and_names_at_any_depth_and_other_files_are_passed_over(
    tmp_path: Path,
) -> None:
    for name in ("1/b.png", "1/a.PNG", "0/x/z.jpeg", "0/y.bmp"):
        save(tmp_path / name)
    (tmp_path / "0" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README").write_text("not a folder")
    found = image_folders.find_labelled(tmp_path, 2)
    assert [str(p.relative_to(tmp_path)) for p in found.paths] == ["0/x/z.jpeg", "0/y.bmp", "1/a.PNG", "1/b.png"]
    assert found.labels == (0, 0, 1, 1)
    assert found.folder.left_out == {".txt": 1, "hidden": 1}


@pytest.mark.parametrize("debris", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN"])
def test_what_file_systems_and_editors_leave_is_neither_a_class_nor_read(tmp_path: Path, debris: str) -> None:
    for name in ("cat/a.png", "dog/b.png", f"{debris}/c.png", f"cat/{debris}/d.png", f"dog/x/{debris}/e.png"):
        save(tmp_path / name)
    for name in ("cat/._a.png", "cat/Thumbs.db", "dog/.DS_Store", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"no image")
    found = image_folders.find_labelled(tmp_path, 2)
    assert [p.name for p in found.paths] == ["a.png", "b.png"] and found.folder.left_out == {}
    spec = small_spec()
    assert len(images.read_inputs(tmp_path, PLAIN, spec, 9)) == 2
    assert [p.name for p in image_folders.find_pictures(tmp_path / "cat", 2)[0]] == ["a.png"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in ("0/a.png", "1/b.png", "2.png", "0/.c.png"):
        save(tmp_path / name)
    for name in ("0/d.heic", "0/e.HEIC", "1/f", "2/g", "2/h.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    folder = image_folders.find_labelled(tmp_path, 4).folder
    assert folder.left_out == {
        ".heic": 2,
        ".npy": 1,
        "hidden": 1,
        "outside the subfolders": 1,
        "without an extension": 2,
    }
    assert folder.empty == {"2": {".npy": 1, "without an extension": 1}} and folder.without_images == (2, 3)
    (tmp_path / "only").mkdir()
    (tmp_path / "2").rename(tmp_path / "only" / "2")
    save(tmp_path / "only" / "x.png")
    with pytest.raises(DataError, match=r"hold no images \(.*\); left out: 1 \.npy, 1 without an extension, 1 outside"):
        image_folders.find_labelled(tmp_path / "only", 4)
    with pytest.raises(DataError, match=r"holds no images \(.*\); left out: 1 \.npy, 1 without"):
        images.read_inputs(tmp_path / "only" / "2", PLAIN, small_spec(), 9)
    warnings: list[str] = []
    images.read_inputs(tmp_path / "0", PLAIN, small_spec(), 9, warnings.append)
    assert warnings == [f"{tmp_path / '0'} holds more than images; left out: 2 .heic, 1 hidden"]


@pytest.mark.parametrize("suffix", sorted(image_files.SUFFIXES))
def test_each_suffix_is_one_of_a_format_that_is_read(suffix: str) -> None:
    Image.init()
    assert Image.registered_extensions()[suffix] in images.FORMATS


def test_linked_folders_are_read_once_each_as_torchvision_reads_them(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "cats" / "a.png")
    save(tmp_path / "elsewhere" / "more" / "b.png")
    (tmp_path / "data" / "dog").mkdir(parents=True)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cats", target_is_directory=True)
    (tmp_path / "data" / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "more", target_is_directory=True)
    (tmp_path / "data" / "dog" / "again").symlink_to(tmp_path / "data" / "dog", target_is_directory=True)
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data" / "circle")
    found = image_folders.find_labelled(tmp_path / "data", 2)
    assert [str(p.relative_to(tmp_path / "data")) for p in found.paths] == ["cat/a.png", "dog/more/b.png"]
    assert found.labels == (0, 1)


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda d: None, "cannot read the image folder"),
        (lambda d: d.write_text(""), "cannot read the image folder"),
        (lambda d: d.mkdir(), "has no subfolders: expected one a class"),
        (lambda d: (d / "0").mkdir(parents=True), "hold no images"),
    ],
)
def test_a_folder_without_labelled_images_is_refused(
    tmp_path: Path, prepare: Callable[[Path], object], problem: str
) -> None:
    prepare(tmp_path / "data")
    with pytest.raises(DataError, match=problem) as caught:
        image_folders.find_labelled(tmp_path / "data", 1)
    assert str(tmp_path / "data") in str(caught.value)


def test_a_smaller_number_is_spread_over_all_classes(tmp_path: Path) -> None:
    found = image_folders.find_labelled(folders(tmp_path, "0", "1", "2", count=5), 3)
    assert found.spread(6).labels == (0, 0, 1, 1, 2, 2)
    assert found.spread(15) is found
    some = found.spread(7)
    assert len(set(some.paths)) == 7 and set(some.paths) <= set(found.paths)


# Images


def test_an_image_of_the_right_size_is_only_scaled_and_normalized(tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.25, 0.125), std=(0.5, 2.0, 0.25))
    found = images.prepare(save(tmp_path / "a.png"), preprocessing, SIZE)
    assert found.shape == (3, 20, 28) and found.dtype == np.float32 and found.flags.c_contiguous
    for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        expected = (pixels()[:, :, channel] / 255 - mean) / std
        np.testing.assert_allclose(found[channel], expected, rtol=1e-5, atol=1e-6)


def test_several_images_are_stacked_in_their_order(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", np.full((20, 28, 3), i, np.uint8)) for i in (5, 3, 200)]
    assert images.load(paths, PLAIN, SIZE)[:, 1, 7, 9].tolist() == [5, 3, 200]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_grey_palette_and_transparent_images_become_colour(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.where(pixels()[:, :, 0] > 127, 255, 0).astype(np.uint8))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    grey.convert("RGB").convert(mode).save(path)
    with Image.open(path) as file:
        assert file.mode == mode
    for channel in images.prepare(path, PLAIN, SIZE):
        np.testing.assert_array_equal(channel, np.asarray(grey))


def test_what_is_transparent_keeps_its_colour(tmp_path: Path) -> None:
    clear = np.concatenate([pixels(), np.zeros((20, 28, 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(
        images.prepare(save(tmp_path / "a.png", clear), PLAIN, SIZE), pixels().transpose(2, 0, 1)
    )


def test_a_transparent_palette_is_no_reason_for_a_warning(tmp_path: Path) -> None:
    palette = Image.fromarray(pixels()).quantize(64)
    palette.save(tmp_path / "a.png", transparency=bytes(range(64)))
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.prepare(tmp_path / "a.png", PLAIN, SIZE), expected)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_images_that_a_camera_turned_are_turned_back(
    tmp_path: Path, orientation: int, stored: Callable[[Array], Array]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored(pixels()))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.prepare(tmp_path / "a.png", PLAIN, SIZE), pixels().transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(40, 100), (100, 56), (41, 57), (7, 5), (1, 1), (20, 300)])
def test_other_sizes_are_scaled_by_the_shorter_side_and_cut_in_the_middle(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """A ramp along the longer side, so that what is cut away is seen from the values that are left."""
    height, width = shape
    scale = min(height / 20, width / 28)
    wide = width / scale > 28.5
    ramp = np.linspace(20, 230, width if wide else height)
    array = np.broadcast_to(ramp[None, :, None] if wide else ramp[:, None, None], (height, width, 3)).astype(np.uint8)
    found = images.prepare(save(tmp_path / "a.png", array), PLAIN, SIZE)
    assert found.shape == (3, 20, 28)
    line = found[0, 10, :] if wide else found[0, :, 14]
    kept = (28 * scale if wide else 20 * scale) / len(ramp)
    middle = 125 if len(ramp) > 1 else 20
    assert line.mean() == pytest.approx(middle, abs=4)
    assert line[-1] - line[0] == pytest.approx(210 * kept * (len(ramp) > 1), abs=12)


def test_downscaling_averages_what_it_leaves_out(tmp_path: Path) -> None:
    stripes = np.zeros((200, 280, 3), np.uint8)
    stripes[::2] = 255
    found = images.prepare(save(tmp_path / "a.png", stripes), PLAIN, SIZE)
    np.testing.assert_allclose(found[:, 1:-1], 127.5, atol=2)


def test_a_model_of_one_channel_sees_grey(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.broadcast_to(pixels()[:, :, :1], (20, 28, 3)).copy())
    found = images.prepare(tmp_path / "a.png", GREY, SIZE)
    assert found.shape == (1, 20, 28)
    np.testing.assert_array_equal(found[0], pixels()[:, :, 0])


def test_colour_becomes_grey_by_brightness(tmp_path: Path) -> None:
    found = images.prepare(save(tmp_path / "a.png"), GREY, SIZE)[0]
    np.testing.assert_allclose(found, pixels() @ [0.299, 0.587, 0.114], atol=1)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", (pixels()[:, :, 0] * np.uint16(257)).astype(np.uint16)),
        ("a.tif", (pixels()[:, :, 0] * np.uint16(257)).astype(np.uint16)),
        ("a.tif", pixels()[:, :, 0].astype(np.int32) * 257),
        ("a.tif", (pixels()[:, :, 0] / 255).astype(np.float32)),
    ],
    ids=["16-bit png", "16-bit tif", "32-bit", "float"],
)
@pytest.mark.parametrize("preprocessing", [PLAIN, GREY], ids=["colour", "grey"])
def test_grey_of_more_than_8_bits_is_refused_since_it_would_be_clipped(
    tmp_path: Path, name: str, array: Array, preprocessing: Preprocessing
) -> None:
    with pytest.raises(DataError, match=rf"{name} has pixels of more than 8 bits"):
        images.prepare(save(tmp_path / name, array), preprocessing, SIZE)


def test_colour_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels().astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", 28, 20, 16, 2, 0, 0, 0)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    np.testing.assert_array_equal(images.prepare(tmp_path / "a.png", PLAIN, SIZE), pixels().transpose(2, 0, 1))


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "folder", "broken link", "bomb"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.png"
    if damage == "folder":
        path.mkdir()
    elif damage == "broken link":
        path.symlink_to(tmp_path / "nowhere.png")
    elif damage == "bomb":
        header = b"IHDR" + struct.pack(">IIBBBBB", 1 << 17, 1 << 17, 8, 2, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))
    else:
        save(path)
        path.write_bytes({"text": b"not an image", "empty": b"", "cut": path.read_bytes()[:500]}[damage])
    with pytest.raises(DataError, match=r"a\.png is not an image that can be read: ") as caught:
        images.prepare(path, PLAIN, SIZE)
    assert "\n" not in str(caught.value)


# Through the command


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "bundle"


def grey_checkpoint(path: Path) -> Path:
    """A model of one channel, images of 20x28 and 3 named classes."""
    spec = single_stage(channels=5, depth=1, patch=4, expansion=2, classes=3, image_size=SIZE, in_channels=1)
    model = random_model(spec)
    torch.save({"model": model.state_dict(), "img_size": SIZE, "class_names": ["dark", "mid", "light"]}, path)
    return path


def test_a_model_of_one_channel_is_exported_and_judged_on_images(tmp_path: Path, out: Path) -> None:
    checkpoint = grey_checkpoint(tmp_path / "grey.pt")
    ran = run("export", checkpoint, "-o", out, "--json")
    assert ran.code == 0, ran.err
    manifest = ran.json["exports"][0]["manifest"]
    assert manifest["input"]["shape"] == ["batch", 1, 20, 28]
    assert (manifest["preprocessing"]["channel_order"], manifest["preprocessing"]["mean"]) == ("L", [0.5])
    assert run("verify", out).code == 0


def test_a_folder_named_by_none_of_the_recorded_labels_is_refused(tmp_path: Path, out: Path) -> None:
    checkpoint = grey_checkpoint(tmp_path / "grey.pt")
    ran = run("export", checkpoint, "--data", folders(tmp_path / "data", "black", "white"), "-o", out)
    assert ran.code == 3 and "none of the model's 3 labels: 'black', 'white'" in ran.err
    assert not list(out.parent.iterdir())


def test_what_was_left_out_and_assumed_is_shown_and_reported(tmp_path: Path, out: Path) -> None:
    data = folders(tmp_path / "data", "Dark", "MID", "light")
    (data / "light" / "0.png").rename(data / "light" / "0")
    (data / "Dark" / "1.heic").write_bytes(b"?")
    ran = run("export", grey_checkpoint(tmp_path / "grey.pt"), "--data", data, "-o", out)
    assert ran.code == 0, ran.err
    said, shown = " ".join(ran.err.split()), " ".join(ran.out.split())
    assert "1 of the subfolders of" in said and "light (1 without an extension)" in said
    assert "subfolders taken for labels that are spelled otherwise: Dark, MID" in shown
    assert "left out: 1 .heic, 1 without an extension; no images of class light" in shown
    reported = json.loads((out / "report.json").read_text())["data"]
    assert reported == {
        "named_by": "label",
        "classes": {"Dark": 0, "MID": 1, "light": 2},
        "respelled": ["Dark", "MID"],
        "left_out": {".heic": 1, "without an extension": 1},
        "empty": {"light": {"without an extension": 1}},
        "without_images": [2],
    }


def test_the_sorted_order_of_folders_is_shown_as_assumed(tmp_path: Path, out: Path, checkpoint: Path) -> None:
    data = folders(tmp_path / "data", *"gfedcba")
    ran = run("export", checkpoint, "--data", data, "-o", out)
    assert ran.code == 0, ran.err
    assert "classes assumed in the order of the subfolders: a, b, c, d, e, and 2 more" in " ".join(ran.out.split())


def test_an_image_that_cannot_be_read_stops_the_export(tmp_path: Path, out: Path, checkpoint: Path) -> None:
    data = folders(tmp_path / "data", *(str(i) for i in range(7)))
    (data / "3" / "bad.jpg").write_text("not an image")
    ran = run("export", checkpoint, "--data", data, "-o", out)
    assert ran.code == 3 and f"{data / '3' / 'bad.jpg'} is not an image" in ran.err
    assert not list(out.parent.iterdir())


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path, out: Path, checkpoint: Path) -> None:
    (tmp_path / "data" / "0").mkdir(parents=True)
    os.mkfifo(tmp_path / "data" / "0" / "image.png")
    ran = run("export", checkpoint, "--data", tmp_path / "data", "-o", out / "bundle")
    assert ran.code == 3 and "image.png is not an image that can be read: it is a pipe" in ran.err


def test_a_model_of_other_channels_takes_no_image_files(tmp_path: Path, out: Path) -> None:
    spec = single_stage(channels=5, depth=1, patch=4, classes=3, image_size=SIZE, in_channels=4)
    torch.save({"model": random_model(spec).state_dict(), "img_size": SIZE}, tmp_path / "four.pt")
    ran = run("export", tmp_path / "four.pt", "--data", folders(tmp_path / "data", "0"), "-o", out)
    assert ran.code == 3 and "takes 4 channels" in ran.err
    assert not list(out.parent.iterdir())


@pytest.mark.slow
def test_images_of_any_size_and_kind_serve_as_data(tmp_path: Path, out: Path) -> None:
    """Labelled by the model itself, so that its accuracy is known: it must be right on all of them."""
    spec = small_spec()
    model = random_model(spec)
    torch.save({"model": model.state_dict(), "img_size": SIZE}, tmp_path / "small.pt")
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    rng = np.random.default_rng(0)
    for i in range(40):
        low = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image = Image.fromarray(low).resize((28 + 5 * (i % 3), 20 + 7 * (i % 2)), Image.Resampling.BICUBIC)
        path = tmp_path / f"{i}.png"
        (image.convert("L") if i % 5 == 0 else image).save(path)
        label = int(model(torch.from_numpy(images.prepare(path, preprocessing, SIZE))[None]).argmax())
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "data" / str(label) / path.name)
    assert len(list((tmp_path / "data").iterdir())) > 1
    options = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--data", tmp_path / "data", "-o", out, "--json")
    ran = run("export", tmp_path / "small.pt", *options)
    assert ran.code == 0, ran.err
    found = ran.json["exports"][0]["report"]["images"]
    assert found == {"count": 40, "accuracy": 1.0, "accuracy_pytorch": 1.0, "top1_agreement": 1.0}
