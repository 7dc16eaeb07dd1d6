"""How images are prepared is stated to the last rounding, taken from the checkpoint or the options, and the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import cos, pi, sin
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageOps

from helpers.support import random_model, run, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.data import images
from s2mlp_deploy.data.preprocessing import nearest_bytes, normalize, plan
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import Interpolation, Resize
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.size import Size

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZES = [(40, 100), (100, 56), (41, 57), (7, 5), (1, 1), (20, 300), (200, 21), (20, 28), (21, 29)]
MODEL = (20, 28)


def preprocessing(**changes: Any) -> Preprocessing:
    return Preprocessing(**{**IMAGENET, **changes})


def noise(height: int, width: int, channels: int = 3) -> Array:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def one_axis_at_a_time(image: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    """Pillow's resize in the order that all of its versions before 13 have."""
    image = image.resize((size[1], image.height), Image.Resampling.BICUBIC, box=(box[0], 0, box[2], image.height))
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=(0, box[1], size[1], box[3]))


# What docs/preprocessing.md says, from the page alone


def _bicubic(x: float) -> float:
    t = abs(x)
    return (1.5 * t - 2.5) * t**2 + 1 if t < 1 else -0.5 * (((t - 5) * t + 8) * t - 4) if t < 2 else 0.0


def _sinc(x: float) -> float:
    return sin(pi * x) / (pi * x) if x else 1.0


FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "bilinear": (1, lambda x: max(1 - abs(x), 0.0)),
    "hamming": (1, lambda x: _sinc(x) * (0.54 + 0.46 * cos(pi * x)) if abs(x) < 1 else 0.0),
    "bicubic": (2, _bicubic),
    "lanczos": (3, lambda x: _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0),
}


def weights(name: str, in0: float, in1: float, extent: int, out: int) -> Array:
    radius, kernel = FILTERS[name]
    edges = np.float32(in0), np.float32(in1)
    scale = float(edges[1] - edges[0]) / out
    widen = max(scale, 1.0)
    table = np.zeros((out, extent), np.int64)
    for x in range(out):
        center = float(edges[0]) + (x + 0.5) * scale
        first = max(int(center - radius * widen + 0.5), 0)
        last = min(int(center + radius * widen + 0.5), extent)
        k = np.array([kernel((i - center + 0.5) / widen) for i in range(first, last)])
        table[x, first:last] = np.trunc(k / k.sum() * 2**22 + np.copysign(0.5, k))
    return table


def as_the_page_says(pixels: Array, contract: Preprocessing, size: Size) -> Array:
    todo = plan(contract, pixels.shape[:2], size)
    left, top, right, bottom = todo.box
    h, w = pixels.shape[:2]
    across = weights(contract.interpolation, left, right, w, todo.scaled[1])
    down = weights(contract.interpolation, top, bottom, h, todo.scaled[0])
    rows = np.clip((np.einsum("xw,hwc->hxc", across, pixels.astype(np.int64)) + 2**21) >> 22, 0, 255)
    whole = np.clip((np.einsum("yh,hxc->yxc", down, rows) + 2**21) >> 22, 0, 255)
    return whole[todo.corner[0] :, todo.corner[1] :][: size[0], : size[1]].astype(np.uint8)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", get_args(Resize))
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_images_are_prepared_as_the_page_says(interpolation: Any, resize: Any, fraction: float) -> None:
    contract = preprocessing(interpolation=interpolation, resize=resize, crop_fraction=fraction)
    for size in SIZES:
        pixels = noise(*size)
        found = images.fitted_bytes(pixels, contract, MODEL)
        np.testing.assert_array_equal(found, as_the_page_says(pixels, contract, MODEL), err_msg=str(size))


# The default is what it was


@pytest.mark.parametrize("size", SIZES)
def test_by_default_images_are_fitted_as_pillow_does(size: Size) -> None:
    todo = plan(preprocessing(), size, MODEL)
    assert todo.scaled == MODEL and todo.corner == (0, 0)
    image = Image.fromarray(noise(*size))
    found = images.pixels_of(images.fit(image, preprocessing(), MODEL))
    np.testing.assert_array_equal(found, np.asarray(one_axis_at_a_time(image, MODEL, todo.box)))
    if not (size[0] > MODEL[0] and size[0] - MODEL[0] > 2 * (size[1] - MODEL[1])):  # or Pillow 13 has another order
        expected = ImageOps.fit(image, MODEL[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found, np.asarray(expected))


def test_the_order_of_the_axes_is_not_left_to_pillow() -> None:
    tall = noise(100, 28)
    tall[::2] = 255 - tall[::2] // 8
    found = images.fitted_bytes(tall, preprocessing(resize="squash"), MODEL)
    np.testing.assert_array_equal(found, as_the_page_says(tall, preprocessing(resize="squash"), MODEL))


@pytest.mark.parametrize("size", [(480, 640), (641, 427), (225, 223), (300, 300), (30, 1000), (97, 96)])
@pytest.mark.parametrize("fraction", [0.875, 0.9, 1.0])
def test_shorter_then_crop_has_the_sizes_and_corners_of_torchvision(size: Size, fraction: float) -> None:
    """As in torchvision's _compute_resized_output_size and center_crop, for a square model."""
    (h, w), model = size, 64
    short = int(model // fraction)
    expected = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
    found = plan(preprocessing(resize="shorter-then-crop", crop_fraction=fraction), size, (model, model))
    assert found.scaled == expected and found.box == (0, 0, w, h)
    assert found.corner == tuple(round((n - model) / 2.0) for n in expected)


def test_a_crop_keeps_its_share_of_the_largest_box() -> None:
    assert plan(preprocessing(crop_fraction=0.5), (40, 100), (20, 20)).box == (40, 10, 60, 30)
    assert plan(preprocessing(crop_fraction=0.5, resize="squash"), (40, 100), (20, 20)).box == (25, 10, 75, 30)
    assert plan(preprocessing(), (40, 100), (20, 20)).box == (30, 0, 70, 40)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_every_filter_leaves_an_image_of_the_models_size_alone(interpolation: Any) -> None:
    for resize in get_args(Resize):
        contract = preprocessing(interpolation=interpolation, resize=resize)
        np.testing.assert_array_equal(images.fitted_bytes(noise(*MODEL), contract, MODEL), noise(*MODEL))


def test_filters_and_ways_to_resize_differ() -> None:
    pixels = noise(60, 101)
    made = {
        (i, r): images.fitted_bytes(pixels, preprocessing(interpolation=i, resize=r), MODEL).tobytes()
        for i in get_args(Interpolation)
        for r in get_args(Resize)
    }
    assert len(set(made.values())) == len(made)


# Bytes and normalized values


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_found_again_from_what_they_were_normalized_to(channels: int) -> None:
    contract = preprocessing() if channels == 3 else Preprocessing(mean=(0.13,), std=(0.31,), channel_order="L")
    every = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1).repeat(channels, axis=-1)
    x = normalize(every, contract)
    assert x.shape == (2, channels, 8, 16) and x.dtype == np.float32
    np.testing.assert_array_equal(nearest_bytes(x, contract), every)


def test_what_no_byte_stands_for_becomes_the_nearest() -> None:
    x = np.array([-100.0, 100.0], np.float32).reshape(2, 1, 1, 1).repeat(3, axis=1)
    assert nearest_bytes(x, preprocessing()).reshape(2, 3).tolist() == [[0] * 3, [255] * 3]


# Decoding


def test_an_image_of_too_many_pixels_is_refused_from_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(DataError, match=r"a\.png is not an image that can be read: it has more than 89,478,485 pixels"):
        images.read(tmp_path / "a.png", preprocessing())


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (28, 20), (value,) * 3) for value in (10, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert set(images.pixels_of(images.read(tmp_path / "a.png", preprocessing())).ravel()) == {10}


def test_grey_weighs_the_colours_as_the_page_says() -> None:
    colour = noise(9, 11)
    grey = images.pixels_of(Image.fromarray(colour).convert("L"))[..., 0]
    expected = (colour.astype(np.int64) @ [19595, 38470, 7471] + 32768) >> 16
    np.testing.assert_array_equal(grey, expected)


# Where the values come from


def save(directory: Path, **args: Any) -> Path:
    path = directory / "small.pt"
    torch.save({"model": random_model(small_spec()).state_dict(), "args": {"img_size": [20, 28], **args}}, path)
    return path


def exported(directory: Path, *options: object, **args: Any) -> Preprocessing:
    ran = run("export", save(directory, **args), "-o", directory / "out", "--force", *options)
    assert ran.code == 0, ran.err
    return read_bundle(directory / "out").manifest.preprocessing


def test_what_timm_records_is_taken_over(tmp_path: Path) -> None:
    found = exported(tmp_path, crop_pct=0.875, interpolation="bilinear", mean=[0.5] * 3, std=[0.5] * 3)
    assert (found.resize, found.interpolation, found.crop_fraction) == ("shorter-then-crop", "bilinear", 0.875)
    assert found.assumed == ()
    squashed = exported(tmp_path, crop_pct=1.0, crop_mode="squash")
    assert (squashed.resize, squashed.crop_fraction) == ("squash", 1.0)
    assert squashed.assumed == ("interpolation", "mean", "std")


@pytest.mark.parametrize(
    "args", [{"crop_pct": 0}, {"crop_pct": 1.5}, {"crop_pct": True}, {"interpolation": "random"}, {"crop_mode": 3}]
)
def test_what_is_not_plainly_such_a_value_is_not_taken(tmp_path: Path, args: dict[str, Any]) -> None:
    found = exported(tmp_path, **args)
    assert (found.resize, found.interpolation, found.crop_fraction) == ("shorter", "bicubic", 1.0)
    assert found.assumed[:3] == ("resize", "interpolation", "crop_fraction")


def test_options_come_before_the_record(tmp_path: Path) -> None:
    options = ("--resize", "squash", "--interpolation", "lanczos", "--crop-fraction", "0.5")
    found = exported(tmp_path, *options, crop_pct=0.875, interpolation="bilinear", crop_mode="border")
    assert (found.resize, found.interpolation, found.crop_fraction) == ("squash", "lanczos", 0.5)
    assert found.assumed == ("mean", "std")


def warned(directory: Path, *options: object, **args: Any) -> list[str]:
    """What inspect warns about, which is what export does."""
    path = save(directory, **args)
    found: list[str] = run("inspect", path, "--json").json["warnings"]
    ran = run("export", path, "-o", directory / "out", "--force", *options)
    if not options:
        assert [
            line.removeprefix("warning: ") for line in ran.err.splitlines() if line.startswith("warning: ")
        ] == found
        return found
    return [line for line in ran.err.splitlines() if line.startswith(("warning: ", "error: "))]


def test_a_size_that_nobody_recorded_is_assumed_and_said(tmp_path: Path) -> None:
    model = random_model(small_spec(patch=28, image_size=(56, 28))).state_dict()
    torch.save(model, tmp_path / "bare.pt")
    ran = run("export", tmp_path / "bare.pt", "--mean", "0.5", "--std", "0.5", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "does not record the size of its images, which weights do not tell: 224x224 is assumed" in ran.err
    assert read_bundle(tmp_path / "out").manifest.preprocessing.assumed[0] == "image_size"
    shown = run("inspect", tmp_path / "bare.pt")
    assert "(assumed: image_size, resize" in " ".join(shown.out.split()) and "224x224 is assumed" in " ".join(
        shown.out.split()
    )
    given = run("export", tmp_path / "bare.pt", "--image-size", "56", "-o", tmp_path / "out", "--force")
    assert given.code == 0 and "does not record the size" not in given.err
    assert "image_size" not in read_bundle(tmp_path / "out").manifest.preprocessing.assumed
    assert "224x224" not in run("inspect", tmp_path / "bare.pt", "--image-size", "56").out


def test_sizes_recorded_differently_are_said(tmp_path: Path) -> None:
    (warning,) = warned(tmp_path, mean=[0.5] * 3, std=[0.5] * 3, crop_size=12)
    assert "recorded" not in warning and "20 28 (args.img_size), 12 12 (args.crop_size)" in warning


@pytest.mark.slow
def test_statistics_of_bytes_are_divided_and_it_is_said(tmp_path: Path) -> None:
    mean, std = [127.5, 51.0, 102.0], [25.5, 51.0, 63.75]
    (warning,) = warned(tmp_path, mean=mean, std=std)
    assert "the recorded mean and the recorded std are of pixels in 0…255, and divided by 255" in warning
    found = read_bundle(tmp_path / "out").manifest.preprocessing
    assert (found.mean, found.std, found.scale) == ((0.5, 0.2, 0.4), (0.1, 0.2, 0.25), 1 / 255)
    options = ("--mean", "127.5,51,102", "--std", "25.5,51,63.75")
    assert exported(tmp_path, *options).model_dump() == found.model_dump()
    assert "--mean and --std are of pixels in 0…255" in warned(tmp_path, *options)[0]
    assert exported(tmp_path, "--mean", "0,0,0", "--std", "255,255,255").std == (1, 1, 1)
    assert exported(tmp_path, "--mean", "127.5,51,102").mean == (0.5, 0.2, 0.4)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("123,117,104", "0.2"),
        ("0.5", "58"),
        ("0.5", "1,2,3"),
        ("0.5,60,0.5", "0.5"),
        ("300", "50"),
        ("-0.5", "0.5"),
        ("104,117,124", "1"),
    ],
)
def test_statistics_of_two_scales_or_none_are_refused(tmp_path: Path, mean: str, std: str) -> None:
    ran = run("export", save(tmp_path), f"--mean={mean}", f"--std={std}", "-o", tmp_path / "out")
    assert ran.code == 2 and "Pass --mean and --std on one scale" in ran.err and "--std" in ran.err
    assert not (tmp_path / "out").exists()


def test_recorded_statistics_of_two_scales_are_refused_until_both_are_given(tmp_path: Path) -> None:
    args = {"mean": [123.675, 116.28, 103.53], "std": [1.0, 1.0, 1.0]}
    ran = run("export", save(tmp_path, **args), "-o", tmp_path / "out")
    assert ran.code == 2 and "the recorded mean 123.675, 116.28, 103.53 and the recorded std 1, 1, 1" in ran.err
    assert exported(tmp_path, "--mean", "0.5", "--std", "0.25", **args).std == (0.25,) * 3


def test_one_value_is_for_all_channels(tmp_path: Path) -> None:
    found = exported(tmp_path, "--mean", "0.286", "--std", "0.353")
    assert (found.mean, found.std) == ((0.286,) * 3, (0.353,) * 3)
    found = exported(tmp_path, mean=[0.286], std="0.353 0.354 0.355")
    assert (found.mean, found.std) == ((0.286,) * 3, (0.353, 0.354, 0.355))


def test_a_deviation_of_less_than_a_byte_has_is_refused(tmp_path: Path) -> None:
    ran = run("export", save(tmp_path), "--mean", "0", "--std", "1e-30", "-o", tmp_path / "out")
    assert ran.code == 2 and "--std must be positive, and at least 0.0001" in ran.err


def test_a_crop_mode_that_is_not_known_is_refused_and_inspected(tmp_path: Path) -> None:
    path = save(tmp_path, crop_mode="border")
    ran = run("export", path, "-o", tmp_path / "out")
    assert ran.code == 2 and "records crop_mode 'border', which is not known here: pass --resize" in ran.err
    assert not (tmp_path / "out").exists()
    found = run("inspect", path, "--json").json
    assert found["preprocessing"] is None and any("crop_mode 'border'" in text for text in found["warnings"])


@pytest.mark.parametrize("share", ["0", "-0.5", "1.01", "nan"])
def test_a_crop_of_nothing_or_more_than_everything_is_refused(tmp_path: Path, share: str) -> None:
    ran = run("export", save(tmp_path), "--crop-fraction", share, "-o", tmp_path / "out")
    assert ran.code == 2 and "expected a share of the image" in ran.err


def test_the_contract_stands_in_the_file_too_and_is_shown(tmp_path: Path) -> None:
    contract = exported(tmp_path, "--resize", "squash", crop_pct=0.9)
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    assert Preprocessing.model_validate(json.loads(metadata["s2mlp.preprocessing"])) == contract
    entry = read_bundle(tmp_path / "out").manifest.input
    assert (entry.layout, entry.dtype, entry.shape) == ("NCHW", "float32", ("batch", 3, 20, 28))
    shown = " ".join(run("inspect", tmp_path / "small.pt").out.split())
    assert "shorter side, then centre crop of 0.9, bicubic, RGB, mean 0.485, 0.456, 0.406" in shown
    assert "(assumed: interpolation, mean, std)" in shown
