"""What is not a checkpoint is refused in one paragraph that names it; no code in it runs, and nothing is left behind."""

from __future__ import annotations

import builtins
import json
import os
import shlex
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from helpers.support import random_model, run, small_spec

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def state() -> dict[str, Tensor]:
    return dict(random_model(small_spec()).state_dict())


def save(path: Path, content: Any, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def content() -> dict[str, Any]:
    return {"model": state(), "args": {"img_size": [20, 28]}}


def refused(path: Path, *options: object, code: int = 3) -> str:
    """What both commands say about ``path``: the same one paragraph, and nothing else happens."""
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    messages = []
    for command, more in (("inspect", ()), ("export", ("-o", out / "bundle"))):
        ran = run(command, path, *options, *more)
        assert (ran.code, ran.out) == (code, ""), ran.err
        *progress, message = ran.err.splitlines()
        assert all(line.endswith(" …") for line in progress), ran.err
        assert message.startswith("error: ") and "Traceback" not in message
        assert str(path) in message
        assert not list(out.iterdir())
        messages.append(message)
    assert messages[0] == messages[1]
    return messages[0]


# Damaged files


@FORMATS
@pytest.mark.parametrize("cut", [1, 3, 9, 100, 1000, 0.5, 0.9, -1, -30, -200])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: float, zipped: bool) -> None:
    path = save(tmp_path / "model.pt", content(), zipped=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut) if 0 < cut < 1 else int(cut)])
    message = refused(path)
    assert "cut short" in message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    assert "is empty" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize("text", ["hello, world\n", "{}", "PK", "\n\n", "(i__main__\n"])
def test_a_text_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.pt").write_text(text)
    assert "is not a checkpoint that torch.load can read" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_git_lfs_pointer_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    message = refused(tmp_path / name)
    assert "is a Git LFS pointer" in message and "git lfs pull" in message


def test_a_distributed_checkpoint_is_refused_with_a_command_that_makes_one_file_of_it(tmp_path: Path) -> None:
    directory = tmp_path / "a checkpoint"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there
        dcp.save({"model": state(), "args": {"img_size": [20, 28]}}, checkpoint_id=directory)
    shard = next(directory.glob("*.distcp"))
    for path in (directory, shard, directory / ".metadata"):
        message = refused(path)
        assert "a distributed checkpoint (DCP)" in message and "torch.save(model.state_dict()" not in message
    python, *arguments = shlex.split(refused(directory).split("Make one file of it with: ")[1])
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert run("inspect", tmp_path / "whole.pt", "--json").json["spec"]["image_size"] == [20, 28]


def test_parts_of_weights_are_refused_with_how_to_save_whole_ones(tmp_path: Path) -> None:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        mesh = init_device_mesh("cpu", (1,))
        parts = {name: distribute_tensor(tensor, mesh) for name, tensor in state().items()}
        for zipped in (True, False):
            message = refused(save(tmp_path / "model.pt", {"model": parts}, zipped=zipped))
            assert "holds DTensors" in message and "torch.save(model.state_dict()" not in message
            assert "StateDictOptions(full_state_dict=True" in message and "full_tensor()" in message
        whole = {name: tensor.full_tensor() for name, tensor in parts.items()}
    finally:
        dist.destroy_process_group()
    assert run("inspect", save(tmp_path / "model.pt", whole)).code == 0


def test_a_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a directory" in refused(tmp_path / "folder")
    assert "No such file" in refused(tmp_path / "missing.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "it is a pipe, a socket or a device: save it to a file" in refused(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", content())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "Permission denied" in refused(path)


def flag_encrypted(data: bytes) -> bytes:
    """A zip archive whose entries all say that they are encrypted."""
    changed = bytearray(data)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            changed[at + flags] |= 1
    return bytes(changed)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", content())
    path.write_bytes(flag_encrypted(path.read_bytes()))
    assert "is an encrypted zip archive" in refused(path)


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("model.pt", b"a checkpoint, packed for sending")
    assert "not a PyTorch checkpoint (no data.pkl in it): unpack it" in refused(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "no data.pkl" in refused(tmp_path / "empty.zip")


@pytest.mark.parametrize("pickled", [b"", b"\x80\x02.", b"garbage", b"\x80\x04\x95", b"\x80\x02K\x01."])
def test_an_archive_whose_pickle_is_damaged_is_refused(tmp_path: Path, pickled: bytes) -> None:
    original = save(tmp_path / "original.pt", content())
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(tmp_path / "model.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, pickled if entry.filename.endswith("data.pkl") else old.read(entry))
    refused(tmp_path / "model.pt")


def test_an_archive_that_lacks_a_tensors_bytes_is_refused(tmp_path: Path) -> None:
    original = save(tmp_path / "original.pt", content())
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(tmp_path / "model.pt", "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("/data/3"):
                new.writestr(entry.filename, old.read(entry))
    refused(tmp_path / "model.pt")


def test_a_torchscript_archive_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop TorchScript
        torch.jit.save(torch.jit.trace(nn.Linear(3, 5), torch.zeros(1, 3)), tmp_path / "model.pt")
    assert "is a TorchScript archive" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize("cut", [3, 9, 500, 0.5, -1])
def test_safetensors_cut_short_are_refused(tmp_path: Path, cut: float) -> None:
    safetensors.torch.save_file(state(), tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: int(len(data) * cut) if 0 < cut < 1 else int(cut)])
    assert "is not a whole safetensors file" in refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b"{}{}",
        b"\xff\xfe",
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 4]}}',
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_corrupt_safetensors_header_is_refused(tmp_path: Path, name: str, header: bytes) -> None:
    (tmp_path / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(tmp_path / name)


def test_a_safetensors_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(tmp_path / "model.safetensors")


def test_safetensors_without_tensors_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / "model.safetensors", metadata={"img_size": "20"})
    assert "holds no dict of tensors" in refused(tmp_path / "model.safetensors")


# Code


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return builtins.eval, ("1",)


def test_the_message_does_not_advise_to_trust_the_file(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = save(tmp_path / "model.pt", {"x": Evil()}, zipped=zipped)
        message = refused(path)
        assert "eval" in message
        assert "trust" not in message and "weights_only" not in message and "\x1b" not in message


def test_a_whole_pickled_module_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.GELU())
    for zipped in (True, False):
        message = refused(save(tmp_path / "model.pt", model, zipped=zipped))
        assert "would run code" in message and "torch.nn.modules" in message
        assert "a whole pickled module" in message
        assert "torch.save(model.state_dict(), PATH)" in message


# Other content


@FORMATS
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        (7, "holds a int"),
        (None, "holds a NoneType"),
        ({}, "its entries are none"),
        ({"epoch": 3, "lr": 0.1}, "its entries are epoch, lr"),
        ({"model": {}}, "its entries are model"),
        ({"model": {"a": 1}}, "its entries are model"),
        ({"model": {1: torch.zeros(1)}}, "its entries are model"),
        ({1: torch.zeros(1)}, "its entries are 1"),
        ({f"key{i}": i for i in range(99)}, "key7."),
        ({"x" * 999: 0}, "x" * 60 + "."),
    ],
)
def test_other_content_is_refused_with_what_is_there(tmp_path: Path, content: object, what: str, zipped: bool) -> None:
    message = refused(save(tmp_path / "model.pt", content, zipped=zipped))
    assert what in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in state().items()}
    weights["stages.0.blocks.1.fc3.weight"][5, 7] = value
    message = refused(save(tmp_path / "model.pt", weights), "--image-size", "20x28")
    assert "stages.0.blocks.1.fc3.weight has 1 of 507 values that are NaN or infinite" in message


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ("2", "image size 2x2 is smaller than the 4x4 patch"),
        ("20x3", "image size 20x3 is smaller than the 4x4 patch"),
        ("21x28", "image size 21x28 is not a multiple of the 4x4 patch"),
        ("20x30", "image size 20x30 is not a multiple of the 4x4 patch"),
    ],
)
def test_an_image_size_that_the_patch_does_not_divide_is_refused(tmp_path: Path, size: str, problem: str) -> None:
    path = save(tmp_path / "model.pt", content())
    assert problem in refused(path, "--image-size", size)
    height, width = size.split("x") if "x" in size else (size, size)
    recorded = {"model": state(), "args": {"img_size": [int(height), int(width)]}}
    assert problem in refused(save(path, recorded))


def test_a_statement_about_keys_names_the_file_and_stays_on_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", state() | {"evil\n\x1b[31m[bold]key[/] :x:": torch.zeros(3)})
    message = refused(path)
    assert r"evil \x1b[31m[bold]key[/] :x: [3]" in message


def test_the_names_of_files_are_shown_as_they_are(tmp_path: Path) -> None:
    for name in ("a [bold]b[x].pt", ":x: :warning:.pt", "back\\[slash].pt", "[].pt", "ünï².pt"):
        (tmp_path / name).touch()
        assert f"{tmp_path / name} is empty" in refused(tmp_path / name)


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pt")
    Path(name).touch()
    ran = run("inspect", name)
    assert ran.code == 3 and r"caf\udce9.pt is empty" in ran.err


def test_the_same_checkpoint_is_read_once_the_damage_is_undone(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", content())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(path)
    path.write_bytes(whole)
    assert json.loads(run("inspect", path, "--json").out)["layout"] == "canonical"
