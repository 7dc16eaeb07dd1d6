"""Pictures travel in the bundle, and tell where preparing one goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.formats import silence
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import MANIFEST, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.gate import golden_images
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.system.hashing import sha256

PLAIN = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)


def photo(height: int, width: int, seed: int = 0) -> Array:
    """Something smooth with edges in it, in colours that differ."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    pixels = np.asarray(low.resize((width, height), Image.Resampling.BICUBIC)).copy()
    pixels[height // 3 : height // 2, width // 4 :] //= 3
    return pixels


def folder(directory: Path, sizes: list[tuple[int, int]], classes: tuple[str, ...] = ()) -> Path:
    for i, size in enumerate(sizes):
        place = directory / classes[i % len(classes)] if classes else directory
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(*size, seed=i)).save(place / f"{i:03d}.png")
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with images of several sizes, one of them turned by its camera, one with a colour that is transparent."""
    place = tmp_path_factory.mktemp("made")
    data = folder(place / "images", [(61, 87), (20, 28), (90, 31)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(33, 50, 7)).save(data / "003.jpg", exif=exif, quality=90)
    Image.fromarray(photo(40, 40, 8)).save(data / "004.png", transparency=(1, 2, 3), dpi=(72, 72))
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    ran = run("export", checkpoint, "--golden-images", data, "-o", place / "bundle")
    assert ran.code == 0, ran.err
    return place


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and make its hashes agree with the files."""
    content = json.loads((directory / MANIFEST).read_bytes())
    change(content)
    content["files"] = {name: sha256(directory / name) for name in content["files"]}
    (directory / MANIFEST).write_text(json.dumps(content))


def opened(directory: Path) -> tuple[Bundle, golden_tensors.Golden]:
    bundle = read_bundle(directory)
    return bundle, golden_tensors.load(bundle.golden)


# What travels


def test_files_hold_the_pixels_upright_at_their_own_size_and_nothing_else(made: Path) -> None:
    bundle, _ = opened(made / "bundle")
    assert [image.file for image in bundle.manifest.golden_images] == [f"image-{i:02d}.png" for i in range(5)]
    assert {image.file for image in bundle.manifest.golden_images} < bundle.manifest.files.keys()
    for i, name in enumerate(["000.png", "001.png", "002.png", "003.jpg", "004.png"]):
        with Image.open(bundle.directory / f"image-{i:02d}.png") as file:
            assert (file.format, file.mode, dict(file.info)) == ("PNG", "RGB", {})
            np.testing.assert_array_equal(
                np.asarray(file), images.pixels_of(images.read(made / "images" / name, PLAIN))
            )
    with Image.open(bundle.directory / "image-03.png") as turned:
        assert turned.size == (33, 50)


def test_rows_of_the_golden_case_are_the_files_prepared(made: Path) -> None:
    bundle, tensors = opened(made / "bundle")
    paths = [bundle.directory / image.file for image in bundle.manifest.golden_images]
    np.testing.assert_array_equal(tensors.inputs["images"], images.load(paths, PLAIN, (20, 28)))
    assert tensors.logits["images"].shape == (5, 7)


def test_they_are_no_part_of_the_artifact(made: Path) -> None:
    bundle, _ = opened(made / "bundle")
    assert bundle.artifact.files == ("model.onnx",)
    assert bundle.size_bytes == (bundle.directory / "model.onnx").stat().st_size


def test_the_same_images_give_the_same_files(made: Path, tmp_path: Path) -> None:
    assert run("export", made / "small.pt", "--golden-images", made / "images", "-o", tmp_path / "again").code == 0
    first, second = read_bundle(made / "bundle"), read_bundle(tmp_path / "again")
    assert first.manifest == second.manifest and "pillow" in first.manifest.versions


def test_engines_take_them_along(made: Path, tmp_path: Path) -> None:
    assert run("export", made / "bundle", "--format", "ort", "-o", tmp_path / "ort").code == 0
    engine = read_bundle(tmp_path / "ort")
    assert engine.manifest.golden_images == read_bundle(made / "bundle").manifest.golden_images
    assert "5 golden images prepared here, from file to input: the same" in run("verify", tmp_path / "ort").out


def test_labels_are_those_of_subfolders(tmp_path: Path, checkpoint: Path) -> None:
    data = folder(tmp_path / "images", [(20, 28)] * 4, ("6", "2"))
    assert run("export", checkpoint, "--golden-images", data, "-o", tmp_path / "out").code == 0
    assert [image.label for image in read_bundle(tmp_path / "out").manifest.golden_images] == [2, 2, 6, 6]


def test_without_subfolders_no_label_is_made_up(made: Path) -> None:
    assert {image.label for image in read_bundle(made / "bundle").manifest.golden_images} == {None}


def test_eight_are_chosen_evenly_of_those_that_are_small_enough(tmp_path: Path) -> None:
    paths = []
    for i in range(20):
        size = (1001, 1000) if i % 2 else (30, 40)
        Image.new("L", size[::-1]).save(tmp_path / f"{i:02d}.png")
        paths.append(tmp_path / f"{i:02d}.png")
    assert golden_images.small_ones(paths) == (0, 2, 4, 6, 10, 12, 14, 16)
    assert golden_images.small_ones(paths[1::2]) == ()


def test_images_that_are_all_too_large_do_not_travel_and_that_is_said(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (1001, 1000)).save(tmp_path / "images" / "a.png")
    ran = run("export", checkpoint, "--golden-images", tmp_path / "images", "-o", tmp_path / "out")
    assert ran.code == 3 and "more than 1,000,000 pixels" in ran.err and not (tmp_path / "out").exists()


def test_a_bundle_without_images_says_nothing_of_them(pristine: Path) -> None:
    assert "golden image" not in run("verify", pristine).out
    assert run("verify", pristine, "--json").json["preparation"] is None


# What is told when something is off: each fault alone, and what finds it


def test_a_sound_bundle_prepares_them_before_the_model_runs(made: Path) -> None:
    ran = run("verify", made / "bundle")
    assert ran.code == 0
    assert ran.out.index("5 golden images prepared here") < ran.out.index("distance from the float64 reference")
    found = run("verify", made / "bundle", "--json").json
    assert found["passed"] and found["preparation"] == {"images": 5, "largest_levels": 0.0, "skipped": None}


def swap(name: str, other: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        p = content["preprocessing"]
        p[name], p[other] = p[other], p[name]

    return change


def set_to(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["preprocessing"].update({name: value})


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "mean and std swapped": swap("mean", "std"),
    "mean of bytes": set_to("mean", [127.5] * 3),
    "mean a little off": set_to("mean", [0.5, 0.5, 0.5001]),
    "std a little off": set_to("std", [0.25, 0.2501, 0.25]),
    "not scaled": set_to("scale", 1.0),
    "bilinear for bicubic": set_to("interpolation", "bilinear"),
    "lanczos for bicubic": set_to("interpolation", "lanczos"),
    "nearest for bicubic": set_to("interpolation", "nearest"),
    "squashed": set_to("resize", "squash"),
    "two steps for one": set_to("resize", "shorter-then-crop"),
    "another crop": set_to("crop_fraction", 0.95),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_preparing_golden_images_catches(fault: str, copy: Path) -> None:
    silence(copy)
    edit(copy, FAULTS[fault])
    ran = run("verify", copy)
    assert ran.code == 1 and "5 golden images prepared here: NOT THE SAME" in " ".join(ran.out.split())
    assert "PASSED" in ran.out  # the logits are still right: only preparing shows it


def test_preparing_other_channels_than_the_model_takes_is_a_damaged_bundle(copy: Path) -> None:
    silence(copy)
    edit(copy, set_to("channel_order", "L"))
    ran = run("verify", copy)
    assert ran.code == 3 and "the channel order is L for 3 channels" in ran.err


def rewritten(change: Callable[[Array], Array]) -> Callable[[Path], None]:
    def fault(directory: Path) -> None:
        for image in read_bundle(directory).manifest.golden_images:
            with Image.open(directory / image.file) as file:
                pixels = change(np.asarray(file))
            Image.fromarray(np.ascontiguousarray(pixels)).save(directory / image.file)

    return fault


def exchanged(directory: Path) -> None:
    first, second, spare = (directory / name for name in ("image-00.png", "image-02.png", "spare"))
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


@pytest.mark.parametrize(
    "fault",
    [
        rewritten(lambda a: a[..., ::-1]),
        rewritten(np.fliplr),
        rewritten(lambda a: a ^ (np.arange(a.size).reshape(a.shape) == 0)),
        exchanged,
    ],
    ids=["BGR", "mirrored", "one byte by one", "order"],
)
def test_pixels_that_are_not_those_of_the_tensors_are_caught(fault: Callable[[Path], None], copy: Path) -> None:
    fault(copy)
    edit(copy, lambda content: None)
    found = run("verify", copy, "--json")
    assert found.code == 1 and not found.json["passed"] and all(c["passed"] for c in found.json["checks"])
    assert found.json["preparation"]["largest_levels"] > golden_images.SAME_LEVEL


def test_a_changed_file_is_found_by_its_hash(copy: Path) -> None:
    rewritten(np.flipud)(copy)
    ran = run("verify", copy)
    assert ran.code == 3 and "image-00.png is not the file that was exported" in ran.err


def test_a_list_that_does_not_fit_the_tensors_is_refused(copy: Path) -> None:
    edit(copy, lambda content: content["golden_images"].pop())
    with pytest.raises(BundleError, match="does not hold the 4 golden images of the manifest"):
        verifying.verify(copy)


def test_a_listed_file_without_a_hash_is_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_bytes())
    del content["files"]["image-01.png"]
    (copy / MANIFEST).write_text(json.dumps(content))
    assert "lists no hash for image-01.png" in run("verify", copy).err


def test_without_pillow_it_is_skipped_and_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_images, "find_spec", lambda name: None)
    ran = run("verify", made / "bundle")
    assert ran.code == 0 and "5 golden images NOT PREPARED HERE: Pillow is not installed" in " ".join(ran.out.split())
    found = run("verify", made / "bundle", "--json").json
    assert found["passed"] and found["preparation"]["skipped"] == "Pillow is not installed"
