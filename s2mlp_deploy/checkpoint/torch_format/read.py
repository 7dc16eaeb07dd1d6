"""Read the files of torch.save without torch.load: nothing in them is executed, and claimed sizes are checked first.

Both formats hold a pickle that describes the tensors, and their values as plain bytes: a zip archive, or (before
PyTorch 1.6) one thing after another. Values stay in the mapped file where they lie as they are needed.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

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
        what = "a whole pickled module" if any("nn.modules" in name for name in error.names) else "more than weights"
        names = ", ".join(name[:100] for name in sorted(error.names)[:5])
        raise CheckpointError(
            f"{path} holds {what}: reading it would run code from the file ({names}), which this tool never does. {SAVE_HINT}"
        ) from error
    except (Malformed, OSError, RuntimeError) as error:
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{path} is not a checkpoint that torch.load can read ({reason}): it is damaged, cut short, or something else. "
            f"{SAVE_HINT}"
        ) from error
