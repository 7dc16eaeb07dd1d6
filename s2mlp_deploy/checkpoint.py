"""Reading checkpoints, without ever running what is in them.

A file becomes a :class:`Checkpoint`: the spec that its weights imply, the weights under canonical
names, what the training script recorded about images and labels, and the file's sha256. Weights
stay memory-mapped where the format allows it, so that nothing is copied before it is used.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from s2mlp_deploy import layouts, torch_file
from s2mlp_deploy.digest import sha256
from s2mlp_deploy.errors import CheckpointError, LayoutError
from s2mlp_deploy.layouts import Layout
from s2mlp_deploy.limits import MOST_BEYOND_FILE, check_regular, check_safetensors
from s2mlp_deploy.recorded import Recorded, read_recorded
from s2mlp_deploy.spec import Offset, Semantics, Size, Spec
from s2mlp_deploy.torch_file import SAVE_HINT, Foreign

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "ema", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
DEFAULT_IMAGE_SIZE: Size = (224, 224)
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StateDict:
    """A file's tensors by their own keys, and how they were found.

    ``wrapper`` is the entry of the file that held them, ``prefix`` what was cut from every key.
    """

    tensors: Mapping[str, Tensor | Foreign]
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
    offsets: tuple[Offset, ...] | None = None,
    semantics: Semantics | None = None,
) -> Checkpoint:
    """Read, recognise and check the checkpoint at ``path``.

    ``layout`` replaces the search among the built-in ones; ``wrapper`` names the entry that holds
    the weights where there are several; ``image_size`` replaces what the file records, ``offsets``
    and ``semantics`` what the layout says of the shift.

    Raises:
        CheckpointError: where the file is unreadable, unsafe, not a checkpoint or not finite.
        LayoutError: where its keys or shapes are not those of an S²-MLP.
    """
    stated: dict[str, Any] = {"offsets": offsets, "semantics": semantics}
    state = read(path, wrapper=wrapper)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}
    try:
        match = layouts.recognise(shapes, [layout] if layout else layouts.builtin())
        spec = layouts.infer_spec(
            match,
            shapes,
            image_size=image_size or state.recorded.image_size or DEFAULT_IMAGE_SIZE,
            shift=replace(match.layout.shift, **{k: v for k, v in stated.items() if v is not None}),
        )
        used = {match.names[n]: state.tensors[match.names[n]] for n in spec.parameter_shapes()}
        _check_claims(used, path.stat().st_size)
        weights = {n: _floats(match.names[n], used[match.names[n]]) for n in spec.parameter_shapes()}
        found = {n: layouts.form_of(match, n, shapes) for n in weights}
        weights = {n: form.apply(weights[n]) if (form := found[n]) else weights[n] for n in weights}
    except (CheckpointError, LayoutError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Checkpoint(
        path=path,
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        layout=match.layout,
        spec=spec,
        weights=weights,
        dtypes=tuple(
            sorted({str(t.dtype).removeprefix("torch.") for t in state.tensors.values() if isinstance(t, Tensor)})
        ),
        recorded=state.recorded,
        wrapper=state.wrapper,
        prefix=state.prefix,
    )


def warnings(source: Checkpoint, requested: Semantics | None = None) -> list[str]:
    """What the user should know about a checkpoint that no evidence speaks for.

    ``requested`` is the semantics that the user chose instead of what the layout says.
    """
    return [*_semantics_warnings(source.layout, requested), *_structure_warnings(source)]


def _semantics_warnings(layout: Layout, requested: Semantics | None) -> Iterator[str]:
    if requested and layout.shift_semantics not in (None, requested):
        yield f"layout {layout.name} declares {layout.shift_semantics} semantics, which --shift-semantics {requested} replaces"
    if requested or layout.shift_semantics or layout.border != "keep":  # code that shifts in place writes no border
        return
    if layout.code_shifts_in_place:
        why, say = "its public code shifts in place", "Let"
    else:
        why = "it does not say which shift the model was trained with, and nearly all public code shifts in place"
        say = 'Say it in the layout file, shift_semantics = "paper" or "inplace", or let'
    yield (
        f"layout {layout.name}: {why}, which on a CPU computes something else than the paper's shift. If the model was "
        "trained so, exporting it with --shift-semantics paper (the default) changes its predictions. "
        f"{say} --shift-semantics auto decide, with --reference or --data (README: the in-place hazard)"
    )


def _structure_warnings(source: Checkpoint) -> Iterator[str]:
    if parts := layouts.taken_on_trust(source.layout, source.spec):
        yield (
            f"layout {source.layout.name}: weights do not show all of a structure, so this was taken on trust: "
            f"{'; '.join(parts)}. Let --reference check it (README: export your own checkpoint)"
        )


def read(path: Path, *, wrapper: str | None = None) -> StateDict:
    """The tensors of ``path`` under their own keys, unwrapped and without common prefixes.

    Raises:
        CheckpointError: as :func:`load`.
    """
    if _is_safetensors(path):
        content, recorded = _read_safetensors(path)
    else:
        content = torch_file.read(path)
        recorded = read_recorded(content if isinstance(content, dict) else {})
    found, tensors = _unwrap(content, path, wrapper)
    prefix = ""
    while cut := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(cut): tensor for key, tensor in tensors.items()}
        prefix += cut
    return StateDict(tensors, recorded, found, prefix)


def _is_safetensors(path: Path) -> bool:
    """Whether ``path`` is a safetensors file: a length in eight bytes, then a JSON object."""
    try:
        check_regular(path)
        if os.path.exists(path / ".metadata") or path.suffix == ".distcp" or path.name == ".metadata":
            raise CheckpointError(_distributed(path))
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a directory, expected a checkpoint file (.pt, .pth, .safetensors)") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: was its download or its copying interrupted?")
    if head == LFS_POINTER:
        raise CheckpointError(
            f"{path} is a Git LFS pointer, a text in place of the checkpoint: run git lfs install and git lfs pull where it was "
            "cloned, and try again"
        )
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _distributed(path: Path) -> str:
    """What to do with what torch.distributed.checkpoint wrote: the directory, or a file of it."""
    directory = path if path.is_dir() else path.parent
    convert = shlex.join(
        ["python", "-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch", str(directory), "whole.pt"]
    )
    part = "" if path.is_dir() else "part of "
    return f"{path} is {part}a distributed checkpoint (DCP), whose weights are spread over files. Make one file of it with: {convert}"


def _read_safetensors(path: Path) -> tuple[Any, Recorded]:
    try:
        check_safetensors(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, read_recorded(metadata)  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error


def _unwrap(content: Any, path: Path, wrapper: str | None) -> tuple[str | None, dict[str, Tensor | Foreign]]:
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
        and all(isinstance(k, str) and isinstance(v, (Tensor, Foreign)) for k, v in value.items())
    )


def _names(content: dict[Any, Any]) -> str:
    return ", ".join(str(k)[:60] for k in list(content)[:8]) or "none"


def _check_claims(tensors: Mapping[str, Tensor | Foreign], size_bytes: int) -> None:
    """Refuse weights that stand for more values than the file has: one value can be stretched over a terabyte."""
    claimed = sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values() if isinstance(tensor, Tensor))
    if claimed > size_bytes + MOST_BEYOND_FILE:
        raise CheckpointError(
            f"the weights take {claimed:,} bytes, and the file has {size_bytes:,}: too many of them share their values, "
            "which no S²-MLP does"
        )


def _floats(key: str, tensor: Tensor | Foreign) -> Tensor:
    """``tensor`` as float32, or float64 where it is; half precision widens exactly."""
    if isinstance(tensor, Foreign) or not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        kind = tensor.kind if isinstance(tensor, Foreign) else str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{key} is of type {kind}: expected dense float16, bfloat16, float32 or float64 values. Export the "
            "checkpoint from before quantization or pruning"
        )
    tensor = tensor.resolve_neg()
    # The ends show NaN and infinity, too, without a mask as large as the tensor.
    ends = torch.stack(torch.aminmax(tensor))
    if not torch.isfinite(ends).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{key} has {count} of {tensor.numel()} values that are NaN or infinite: the training diverged, or the file "
            "is damaged. Export an earlier checkpoint"
        )
    if not torch.isfinite(ends.float()).all():
        raise CheckpointError(
            f"{key} has values up to {float(ends.abs().max()):.3g}, and float32 ends at {torch.finfo(torch.float32).max:.3g}: "
            "the training diverged, or the file is damaged. Export an earlier checkpoint"
        )
    return tensor.to(torch.float32) if tensor.dtype.itemsize < 4 else tensor
