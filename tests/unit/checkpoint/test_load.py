"""Checkpoints are read as they are found, without copying what can be mapped and without running what is in them."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from helpers.support import random_model, run, small_spec
from s2mlp_deploy.checkpoint.load import (
    Checkpoint,
    checkpoint_notes,
    checkpoint_warnings,
    load_checkpoint,
)
from s2mlp_deploy.checkpoint.training_metadata import Recorded, read_recorded
from s2mlp_deploy.errors import CheckpointError, LayoutError
from s2mlp_deploy.system.hashing import sha256

KEY = "stages.0.blocks.1.fc3.weight"
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def state(seed: int = 0) -> dict[str, Tensor]:
    """The weights of a small model whose image size is 20x28."""
    return dict(random_model(small_spec(), seed).state_dict())


def save(path: Path, content: Any, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Same names, types and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


# Files


@FORMATS
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_torch_files_of_both_formats_are_read_whatever_their_suffix(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = save(tmp_path / f"model{suffix}", state(), zipped=zipped)
    found = load_checkpoint(path)
    assert_same(found.weights, state())
    assert (found.sha256, found.size_bytes, found.dtypes) == (sha256(path), path.stat().st_size, ("float32",))
    assert (found.wrapper, found.prefix, found.layout.name) == (None, "", "canonical")


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path, name: str) -> None:
    safetensors.torch.save_file(state(), tmp_path / name, metadata={"format": "pt"})
    assert_same(load_checkpoint(tmp_path / name).weights, state())


def mapped_files(tensor: Tensor) -> set[str]:
    """The files that this process has mapped at the tensor's address."""
    found = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, name = line.split(maxsplit=5)
        start, end = (int(n, 16) for n in addresses.split("-"))
        if start <= tensor.data_ptr() < end:
            found.add(name.strip())
    return found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_stay_in_the_mapped_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        save(path, {"model": state()})
    else:
        safetensors.torch.save_file(state(), path)
    weights = load_checkpoint(path).weights
    assert len(weights) == len(state())
    for name, tensor in weights.items():
        assert mapped_files(tensor) == {str(path)}, name


def test_an_archive_that_was_packed_anew_with_compression_is_unpacked_and_not_mapped(tmp_path: Path) -> None:
    stored = save(tmp_path / "stored.pt", {"model": state(), "args": {"img_size": [20, 28]}})
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    found = load_checkpoint(packed)
    assert_same(found.weights, state())
    assert found.spec.image_size == (20, 28)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["mapped", "packed"])
def test_bytes_that_a_big_endian_machine_wrote_are_turned(tmp_path: Path, packing: int, dtype: torch.dtype) -> None:
    """Two names of the same values are turned once."""
    expected = {name: tensor.to(dtype) for name, tensor in state().items()}
    expected["stages.0.blocks.1.fc1.bias"] = expected["stages.0.blocks.0.fc1.bias"]
    path = save(tmp_path / "model.pt", expected)
    with zipfile.ZipFile(path) as little, zipfile.ZipFile(tmp_path / "big.pt", "w", packing) as big:
        for name in little.namelist():
            content = little.read(name)
            if "/data/" in name:
                content = np.frombuffer(content, f"u{dtype.itemsize}").byteswap().tobytes()
            big.writestr(name, b"big" if name.endswith("/byteorder") else content)
    assert_same(load_checkpoint(tmp_path / "big.pt").weights, load_checkpoint(path).weights)


# Wrappers and prefixes


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "model_ema", "net", "module", "params"])
def test_weights_are_found_under_the_usual_names(tmp_path: Path, wrapper: str) -> None:
    content = {"epoch": 7, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, wrapper: state()}
    found = load_checkpoint(save(tmp_path / "model.pt", content))
    assert_same(found.weights, state())
    assert found.wrapper == wrapper


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.backbone.model.",
        "net.",
        "_forward_module.",
        "_fsdp_wrapped_module.",
        "student.",
        "net._orig_mod.",
        "whatever.a.script.calls.it.",
    ],
)
def test_prefixes_that_all_keys_share_are_cut(tmp_path: Path, prefix: str) -> None:
    renamed = {prefix + name: tensor for name, tensor in state().items()}
    found = load_checkpoint(save(tmp_path / "model.pt", {"state_dict": renamed}))
    assert_same(found.weights, state())
    assert (found.prefix, found.wrapper, found.left_out) == (prefix, "state_dict", ())


def test_a_prefix_that_only_some_keys_have_is_not_cut(tmp_path: Path) -> None:
    renamed = {("backbone." if "head" in name else "") + name: tensor for name, tensor in state().items()}
    with pytest.raises(LayoutError, match=r"no place for backbone\.head\.fc\.weight"):
        load_checkpoint(save(tmp_path / "model.pt", renamed))


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_modules_that_wrap_others_in_the_middle_of_keys_are_cut(tmp_path: Path, wrapper: str, prefix: str) -> None:
    """As torch.compile(model.head), activation checkpointing of each block and FSDP leave them."""
    renamed = {}
    for name, tensor in state().items():
        inner = name.replace("head.", f"head.{wrapper}.").replace("blocks.1.", f"blocks.1.{wrapper}.")
        renamed[prefix + inner] = tensor
    assert len(renamed) == len(state())
    found = load_checkpoint(save(tmp_path / "model.pt", renamed))
    assert_same(found.weights, state())
    assert found.prefix == prefix


@pytest.mark.slow
def test_what_torch_wraps_is_read(tmp_path: Path) -> None:
    """Keys as PyTorch itself makes them."""
    model = random_model(small_spec())
    for wrap in (torch.optim.swa_utils.AveragedModel, nn.DataParallel, torch.compile):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch is about to drop DataParallel
            path = save(tmp_path / "model.pt", wrap(model).state_dict())
        assert_same(load_checkpoint(path).weights, state())


# Tensors that are no weights


BESIDE: dict[str, dict[str, Tensor]] = {
    "a counter": {"n_averaged": torch.tensor(5), "model.step": torch.tensor([7]), "initted": torch.tensor(True)},
    "a count of thop's": {
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "model.stages.0.blocks.0.fc1.total_params": torch.zeros(1, dtype=torch.float64),
    },
    "a loss's": {
        "criterion.weight": torch.ones(7),
        "module.loss_fn.pos_weight": torch.ones(7),
        "ce_loss.weight": torch.ones(7),
    },
    "an average's": {"model_ema.stages00weight": torch.ones(3, 3), "ema_model.decay": torch.tensor(0.5)},
}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
@pytest.mark.parametrize("why", BESIDE)
def test_tensors_that_are_no_weights_are_left_out_and_listed(tmp_path: Path, why: str, prefix: str) -> None:
    renamed = {prefix + name: tensor for name, tensor in state().items()}
    path = save(tmp_path / "model.pt", {"state_dict": renamed | BESIDE[why], "args": {"img_size": [20, 28]}})
    found = load_checkpoint(path)
    assert_same(found.weights, state())
    assert found.prefix == prefix and found.dtypes == ("float32",)
    assert {item.key: (item.shape, item.why) for item in found.left_out} == {
        key: (tuple(tensor.shape), why) for key, tensor in BESIDE[why].items()
    }
    listed = [{"key": key, "shape": list(tensor.shape), "why": why} for key, tensor in BESIDE[why].items()]
    assert run("inspect", path, "--json").json["left_out"] == listed
    ran = run("export", path, "-o", tmp_path / "out", "--force")
    assert ran.code == 0, ran.err
    first = next(iter(BESIDE[why]))
    for shown in (ran.out, run("inspect", path).out):
        assert f"left out {first} {list(BESIDE[why][first].shape)}, {why}" in " ".join(shown.split())
    assert json.loads((tmp_path / "out" / "report.json").read_text())["left_out"] == listed


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("pos_embed", torch.zeros(1, 35, 13)),
        ("stages.0.blocks.0.attn.weight", torch.zeros(13, 13)),
        ("aux_head.weight", torch.zeros(7, 13)),
        ("classifier.weight", torch.zeros(5, 7)),
        ("criterion", torch.zeros(7)),
        ("lossless.weight", torch.zeros(13, 13)),
        ("logit_scale", torch.tensor(2.0)),
        ("stages.0.blocks.0.gamma", torch.ones(1)),
        ("normalize.mean", torch.zeros(1, 3, 1, 1)),
        ("order", torch.arange(13)),
        ("stages.0.blocks.0.ema.weight", torch.zeros(13, 13)),
        ("ema.weight", torch.zeros(13, 13)),
        ("stages.0.blocks.0.model_ema.weight", torch.zeros(13, 13)),
        ("bn.running_mean", torch.zeros(13)),
        ("encoder.embed.weight", torch.zeros(4, 4)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("outside", [True, False])
def test_what_may_be_part_of_the_network_is_refused_by_name(
    tmp_path: Path, key: str, tensor: Tensor, prefix: str, outside: bool
) -> None:
    key = key if outside else prefix + key
    renamed = {prefix + name: value for name, value in state().items()} | {key: tensor}
    with pytest.raises(LayoutError, match=rf"no place for {re.escape(f'{key} {list(tensor.shape)}')}.*under ignore"):
        load_checkpoint(save(tmp_path / "model.pt", renamed))


# Several sets of weights


def averaged(prefix: str = "", seed: int = 2) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state(seed).items()}


@pytest.mark.parametrize(
    ("content", "chosen", "others"),
    [
        ({"model": state(1), "model_ema": averaged()}, "model", ["model_ema"]),
        (
            {"model": state(1), "model_ema": averaged("module.") | {"n_averaged": torch.tensor(3)}},
            "model",
            ["model_ema"],
        ),
        ({"model": state(1), "ema": {"module": averaged(), "decay": 0.999}}, "model", ["ema.module"]),
        (
            {"model": state(1), "ema_state_dict": averaged(), "best_state_dict": averaged()},
            "model",
            ["ema_state_dict", "best_state_dict"],
        ),
        ({"params": state(1), "params_ema": averaged()}, "params", ["params_ema"]),
        (
            {"state_dict": {f"model.{k}": v for k, v in state(1).items()} | averaged("ema_model.module.")},
            "state_dict",
            ["state_dict.ema_model.module"],
        ),
        ({f"student.{k}": v for k, v in state(1).items()} | averaged("teacher."), None, ["teacher"]),
        ({"model": state(1), "callbacks": {"ema": {"weights": averaged()}}}, "model", ["callbacks.ema.weights"]),
    ],
)
def test_of_several_sets_the_models_own_is_used_and_all_are_named(
    tmp_path: Path, content: dict[str, Any], chosen: str | None, others: list[str]
) -> None:
    path = save(tmp_path / "model.pt", {**content, "args": {"img_size": [20, 28]}} if chosen else content)
    found = load_checkpoint(path)
    assert_same(found.weights, state(1))
    assert (found.wrapper, list(found.others)) == (chosen, others)
    (note,) = checkpoint_notes(found)
    assert f"and not {', '.join(others)}. Pass --weights {others[0]}" in note
    ran = run("export", path, "--image-size", "20x28", "-o", tmp_path / "out")
    assert ran.code == 0 and note in ran.err
    assert note in run("inspect", path, "--json").json["warnings"]
    for name in others:
        other = load_checkpoint(path, wrapper=name)
        assert_same(other.weights, state(2))
        assert (other.wrapper, other.others) == (name, ())


def test_sets_between_which_no_name_decides_are_refused_until_one_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"model": state(1), "state_dict": state(2), "epoch": 3})
    with pytest.raises(CheckpointError, match=r"model and state_dict: .* --weights NAME"):
        load_checkpoint(path)
    assert_same(load_checkpoint(path, wrapper="model").weights, state(1))
    both = {f"first.{k}": v for k, v in state(1).items()} | {f"second.{k}": v for k, v in state(2).items()}
    with pytest.raises(LayoutError, match=r"several models, under first and second: .* --weights NAME"):
        load_checkpoint(save(path, {"model": both}))
    assert_same(load_checkpoint(path, wrapper="model.second").weights, state(2))


def test_weights_of_another_model_are_not_named(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "exp_avg": state(3)}
    content = {
        "model": state(1),
        "criterion": {"weight": torch.ones(7)},
        "critic": nn.Linear(3, 5).state_dict(),
        "optimizer": optimizer,
    }
    assert load_checkpoint(save(tmp_path / "model.pt", content)).others == ()


def test_weights_deeper_in_the_file_are_suggested_and_reached(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"state": {"model": averaged("module."), "timestamp": {"epoch": 1}}, "rng": []})
    for options in ({}, {"wrapper": "state"}):
        with pytest.raises(CheckpointError, match=r"It holds weights under state\.model: pass --weights state\.model"):
            load_checkpoint(path, **options)
    found = load_checkpoint(path, wrapper="state.model")
    assert_same(found.weights, state(2))
    assert (found.wrapper, found.prefix) == ("state.model", "module.")


def test_an_entry_whose_name_has_points_is_found(tmp_path: Path) -> None:
    assert_same(load_checkpoint(save(tmp_path / "model.pt", {"a.b": state()}), wrapper="a.b").weights, state())


def test_shared_weights_that_safetensors_left_out_are_restored(tmp_path: Path) -> None:
    model = random_model(small_spec(depth=3))
    blocks = model.get_submodule("stages.0.blocks")
    blocks[2] = blocks[1] = blocks[0]  # type: ignore[index]
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert len(file.keys()) < len(model.state_dict())
    found = load_checkpoint(tmp_path / "model.safetensors")
    assert_same(found.weights, model.state_dict())
    assert found.spec.depth == 3


def test_a_prefix_that_is_named_is_a_whole_name(tmp_path: Path) -> None:
    both = {f"net.{name}": tensor for name, tensor in state(1).items()}
    both |= {f"network.{name}": tensor for name, tensor in state(2).items()}
    path = save(tmp_path / "model.pt", {"state_dict": both})
    for seed, name in ((1, "state_dict.net"), (2, "state_dict.network")):
        assert_same(load_checkpoint(path, wrapper=name).weights, state(seed))


def test_metadata_that_names_weights_which_are_there_replaces_none(tmp_path: Path) -> None:
    one, other = "stages.0.blocks.0.fc1.weight", "stages.0.blocks.0.fc2.weight"
    safetensors.torch.save_file(state(), tmp_path / "model.safetensors", {one: other})
    assert_same(load_checkpoint(tmp_path / "model.safetensors").weights, state())


def test_an_unusual_name_must_be_given_and_a_wrong_one_is_answered_with_what_is_there(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"student": state(), "epoch": 3})
    with pytest.raises(CheckpointError, match=r"its entries are student, epoch\. .* --weights student"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"no weights under 'teacher'; its entries are student, epoch"):
        load_checkpoint(path, wrapper="teacher")
    assert_same(load_checkpoint(path, wrapper="student").weights, state())


# What training scripts store beside the weights


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_that_torch_can_write_is_read(tmp_path: Path, protocol: int, zipped: bool) -> None:
    content = {
        "model": {name: nn.Parameter(tensor) for name, tensor in state().items()},
        "args": options(),
        3: {b"k", 2.5},
    }
    path = tmp_path / "model.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = load_checkpoint(path)
    assert_same(found.weights, state())
    assert found.recorded == Recorded(image_size=(20, 20), mean=(0.25,) * 3, std=(0.5,) * 3)


def options() -> argparse.Namespace:
    return argparse.Namespace(
        img_size=np.int64(20),
        lr=np.float64(0.1),
        decay=np.float32(0.05),
        flag=np.bool_(True),
        seed=np.uint8(7),
        output=pathlib.Path("/data/runs"),
        other=pathlib.PureWindowsPath("C:/runs"),
        resume=None,
        dtype=torch.float16,
        mean=[np.float64(0.25)] * 3,
        std=(np.float32(0.5),) * 3,
        np_dtype=np.dtype("float32"),
        device=torch.device("cpu"),
    )


@FORMATS
def test_options_with_paths_and_numpy_scalars_do_not_hinder_and_are_understood(tmp_path: Path, zipped: bool) -> None:
    found = load_checkpoint(save(tmp_path / "model.pt", {"model": state(), "args": options()}, zipped=zipped))
    assert_same(found.weights, state())
    assert found.recorded == Recorded(image_size=(20, 20), mean=(0.25,) * 3, std=(0.5,) * 3)
    assert [type(n) for n in found.spec.image_size] == [int, int]


@pytest.mark.parametrize(
    ("here", "elsewhere"),
    [
        (b"cpathlib\nPosixPath\n", b"cpathlib\nWindowsPath\n"),  # a script that ran on Windows
        (b"cpathlib\nPosixPath\n", b"cpathlib._local\nPosixPath\n"),  # Python 3.13
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),  # NumPy 1
    ],
)
def test_options_written_by_other_systems_and_versions_are_read(tmp_path: Path, here: bytes, elsewhere: bytes) -> None:
    original = save(tmp_path / "here.pt", {"model": state(), "args": options()})
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(tmp_path / "elsewhere.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            assert here in data or not entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, data.replace(here, elsewhere))
    found = load_checkpoint(tmp_path / "elsewhere.pt")
    assert_same(found.weights, state())
    assert found.recorded.mean == (0.25,) * 3


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ({"args": {"img_size": 20}}, (20, 20)),
        ({"args": {"img_size": [20, 28]}}, (20, 28)),
        ({"config": {"image_size": (28, 20)}}, (28, 20)),
        ({"args": argparse.Namespace(input_size=(3, 20, 28))}, (20, 28)),  # timm: channels, height, width
        ({"hparams": {"input_size": [np.int32(28), np.int64(20)]}}, (28, 20)),
        ({"img_size": 28}, (28, 28)),
        ({"args": {"img_size": None, "input_size": 28}}, (28, 28)),
        ({"args": {"img_size": "large"}, "config": {"img_size": 24}}, (24, 24)),
        ({"args": {"img_size": 20}, "img_size": 28}, (20, 20)),
        ({"args": {"img_size": "20"}}, (20, 20)),
        ({"args": {"img_size": "20x28"}}, (20, 28)),
        ({"args": {"img_size": "(20, 28)"}}, (20, 28)),
        ({"args": {"img_size": [20]}}, (20, 20)),  # argparse's nargs="+"
        ({"args": {"img_size": ["20", "28"]}}, (20, 28)),
        ({"args": {"img_size": {"height": 20, "width": 28}}}, (20, 28)),
        ({"args": {"input_size": (20, 28, 3)}}, (20, 28)),
        ({"args": {"size": 7, "resolution": 20}}, (20, 20)),
        ({"args": {"image_resolution": 20}}, (20, 20)),
        ({"args": {"imgsz": 20}}, (20, 20)),
        ({"args": {"train_crop_size": 16, "val_crop_size": 20}}, (20, 20)),  # torchvision's references
        ({"args": {"crop-size": 20}}, (20, 20)),
        ({"config": {"data": {"test": {"img_size": 20}}}}, (20, 20)),  # mmengine, OmegaConf.to_container
        ({"cfg": {"DATA": {"IMG_SIZE": [20, 28]}}}, (20, 28)),  # yacs
        ({"config": argparse.Namespace(data=argparse.Namespace(image_size=20))}, (20, 20)),
        ({"args": {"pretrained_cfg": {"input_size": (3, 20, 28)}}}, (20, 28)),
    ],
)
def test_a_recorded_image_size_is_understood(content: dict[str, Any], size: tuple[int, int]) -> None:
    found = read_recorded(content).image_size
    assert found == size
    assert found is not None and [type(n) for n in found] == [int, int]


@pytest.mark.parametrize(
    "nonsense",
    [
        True,
        0,
        -20,
        20.5,
        "large",
        "20.5",
        "20-28",
        [20, 28, 3, 1],
        [20, "28"],
        [0, 28],
        {"h": 20},
        1 << 20,
        float("nan"),
        None,
        [],
    ],
)
def test_a_recorded_image_size_that_is_none_is_ignored(tmp_path: Path, nonsense: object) -> None:
    assert read_recorded({"args": {"img_size": nonsense}}).image_size is None
    found = load_checkpoint(save(tmp_path / "model.pt", {"model": state(), "args": {"img_size": nonsense}}))
    assert found.spec.image_size == (224, 224)


def test_a_size_of_something_else_is_not_taken() -> None:
    content = {
        "args": {"size": 20, "batch_size": 28, "optimizer": {"resolution": 3}},
        "history": {"img_size": 9},
        "img": {"size": 4},
    }
    assert read_recorded(content) == Recorded()


def test_what_is_recorded_twice_and_differently_is_told() -> None:
    found = read_recorded(
        {"args": {"img_size": 20, "mean": [0.5] * 3}, "config": {"test": {"crop_size": (20, 28), "mean": [0.5] * 3}}}
    )
    assert found.image_size == (20, 20)
    assert found.conflicts == ("20 20 (args.img_size), 20 28 (config.test.crop_size)",)


def test_the_image_size_asked_for_replaces_the_recorded_one(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"model": state(), "args": {"img_size": [20, 28]}})
    assert load_checkpoint(path, image_size=(36, 12)).spec.image_size == (36, 12)


def test_mean_std_and_class_names_are_understood() -> None:
    found = read_recorded({"args": {"mean": [0.5, 0, 1], "std": (0.25, 1, np.float32(0.5))}, "class_names": ["é", "b"]})
    assert found == Recorded(mean=(0.5, 0.0, 1.0), std=(0.25, 1.0, 0.5), labels=("é", "b"))
    assert {type(v) for v in (found.mean or ()) + (found.std or ())} == {float}
    assert read_recorded({"classes": ("a", "b")}).labels == ("a", "b")


@pytest.mark.parametrize(
    "values", [0.5, [], "0.5", "half", [-0.5], [True, False], [float("nan")] * 3, [float("inf")] * 3, [255.5] * 3, None]
)
def test_mean_and_std_that_are_no_statistics_of_pixels_are_ignored(values: object) -> None:
    assert read_recorded({"mean": values, "std": values}) == Recorded()


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ("0.286 0.287 0.288", (0.286, 0.287, 0.288)),
        ("[0.286, .287, 0.288]", (0.286, 0.287, 0.288)),
        (["0.286", "0.287", "0.288"], (0.286, 0.287, 0.288)),
        ([123.675, 116.28, 103.53], (123.675, 116.28, 103.53)),
        (np.array([0.25, 0.5, 1.0]).tolist(), (0.25, 0.5, 1.0)),
    ],
)
def test_mean_and_std_are_read_as_texts_and_of_bytes(values: object, read: tuple[float, ...]) -> None:
    assert read_recorded({"args": {"mean": values, "std": values}}) == Recorded(mean=read, std=read)
    assert read_recorded({"cfg": {"DATA": {"MEAN": values}}}) == Recorded(mean=read)


def test_how_weights_were_initialized_is_not_how_images_were_normalized() -> None:
    """mmengine's ``init_cfg``."""
    assert (
        read_recorded({"cfg": {"model": {"init_cfg": {"type": "Normal", "mean": [0.0], "std": [0.02]}}}}) == Recorded()
    )


def test_a_std_of_zero_is_ignored() -> None:
    assert read_recorded({"std": [0.5, 0.0, 0.5], "mean": [0.5, 0.0, 0.5]}) == Recorded(mean=(0.5, 0.0, 0.5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_to_idx", {"cat": 1, "ant": 0, "10": 2}),
        ("idx_to_class", {1: "cat", 0: "ant", 2: "10"}),
        ("id2label", {"2": "10", "0": "ant", "1": "cat"}),
        ("label2id", {"ant": 0, "cat": np.int64(1), "10": 2}),
        ("classes", {0: "ant", 1: "cat", 2: "10"}),
        ("class_names", '["ant", "cat", "10"]'),
        ("id2label", '{"0": "ant", "1": "cat", "2": "10"}'),
    ],
)
def test_class_names_are_read_in_every_form_in_the_order_of_the_classes(name: str, value: object) -> None:
    assert read_recorded({name: value}).labels == ("ant", "cat", "10")
    assert read_recorded({"hyper_parameters": {name: value}}).labels == ("ant", "cat", "10")


@pytest.mark.parametrize("names", [10, "cat", [], ["cat", 3], {"1": "cat"}, {"cat": "0"}, "[", {"0": {}}, None])
def test_class_names_that_are_no_names_are_ignored(names: object) -> None:
    assert read_recorded({"class_names": names}) == Recorded()


def test_options_under_keys_that_are_no_names_are_passed_over() -> None:
    assert read_recorded({"args": {3: 4, "img_size": 20}, 5: 6}) == Recorded(image_size=(20, 20))


# Number formats


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_exactly(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    half = {name: tensor.to(dtype) for name, tensor in state().items()}
    ends = torch.finfo(dtype)
    half["head.fc.bias"][:4] = torch.tensor([ends.max, ends.min, ends.tiny, ends.smallest_normal]).to(dtype)
    found = load_checkpoint(save(tmp_path / "model.pt", half, zipped=zipped))
    assert_same(found.weights, {name: tensor.float() for name, tensor in half.items()})
    assert found.dtypes == (str(dtype).removeprefix("torch."),)
    assert all(torch.equal(found.weights[name].to(dtype), tensor) for name, tensor in half.items())


def test_half_precision_safetensors_widen_exactly(tmp_path: Path) -> None:
    half = {name: tensor.bfloat16() for name, tensor in state().items()}
    safetensors.torch.save_file(half, tmp_path / "model.safetensors")
    found = load_checkpoint(tmp_path / "model.safetensors")
    assert_same(found.weights, {name: tensor.float() for name, tensor in half.items()})


def test_float64_is_kept_and_mixed_types_are_listed(tmp_path: Path) -> None:
    mixed = {name: tensor.double() if "fc" in name else tensor.half() for name, tensor in state().items()}
    found = load_checkpoint(save(tmp_path / "model.pt", mixed))
    assert_same(found.weights, {n: t if t.dtype == torch.float64 else t.float() for n, t in mixed.items()})
    assert found.dtypes == ("float16", "float64")


@FORMATS
def test_parameters_that_require_gradients_are_detached(tmp_path: Path, zipped: bool) -> None:
    trained = {name: nn.Parameter(tensor) for name, tensor in state().items()}
    weights = load_checkpoint(save(tmp_path / "model.pt", trained, zipped=zipped)).weights
    assert not any(tensor.requires_grad for tensor in weights.values())
    assert_same(weights, state())


def test_views_keep_their_values(tmp_path: Path) -> None:
    views = state()
    views[KEY] = views[KEY].t().contiguous().t()
    views["head.fc.weight"] = torch._neg_view(views["head.fc.weight"])
    embedding = views["stages.0.embedding.weight"]
    views["stages.0.embedding.weight"] = torch.cat([-embedding, embedding])[len(embedding) :]
    weights = load_checkpoint(save(tmp_path / "model.pt", views)).weights
    for name, tensor in views.items():
        np.testing.assert_array_equal(weights[name].numpy(), tensor.resolve_neg().numpy())


def quantized(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to move its quantized types elsewhere
        return torch.quantize_per_tensor(tensor, 0.01, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda t: t.to(torch.int32), "int32"),
        (lambda t: t > 0, "bool"),
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (quantized, "qint8"),
        (lambda t: t.to_sparse(), "sparse_coo"),
        (lambda t: t.to("meta"), "meta"),
    ],
)
def test_other_kinds_of_tensors_are_refused_by_name(
    tmp_path: Path, change: Callable[[Tensor], Tensor], kind: str
) -> None:
    path = save(tmp_path / "model.pt", state() | {KEY: change(state()[KEY])})
    with pytest.raises(CheckpointError, match=rf"model\.pt: {KEY} is of type .*{kind}.*before quantization"):
        load_checkpoint(path)


# Warnings


def test_a_layout_whose_code_shifts_in_place_is_warned_about_and_others_are_not(tmp_path: Path) -> None:
    found = load_checkpoint(save(tmp_path / "model.pt", state()))
    assert checkpoint_warnings(found) == []
    in_place = {"shift_semantics": None, "code_shifts_in_place": True}
    inplace = Checkpoint(**vars(found) | {"layout": found.layout.model_copy(update=in_place)})
    warning, _ = checkpoint_warnings(inplace)
    assert "its public code shifts in place" in warning and "--shift-semantics auto" in warning
    for chosen in ("paper", "inplace"):
        assert not any("in place" in warning for warning in checkpoint_warnings(inplace, chosen))  # type: ignore[arg-type]


def test_a_layout_that_leaves_the_semantics_open_is_warned_about_and_a_declaration_that_is_replaced_too(
    tmp_path: Path,
) -> None:
    found = load_checkpoint(save(tmp_path / "model.pt", state()))
    open_ = Checkpoint(**vars(found) | {"layout": found.layout.model_copy(update={"shift_semantics": None})})
    warning, _ = checkpoint_warnings(open_)
    assert "does not say which shift the model was trained with" in warning and "in the layout file" in warning
    (warning,) = checkpoint_warnings(found, "inplace")
    assert "declares paper semantics, which --shift-semantics inplace replaces" in warning
