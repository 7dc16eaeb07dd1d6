"""Read the files of torch.save without torch.load: nothing in them is executed, and claimed sizes are checked first.

Both formats hold a pickle that describes the tensors, and their values as plain bytes: a zip archive, or (before
PyTorch 1.6) one thing after another. Values stay in the mapped file where they lie as they are needed.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from s2mlp_deploy.checkpoint.torch_format import unpickler
from s2mlp_deploy.checkpoint.torch_format.archive import SAVE_HINT, Archive
from s2mlp_deploy.checkpoint.torch_format.legacy import read_legacy
from s2mlp_deploy.checkpoint.torch_format.unpickler import Malformed
from s2mlp_deploy.errors import CheckpointError

WHOLE_HINT = (
    "Where it was trained, let every process call get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, "
    "cpu_offload=True)) of torch.distributed.checkpoint.state_dict (or full_tensor() of each weight), save what process 0 gets with "
    "torch.save(…, PATH), and give that file."
)

_SHARDED = ("torch.distributed.tensor.", "torch.distributed._tensor.", "torch.distributed._shard.")

_YOLO = ("ultralytics.", "models.yolo.", "models.common.")
"""Code of detectors, which save themselves whole: of Ultralytics, and of YOLOv5 and v7 and what was made of them."""

YOLO_HINT = (
    "It is a detector of the YOLO kind: export it to ONNX with its own code (yolo export format=onnx, or export.py), and give that "
    "file to s2mlp-repair (docs/repair.md)."
)


def read_torch_file(path: Path) -> Any:
    """The content of ``path``: dicts, lists, numbers, texts and tensors (or :class:`Foreign`) on the CPU.

    Raises:
        CheckpointError: where the file is damaged, claims more than it holds, or would run code in torch.load.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\3\4" or zipfile.is_zipfile(file)
            return Archive(path, file).content() if zipped else read_legacy(path, file)
    except unpickler.Unsafe as error:
        if any(name.startswith(_SHARDED) for name in error.names):
            raise CheckpointError(
                f"{path} holds DTensors, each a part of a weight that one process had. {WHOLE_HINT}"
            ) from error
        entry = _entry_of_weights(error.value)
        whole = entry is None and any("nn.modules" in name for name in error.names)
        names = ", ".join(name[:100] for name in sorted(error.names)[:5])
        raise CheckpointError(
            f"{path} holds {'a whole pickled module' if whole else 'more than weights'}: reading it would run code from the file "
            f"({names}), which this tool never does. {_remedy(entry, error.names)}"
        ) from error
    except (Malformed, OSError, RuntimeError) as error:
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{path} is not a checkpoint that torch.load can read ({reason}): it is damaged, cut short, or something else. "
            f"{SAVE_HINT}"
        ) from error


def _entry_of_weights(content: Any) -> str | None:
    """The name of the first entry of ``content`` that is a dict of tensors; None where there is none."""
    for name, value in content.items() if isinstance(content, dict) else ():
        tensors = isinstance(value, dict) and value and all(isinstance(tensor, Tensor) for tensor in value.values())
        if tensors and isinstance(name, str) and len(name) <= 100:
            return name
    return None


def _remedy(entry: str | None, names: set[str]) -> str:
    """How to save the weights alone, which lie under ``entry`` or in a whole module."""
    if entry is not None:
        return f"Where it was trained, load it and save its weights alone, with torch.save(checkpoint[{entry!r}], PATH), and give that file."
    return YOLO_HINT if any(name.startswith(_YOLO) for name in names) else SAVE_HINT
