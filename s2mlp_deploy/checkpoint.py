"""Reading checkpoints, without ever running what is in them.

A file becomes a :class:`Checkpoint`: the spec that its weights imply, the weights under canonical
names, what the training script recorded about images and labels, and the file's sha256. Weights
stay memory-mapped where the format allows it, so that nothing is copied before it is used.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import warnings as python_warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from s2mlp_deploy import layouts
from s2mlp_deploy.digest import sha256
from s2mlp_deploy.errors import CheckpointError, LayoutError
from s2mlp_deploy.layouts import Layout
from s2mlp_deploy.recorded import Recorded, read_recorded
from s2mlp_deploy.spec import Shift, Size, Spec

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "ema", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
DEFAULT_IMAGE_SIZE: Size = (224, 224)

SAVE_HINT = "Save the weights alone, with torch.save(model.state_dict(), PATH), and give that file."


@dataclass(frozen=True)
class StateDict:
    """A file's tensors by their own keys, and how they were found.

    ``wrapper`` is the entry of the file that held them, ``prefix`` what was cut from every key.
    """

    tensors: Mapping[str, Tensor]
    recorded: Recorded
    wrapper: str | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint; ``weights`` are float32 (or float64) under canonical names."""

    path: Path
    sha256: str
    size_bytes: int
    layout: Layout
    spec: Spec
    weights: Mapping[str, Tensor]
    dtypes: tuple[str, ...]
    recorded: Recorded
    wrapper: str | None
    prefix: str


def load(
    path: Path,
    *,
    layout: Layout | None = None,
    wrapper: str | None = None,
    image_size: Size | None = None,
    shift: Shift | None = None,
) -> Checkpoint:
    """Read, recognise and check the checkpoint at ``path``.

    ``layout`` replaces the search among the built-in ones; ``wrapper`` names the entry that holds
    the weights where there are several; ``image_size`` replaces what the file records.

    Raises:
        CheckpointError: where the file is unreadable, unsafe, not a checkpoint or not finite.
        LayoutError: where its keys or shapes are not those of an S²-MLP.
    """
    state = read(path, wrapper=wrapper)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}
    try:
        match = layouts.recognise(shapes, [layout] if layout else layouts.builtin())
        spec = layouts.infer_spec(
            match,
            shapes,
            image_size=image_size or state.recorded.image_size or DEFAULT_IMAGE_SIZE,
            shift=shift or Shift(),
        )
        weights = {n: _floats(match.names[n], state.tensors[match.names[n]]) for n in spec.parameter_shapes()}
    except (CheckpointError, LayoutError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Checkpoint(
        path=path,
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        layout=match.layout,
        spec=spec,
        weights=weights,
        dtypes=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in state.tensors.values()})),
        recorded=state.recorded,
        wrapper=state.wrapper,
        prefix=state.prefix,
    )


def warnings(source: Checkpoint) -> list[str]:
    """What the user should know about a checkpoint whose shift semantics no evidence has decided."""
    if source.layout.shift_semantics == "paper":
        return []
    return [
        f"layout {source.layout.name}: its public code shifts in place, which on a CPU computes something else than the "
        "paper's shift. If the model was trained on a CPU, exporting it with --shift-semantics paper (the default) "
        "changes its predictions. Let --shift-semantics auto decide, with --reference or --data (README: the in-place "
        "hazard)"
    ]


def read(path: Path, *, wrapper: str | None = None) -> StateDict:
    """The tensors of ``path`` under their own keys, unwrapped and without common prefixes.

    Raises:
        CheckpointError: as :func:`load`.
    """
    content, recorded = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    found, tensors = _unwrap(content, path, wrapper)
    prefix = ""
    while cut := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(cut): tensor for key, tensor in tensors.items()}
        prefix += cut
    return StateDict(tensors, recorded, found, prefix)


def _is_safetensors(path: Path) -> bool:
    """Whether ``path`` is a safetensors file: a length in eight bytes, then a JSON object."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a directory, expected a checkpoint file (.pt, .pth, .safetensors)") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: was its download or its copying interrupted?")
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _read_safetensors(path: Path) -> tuple[Any, Recorded]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, read_recorded(metadata)  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error


def _read_torch(path: Path) -> tuple[Any, Recorded]:
    mappable = _check_archive(path) if _is_archive(path) else False
    try:
        with torch.serialization.safe_globals(_harmless()), python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # about pickle protocols and old storage classes
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, error)) from error
    except Exception as error:  # torch.load documents no exceptions; whatever a damaged file raises ends here
        raise CheckpointError(_unreadable(path, error)) from error
    return content, read_recorded(content if isinstance(content, dict) else {})


def _is_archive(path: Path) -> bool:
    """Whether ``path`` is in torch's zip format, whole or not, rather than in the older one."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4" or zipfile.is_zipfile(path)


def _check_archive(path: Path) -> bool:
    """Whether the weights can be mapped as they lie in the archive, after refusing what holds none."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is a damaged zip archive, perhaps cut short ({error}): copy or download it again"
        ) from error
    if any(entry.flag_bits & 1 for entry in entries):
        raise CheckpointError(f"{path} is an encrypted zip archive: decrypt it first; a checkpoint never is one")
    names = {entry.filename.split("/", 1)[-1] for entry in entries}
    if "constants.pkl" in names:
        raise CheckpointError(f"{path} is a TorchScript archive, which holds code besides weights. {SAVE_HINT}")
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path} is a zip archive, but not a PyTorch checkpoint (no data.pkl in it): unpack it and give the "
            "checkpoint inside"
        )
    # torch.save stores; a tool that packs the archive anew compresses, and torch would map those bytes as weights.
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _harmless() -> list[Any]:
    """What training scripts leave beside the weights: options, paths and NumPy scalars; none runs code."""
    dtypes = [type(np.dtype(t)) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    paths = [pathlib.PurePosixPath, pathlib.PureWindowsPath, (pathlib.PurePosixPath, "pathlib.PosixPath"),
             (pathlib.PureWindowsPath, "pathlib.WindowsPath"), (pathlib.PurePosixPath, "pathlib._local.PosixPath")]  # fmt: skip
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [argparse.Namespace, np.dtype, *dtypes, *paths, *((scalar, name) for name in names)]


def _unsafe(path: Path, error: pickle.UnpicklingError) -> str:
    unknown = _unknown_globals(path) or re.findall(r"GLOBAL (\S+)", str(error))
    if not unknown:
        return _unreadable(path, error)
    what = "a whole pickled module" if any("nn.modules" in name for name in unknown) else "more than weights"
    return (
        f"{path} holds {what}: reading it would run code from the file ({', '.join(sorted(unknown)[:5])}), which this "
        f"tool never does. {SAVE_HINT}"
    )


def _unknown_globals(path: Path) -> list[str]:
    """What the pickle of a zip archive would call, without calling it; nothing for the older format."""
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file may be damaged in any way, and torch's reason for refusing it is known already
        return []


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path} is not a checkpoint that torch.load can read ({_reason(error)}): it is damaged, cut short, or "
        f"something else. {SAVE_HINT}"
    )


def _unwrap(content: Any, path: Path, wrapper: str | None) -> tuple[str | None, dict[str, Tensor]]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict of weights. {SAVE_HINT}")
    if wrapper is not None:
        if not _is_state_dict(content.get(wrapper)):
            raise CheckpointError(f"{path} has no weights under {wrapper!r}; its entries are {_names(content)}")
        return wrapper, content[wrapper]
    if _is_state_dict(content):
        return None, content
    found = [name for name in WRAPPERS if _is_state_dict(content.get(name))]
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds several sets of weights, {' and '.join(found)}: say which one to export with --weights NAME"
        )
    if not found:
        raise CheckpointError(
            f"{path} holds no dict of tensors under any of the usual names ({', '.join(WRAPPERS)}); its entries are "
            f"{_names(content)}. If one of them holds the weights, name it with --weights NAME. {SAVE_HINT}"
        )
    return found[0], content[found[0]]


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) and not v.is_nested for k, v in value.items())
    )


def _names(content: dict[Any, Any]) -> str:
    return ", ".join(str(k)[:60] for k in list(content)[:8]) or "none"


def _floats(key: str, tensor: Tensor) -> Tensor:
    """``tensor`` as float32, or float64 where it is; half precision widens exactly."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        kind = f"{tensor.dtype} ({tensor.device.type}, {tensor.layout})".replace("torch.", "")
        raise CheckpointError(
            f"{key} is of type {kind}: expected dense float16, bfloat16, float32 or float64 values. Export the "
            "checkpoint from before quantization or pruning"
        )
    tensor = tensor.detach().resolve_neg()
    # The ends show NaN and infinity, too, without a mask as large as the tensor.
    if tensor.numel() and not all(torch.isfinite(end) for end in torch.aminmax(tensor)):
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{key} has {count} of {tensor.numel()} values that are NaN or infinite: the training diverged, or the file "
            "is damaged. Export an earlier checkpoint"
        )
    return tensor.to(torch.float32) if tensor.dtype.itemsize < 4 else tensor


def _reason(error: Exception) -> str:
    """The sentence of torch's message that says what is wrong, without its advice."""
    text = re.sub(r".*WeightsUnpickler error:", "", str(error), flags=re.DOTALL).strip()
    sentence = re.split(r"\. |\n", text)[0].rstrip(".")[:200]
    return (
        sentence
        if type(error) in (RuntimeError, OSError, pickle.UnpicklingError)
        else f"{type(error).__name__} {sentence}".rstrip()
    )
