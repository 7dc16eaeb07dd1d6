"""Read a checkpoint, recognise its layout and derive its spec; nothing in the file is executed.

A file becomes a :class:`Checkpoint`: the spec that its weights imply, the weights under canonical
names, the training script's records of images and labels, and the file's sha256. Weights
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

from s2mlp_deploy.checkpoint import other_formats, weight_sets
from s2mlp_deploy.checkpoint.hub_config import CONFIG, completed, read_config
from s2mlp_deploy.checkpoint.torch_format.read import read_torch_file
from s2mlp_deploy.checkpoint.torch_format.tensors import Foreign
from s2mlp_deploy.checkpoint.training_metadata import Recorded, read_recorded
from s2mlp_deploy.checkpoint.weight_sets import Found, of_the_same_model
from s2mlp_deploy.errors import CheckpointError, LayoutError, UsageError
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.recognition import WRAPPERS, Match, recognise, without
from s2mlp_deploy.families.registry import builtin_layouts, family_of, find_family
from s2mlp_deploy.schema.report import LeftOut
from s2mlp_deploy.schema.shift import Offset, Semantics
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.untrusted_input import MOST_BEYOND_FILE, check_regular, check_safetensors


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint; ``weights`` are float32 (or float64) under canonical names.

    ``wrapper`` is the entry of the file that held them, ``prefix`` what all their keys begin with. ``left_out`` are
    tensors beside them that are no weights, ``others`` the names of other weights for the same model, ``from_config``
    the recorded facts that a config.json beside the file states.
    """

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
    left_out: tuple[LeftOut, ...] = ()
    others: tuple[str, ...] = ()
    from_config: tuple[str, ...] = ()


def load_checkpoint(
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
    the weights where there are several; ``image_size`` replaces the recorded one, ``offsets``
    and ``semantics`` the shift of the layout.

    Raises:
        CheckpointError: where the file is unreadable, unsafe, not a checkpoint or not finite.
        LayoutError: where its keys or shapes are not those of a network of a known family.
        UsageError: where a shift is stated for a network that has none.
    """
    stated: dict[str, Any] = {"offsets": offsets, "semantics": semantics}
    content, recorded = _read(path)
    recorded, from_config = completed(recorded, read_config(path))
    found = weight_sets.find(content, str(path), wrapper)
    shapes = {key: tuple(tensor.shape) for key, tensor in found.weights.items()}
    integers = {key for key, tensor in found.weights.items() if isinstance(tensor, Tensor) and not _is_real(tensor)}
    try:
        match = recognise(shapes, [layout] if layout else builtin_layouts(), integers)
        family = find_family(match.layout.family)
        spec = family.infer_spec(
            match,
            shapes,
            image_size=image_size or recorded.image_size or family.default_image_size(match, shapes),
            shift=replace(match.layout.shift, **{k: v for k, v in stated.items() if v is not None}),
        )
        refuse_shift(spec, offsets, semantics)
        used = {match.names[n]: found.weights[match.names[n]] for n in spec.parameter_shapes()}
        _check_claims(used, path.stat().st_size)
        weights = {n: _floats(match.names[n], used[match.names[n]]) for n in spec.parameter_shapes()}
        forms = {n: family.form_of(match, n, shapes) for n in weights}
        weights = {n: form.apply(weights[n]) if (form := forms[n]) else weights[n] for n in weights}
    except (CheckpointError, LayoutError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Checkpoint(
        path=path,
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        layout=match.layout,
        spec=spec,
        weights=weights,
        dtypes=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in used.values() if isinstance(t, Tensor)})),
        recorded=recorded,
        wrapper=found.name,
        prefix=match.prefix,
        left_out=match.left_out,
        others=_others(found, match) if wrapper is None else (),
        from_config=from_config,
    )


def refuse_shift(spec: Spec, offsets: tuple[Offset, ...] | None, semantics: str | None) -> None:
    """Refuse options about the shift for a network that has none.

    Raises:
        UsageError: where one is stated.
    """
    stated = [option for option, value in (("--shift-directions", offsets), ("--shift-semantics", semantics)) if value]
    if stated and not spec.shifts:
        raise UsageError(f"{', '.join(stated)}: {family_of(spec).title} has no shift: leave it out")


def _others(found: Found, match: Match[Any]) -> tuple[str, ...]:
    """Other values for --weights: weights of the same model, in the file or in the same dict."""

    def plainly(key: str) -> str:
        return without(WRAPPERS | {"module"}, key)

    own = {plainly(key).removeprefix(plainly(match.prefix)) for key in match.names.values()}
    beside = [name for name, weights in found.others.items() if of_the_same_model(own, map(plainly, weights))]
    within = [f"{found.name}.{prefix}" if found.name else prefix for prefix in match.others]
    return (*beside, *within)


def checkpoint_warnings(source: Checkpoint, requested: Semantics | None = None) -> list[str]:
    """Warnings about a checkpoint for which no evidence decides.

    ``requested`` is the semantics that the user chose instead of the layout's.
    """
    of_shift = _semantics_warnings(source.layout, requested) if source.spec.shifts else ()
    return [*of_shift, *_structure_warnings(source)]


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
        f"{say} --shift-semantics auto decide, with --reference or --data (docs/export.md: which shift was trained)"
    )


def _structure_warnings(source: Checkpoint) -> Iterator[str]:
    if source.layout in builtin_layouts():  # whose code was read
        return
    if parts := family_of(source.spec).taken_on_trust(source.layout, source.spec):
        yield (
            f"layout {source.layout.name}: weights do not show all of a structure, so this was taken on trust: "
            f"{'; '.join(parts)}. Let --reference check it (docs/layouts.md)"
        )


def checkpoint_notes(source: Checkpoint) -> list[str]:
    """Notes on facts from a file beside the checkpoint, and on the choice of weights, where the file holds several."""
    beside = []
    if source.from_config:
        facts = ", ".join(name.replace("_", " ") for name in source.from_config)
        beside = [f"{facts}: taken from {source.path.parent / CONFIG}"]
    if not source.others:
        return beside
    chosen = f"those under {source.wrapper!r}" if source.wrapper else "the model's own"
    if source.prefix:
        chosen += f" with the prefix {source.prefix}"
    return [
        *beside,
        f"the file holds several sets of weights for this model: {chosen} are used, and not {', '.join(source.others)}. Pass "
        f"--weights {source.others[0]} if those are the ones to ship, as averages (EMA) often are",
    ]


def _read(path: Path) -> tuple[Any, Recorded]:
    if _is_safetensors(path):
        return _read_safetensors(path)
    content = read_torch_file(path)
    return content, read_recorded(content if isinstance(content, dict) else {})


def _is_safetensors(path: Path) -> bool:
    """Whether ``path`` is a safetensors file: a length in eight bytes, then a JSON object."""
    try:
        check_regular(path)
        if os.path.exists(path / ".metadata") or path.suffix == ".distcp" or path.name == ".metadata":
            raise CheckpointError(_distributed(path))
        with path.open("rb") as file:
            head = file.read(other_formats.HEAD)
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is {other_formats.of_a_directory(path)}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: was its download or its copying interrupted?")
    if other := other_formats.of_a_file(path, head):
        raise CheckpointError(f"{path} is {other}")
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _distributed(path: Path) -> str:
    """The remedy for a checkpoint of torch.distributed.checkpoint: the directory, or a file of it."""
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
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error
    # save_model keeps one of several names for the same weights, and lists the others with the one that it kept.
    shared = {key: tensors[kept] for key, kept in metadata.items() if kept in tensors and key not in tensors}
    return tensors | shared, read_recorded(metadata)


def _is_real(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _check_claims(tensors: Mapping[str, Tensor | Foreign], size_bytes: int) -> None:
    """Refuse weights that stand for more values than the file has: one value can be stretched over a terabyte."""
    claimed = sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors.values() if isinstance(tensor, Tensor))
    if claimed > size_bytes + MOST_BEYOND_FILE:
        raise CheckpointError(
            f"the weights take {claimed:,} bytes, and the file has {size_bytes:,}: too many of them share their values, "
            "which no network of a known layout does"
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
