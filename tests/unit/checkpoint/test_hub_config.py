"""A config.json beside the weights: what it states of the images is taken, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from helpers.support import random_model, run, small_spec
from s2mlp_deploy.checkpoint.load import Checkpoint, checkpoint_notes, load_checkpoint

CONFIG = {
    "architecture": "mixer_b16_224",
    "num_classes": 7,
    "num_features": 768,
    "pretrained_cfg": {
        "tag": "goog_in21k_ft_in1k",
        "input_size": [3, 20, 28],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "num_classes": 7,
    },
    "label_names": list("abcdefg"),
}


def folder(place: Path, config: Any, name: str = "model.safetensors", **metadata: str) -> Path:
    safetensors.torch.save_file(random_model(small_spec()).state_dict(), place / name, metadata or None)
    (place / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return place / name


def load(path: Path) -> Checkpoint:
    return load_checkpoint(path)


def test_it_states_size_and_preparation_of_the_images(tmp_path: Path) -> None:
    found = load(folder(tmp_path, CONFIG))
    recorded = found.recorded
    assert (recorded.image_size, recorded.mean, recorded.std) == ((20, 28), (0.5,) * 3, (0.25,) * 3)
    assert (recorded.crop_fraction, recorded.interpolation, recorded.resize) == (0.875, "bilinear", "shorter-then-crop")
    assert recorded.labels == tuple("abcdefg")
    (note,) = checkpoint_notes(found)
    assert note.startswith("image size, mean, std") and str(tmp_path / "config.json") in note


def test_an_export_assumes_none_of_it(tmp_path: Path) -> None:
    ran = run("inspect", folder(tmp_path, CONFIG))
    assert ran.code == 0 and "assumed" not in ran.out and "taken from" in ran.out


def test_the_checkpoint_itself_comes_first(tmp_path: Path) -> None:
    found = load(folder(tmp_path, CONFIG, mean="[0.1, 0.2, 0.3]"))
    assert found.recorded.mean == (0.1, 0.2, 0.3) and found.recorded.std == (0.25,) * 3
    assert "mean" not in found.from_config


def test_a_torch_file_of_the_hub_has_one_too(tmp_path: Path) -> None:
    folder(tmp_path, CONFIG)
    torch.save(random_model(small_spec()).state_dict(), tmp_path / "pytorch_model.bin")
    assert load(tmp_path / "pytorch_model.bin").recorded.image_size == (20, 28)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CONFIG, "last.safetensors"),
        ({"pretrained_cfg": CONFIG["pretrained_cfg"]}, "model.safetensors"),
        ({"architecture": "mixer", "pretrained_cfg": [1]}, "model.safetensors"),
        ("not JSON", "model.safetensors"),
        ("[" * 100_000, "model.safetensors"),
        (" " * (5 << 20), "model.safetensors"),
    ],
    ids=["another file's", "no architecture", "no options", "no JSON", "too deep", "too large"],
)
def test_what_is_not_timms_is_left_alone(tmp_path: Path, config: Any, name: str) -> None:
    found = load(folder(tmp_path, config, name))
    assert found.recorded.image_size is None and found.from_config == () and checkpoint_notes(found) == []


def test_the_arguments_of_a_model_say_how_large_images_are_and_what_the_classes_are_called(tmp_path: Path) -> None:
    labels = {str(number): name for number, name in enumerate("abcdefg")}
    config = {"d_model": [13], "image_size": [20, 28], "id2label": labels, "mean": [0.1] * 3}
    found = load(folder(tmp_path, config))
    assert (found.recorded.image_size, found.recorded.labels, found.recorded.mean) == ((20, 28), tuple("abcdefg"), None)
    assert found.from_config == ("image_size", "labels")


def test_names_that_transformers_made_up_are_no_labels(tmp_path: Path) -> None:
    config = {"architectures": ["S2MLP"], "id2label": {str(i): f"LABEL_{i}" for i in range(7)}, "image_size": 28}
    found = load(folder(tmp_path, config))
    assert found.recorded.image_size == (28, 28) and found.recorded.labels is None
