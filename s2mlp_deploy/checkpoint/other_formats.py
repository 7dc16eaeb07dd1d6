"""Recognise files that people give in place of a PyTorch checkpoint, and say of each what to do with it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

HEAD = 512
"""Bytes at the start of a file that show its format."""

THROUGH_ONNX = (
    "Export it to ONNX with its own tools, and give that file to s2mlp-repair, which takes any network (docs/repair.md)"
)

_LFS_POINTER = b"version https://git-lfs"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"(\xb5/\xfd": "Zstandard",
}
_PAGE = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
_OF_TORCH = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""The number in the first pickle of files of torch.save before PyTorch 1.6."""
_PICKLES = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)")

_KERAS = f"a model of Keras. {THROUGH_ONNX}"


def of_a_file(path: Path, head: bytes) -> str | None:
    """What the file at ``path`` is, and what to do with it, where its name or the start ``head`` shows another format than a
    checkpoint's; else None."""
    if head.startswith(_LFS_POINTER):
        return (
            "a Git LFS pointer, a text in place of the checkpoint: run git lfs install and git lfs pull where it was cloned, and try "
            "again"
        )
    if path.suffix == ".onnx":
        return "an ONNX file, and a checkpoint of PyTorch is expected here: give it to s2mlp-repair, which takes any network (docs/repair.md)"
    if path.name.endswith(".index.json"):
        return f"the index of weights that are spread over several files. {_one_file_of_them(path)}"
    if (shard := _SHARD.search(path.name)) and int(shard[2]) > 1:
        return f"one of {int(shard[2])} files that the weights are spread over. {_one_file_of_them(path)}"
    for magic, program in _PACKED.items():
        if head.startswith(magic):
            return f"packed by {program}: unpack it, and give the checkpoint inside"
    if head.startswith(_HDF5):
        return _KERAS
    if head[4:8] == b"TFL3":
        return "a model of TensorFlow Lite, whose weights cannot be exported again: give the checkpoint that it was made of"
    if head[:4] in (b"ftrt", b"ptrt"):
        return "an engine of TensorRT, whose weights cannot be exported again: give the checkpoint that it was made of"
    if _PAGE.match(head):
        return "a web page, as a download gives that needs a login or was refused: download the checkpoint itself"
    if head[:2] in _PICKLES and len(head) > 32 and _OF_TORCH not in head[:32]:
        return (
            "a pickle that torch.save did not write, as those of Jittor and Paddle are. Where it can be loaded, save its arrays as "
            "tensors, with torch.save({name: torch.as_tensor(array) for name, array in state.items()}, PATH), and give that file"
        )
    return None


def of_a_directory(path: Path) -> str:
    """What to do with a directory, which is none of this project's bundles and no distributed checkpoint."""
    if (path / "saved_model.pb").is_file():
        return f"a SavedModel of TensorFlow. {THROUGH_ONNX}"
    weights = sorted(
        entry.name for entry in path.iterdir() if entry.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
    )
    which = f"give the one to export: {', '.join(weights[:5])}" if weights else "give a file (.pt, .pth, .safetensors)"
    return f"a directory, expected a checkpoint file: {which}"


def of_an_archive(names: Collection[str]) -> str:
    """What a zip archive without a checkpoint of torch.save is, by the ``names`` of its entries, and what to do with it."""
    inner = {name.split("/", 1)[-1] for name in names}
    if "model.weights.h5" in inner:
        return _KERAS
    if "archive_format" in inner or any(name.startswith("models/") for name in inner):
        return (
            "a program of torch.export, which holds code besides weights. Save the weights alone, with "
            "torch.save(torch.export.load(FILE).state_dict, PATH), and give that file"
        )
    if names and all(name.endswith(".npy") for name in names):
        return (
            "an archive of NumPy arrays. Save them as tensors, with torch.save({name: torch.as_tensor(array) for name, array in "
            "numpy.load(FILE).items()}, PATH), and give that file"
        )
    return "a zip archive, but not a PyTorch checkpoint (no data.pkl in it): unpack it and give the checkpoint inside"


def _one_file_of_them(path: Path) -> str:
    load, save = ("load_file", "save_file") if "safetensors" in path.name else ("torch.load", "torch.save")
    arguments = f"{{**{load}(FIRST), **{load}(SECOND), …}}"
    return f"Make one file of all of them, with {save}({arguments}, PATH), and give that file"
