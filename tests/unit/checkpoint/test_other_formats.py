"""Files that are no checkpoints of PyTorch are refused with what they are, and what to do with them."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import CheckpointError, LayoutError


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is ")
    return message


def packed(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return file.getvalue()


ARRAYS = pickle.dumps({"stages.0.0.weight": np.ones(3, np.float32)}, 4)


@pytest.mark.parametrize(
    ("name", "content", "kind", "remedy"),
    [
        ("model.onnx", b"\x08\x08" + bytes(99), "an ONNX file", "s2mlp-repair"),
        ("model.safetensors.index.json", b"{}", "the index of weights", "save_file({**load_file(FIRST)"),
        ("model-00001-of-00003.safetensors", bytes(99), "one of 3 files", "save_file({**load_file(FIRST)"),
        ("pytorch_model-00002-of-00002.bin", bytes(99), "one of 2 files", "torch.save({**torch.load(FIRST)"),
        ("model.pth.gz", gzip.compress(b"content"), "packed by gzip", "unpack it"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "a model of Keras", "s2mlp-repair"),
        ("model.keras", packed("config.json", "model.weights.h5"), "a model of Keras", "s2mlp-repair"),
        ("model.npz", packed("head.npy", "stem.npy"), "an archive of NumPy arrays", "torch.as_tensor"),
        ("model.pt2", packed("m/archive_format", "m/models/model.json"), "a program of torch.export", "state_dict"),
        ("model.tflite", b"\x1c\0\0\0TFL3" + bytes(99), "a model of TensorFlow Lite", "give the checkpoint"),
        ("model.engine", b"ftrt" + bytes(99), "an engine of TensorRT", "give the checkpoint"),
        ("model.pth", b"\n<!DOCTYPE html><html>Sign in</html>", "a web page", "download the checkpoint"),
        ("model.pkl", ARRAYS, "a pickle that torch.save did not write", "torch.as_tensor"),
        ("model.pdparams", ARRAYS, "a pickle that torch.save did not write", "torch.as_tensor"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, kind: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert message.startswith(f"{tmp_path / name} is {kind}") and remedy in message


def test_a_shard_that_is_all_of_them_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00001.bin").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="is not a checkpoint that"):
        load_checkpoint(tmp_path / "model-00001-of-00001.bin")


def test_a_directory_is_refused_with_the_files_to_choose_from(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "optimizer.pt"):
        (tmp_path / name).touch()
    assert refusal(tmp_path).endswith("give the one to export: model.safetensors, optimizer.pt")
    (tmp_path / "saved_model.pb").touch()
    assert "a SavedModel of TensorFlow" in refusal(tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_older_format_of_torch_is_no_foreign_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pt"
    torch.save({"x": torch.ones(3)}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    with pytest.raises(LayoutError, match="none of the 1 keys"):
        load_checkpoint(path)
