"""Layouts: how the keys of a state dict are named, and the spec that its shapes imply.

A layout is a TOML file (docs/layouts.md): for each layer of the canonical model, the prefix under
which a code base stores it. Recognising a checkpoint means finding the one layout that explains
every key (recognition.py); nothing is guessed, and nothing that can be a weight is left over.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)  # fmt: skip

from s2mlp_deploy.errors import LayoutError, SpecError
from s2mlp_deploy.families.s2mlp.layouts import forms
from s2mlp_deploy.families.s2mlp.layouts.forms import Form, PatchOrder
from s2mlp_deploy.families.s2mlp.layouts.recognition import LeftOut, Match, Shapes, recognise, shown, some
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Semantics, Shift, direction_name, parse_directions
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Embedding
from s2mlp_deploy.system import untrusted_input

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Geometry", "Layout", "LeftOut", "Match", "builtin", "find", "infer_spec", "recognise"]

MOST_LAYOUT = 64 << 10
"""Bytes of a layout file: of one that names every layer of 36 blocks by itself, and more."""

MOST_CHANNELS = 1024
"""Channels of an image: hyperspectral ones have some hundreds. Mean and deviation of each are shown and written."""

MOST_GROUPS = 64
"""Channel groups of a shift: the paper's ablation has up to eight."""

Extent = Annotated[int, Field(ge=1, lt=2**15)]
Distance = Annotated[int, Field(gt=-1000, lt=1000)]

_VARIABLE = re.compile(r"\{(s|b)(?:\+(\d{1,4}))?\}")
_CANONICAL = re.compile(
    r"stages\.(\d{1,4}|\{s(\+\d{1,4})?\})\.(embedding|stem_norm|blocks\.(\d{1,4}|\{b(\+\d{1,4})?\})\.(norm1|fc1|fc2|norm2|fc3|fc4))"
    r"|head\.(norm|fc)"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Geometry(_Strict):
    """Stride and padding of a stage's convolution, which its weights do not tell."""

    stride: Annotated[int, Field(ge=1, lt=2**15)] | Literal["kernel"] = "kernel"
    padding: Annotated[int, Field(ge=0, lt=2**15)] = 0

    def embedding(self, kernel: Size) -> Embedding:
        """The convolution with this geometry and a kernel of (height, width)."""
        stride = kernel if self.stride == "kernel" else (self.stride, self.stride)
        return Embedding(kernel, stride, (self.padding, self.padding))


class PatchGeometry(Geometry):
    """The same of the patch embedding, which may be a linear layer on flattened patches of ``size``, N or [height, width]."""

    size: Annotated[tuple[Extent, Extent], BeforeValidator(lambda n: (n, n) if isinstance(n, int) else n)] | None = None
    order: PatchOrder | None = None

    @model_validator(mode="after")
    def _both(self) -> PatchGeometry:
        if (self.size is None) != (self.order is None):
            raise ValueError("a linear patch embedding has both a size and an order, channels-first or channels-last")
        if self.size and (self.stride, self.padding) != ("kernel", 0):
            raise ValueError("a linear patch embedding takes patches side by side: leave out stride and padding")
        return self


def _offsets(value: Any) -> Any:
    """Directions as a set's name, as words with commas between, or as a list of words or of [Δh, Δw]."""
    if isinstance(value, str):
        return parse_directions(value)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return parse_directions(",".join(value))
    return value


class Layout(_Strict):
    """One code base's names, and what its weights do not show.

    ``keys`` maps a canonical layer to the prefix of its weight and bias in the checkpoint. ``{s}``
    and ``{b}`` stand for the stage and the block; ``{s+1}`` on the canonical side counts from the
    checkpoint's own index. ``ignore`` are names, with ``*`` for any part, of tensors that are no weights of the model.
    ``refuse`` says why checkpoints of this layout are not exported.

    ``shift_semantics`` is what the model was trained with; None where the names do not tell. ``code_shifts_in_place``
    says that the code behind these names shifts in place, wherever it ran. ``directions`` is the offset of each channel
    group in order, ``border`` what a position gets that nothing moves into. ``pointwise_convolutions`` says that linear layers
    are kept as 1×1 convolutions.
    """

    name: str
    source: str = ""
    shift_semantics: Semantics | None = None
    code_shifts_in_place: bool = False
    directions: Annotated[
        tuple[tuple[Distance, Distance], ...], BeforeValidator(_offsets), Field(min_length=1, max_length=MOST_GROUPS)
    ] = DIRECTIONS["4"]
    border: Border = "keep"
    norm_after_mean: bool = False
    pointwise_convolutions: bool = False
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    patch: PatchGeometry = PatchGeometry()
    downsampling: Geometry = Geometry()
    ignore: tuple[str, ...] = ()
    refuse: str | None = None
    keys: dict[str, str] = Field(min_length=1)

    @field_validator("ignore")
    @classmethod
    def _of_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not re.search(r"\w", pattern):
                raise ValueError(f"{pattern!r} would leave out whatever is there: name the tensors")
        return patterns

    @field_validator("keys")
    @classmethod
    def _well_formed(cls, keys: dict[str, str]) -> dict[str, str]:
        for canonical, prefix in keys.items():
            if not _CANONICAL.fullmatch(canonical):
                raise ValueError(f"{canonical!r} is not a layer of the canonical model")
            known, used = set(), set()
            for m in _VARIABLE.finditer(prefix):
                if m[2]:
                    raise ValueError(f"{prefix!r}: offsets such as {m[0]} belong on the left side")
                known.add(m[1])
            used = {m[1] for m in _VARIABLE.finditer(canonical)}
            if known != used:
                raise ValueError(f"{canonical!r} and {prefix!r} must use the same variables")
        if twice := [prefix for prefix, count in Counter(keys.values()).items() if count > 1]:
            raise ValueError(f"{twice[0]!r} stands for two layers")
        return keys

    @model_validator(mode="after")
    def _one_shift(self) -> Layout:
        try:
            _ = self.shift
        except SpecError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def shift(self) -> Shift:
        """The shift as this layout describes it; the paper's where it says nothing."""
        return Shift(self.directions, self.shift_semantics or "paper", self.border)

    def translate(self, keys: Iterable[str]) -> dict[str, dict[str, str]]:
        """Canonical name → checkpoint key, for the keys that this layout explains, under each prefix that they have."""
        rules = [(prefix.count(".") + 2, _pattern(prefix), canonical) for canonical, prefix in self.keys.items()]
        found: dict[str, dict[str, str]] = {}
        for key in keys:
            ends = [0, *(m.end() for m in re.finditer(r"\.", key))]
            prefixes = set()
            for parts, pattern, canonical in rules:
                start = ends[-parts] if parts <= len(ends) else None
                if start is None or start in prefixes or not (m := pattern.fullmatch(key, start)):
                    continue
                index = {k: int(v) for k, v in m.groupdict().items() if k != "kind"}
                name = _VARIABLE.sub(lambda v, i=index: str(i[v[1]] + int(v[2] or 0)), canonical)  # type: ignore[misc]
                found.setdefault(key[:start], {})[f"{name}.{m['kind']}"] = key
                prefixes.add(start)
        return found


def _pattern(prefix: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts = []
    for i, part in enumerate(_VARIABLE.split(prefix)):
        if i % 3 == 0:
            parts.append(re.escape(part))
        elif i % 3 == 1:
            # Indices are written without leading zeros, so that two keys never mean one layer.
            parts.append(f"(?P={part})" if part in seen else rf"(?P<{part}>0|[1-9]\d{{0,3}})")
            seen.add(part)
    return re.compile("".join(parts) + r"\.(?P<kind>weight|bias)")


@cache
def builtin() -> tuple[Layout, ...]:
    """The layouts that come with the package, in the order of their names."""
    files = sorted((f for f in resources.files(__name__).iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return tuple(_parse(f.read_text("utf-8"), f.name) for f in files)


def taken_on_trust(layout: Layout, spec: S2MLPSpec) -> tuple[str, ...]:
    """What ``layout`` says of ``spec`` that its weights do not show, in words; nothing for built-in layouts, whose code was read."""
    if layout in builtin():
        return ()

    def stated(field: str) -> str:
        return "" if field in layout.model_fields_set else " (the default)"

    first, *others = (stage.embedding for stage in spec.stages)
    parts = [
        f"shift directions {','.join(map(direction_name, spec.shift.offsets))}{stated('directions')}",
        f"border {spec.shift.border}{stated('border')}",
        "norms before the linear layers, and GELU",
        f"LayerNorm's epsilon {spec.norm_epsilon:g}{stated('norm_epsilon')}",
        f"patches of stride {format_size(first.stride)}, padding {format_size(first.padding)}{stated('patch')}",
    ]
    if layout.patch.order:
        parts.append(f"patches flattened {layout.patch.order}")
    if others:
        shown = " and ".join(
            dict.fromkeys(f"stride {format_size(e.stride)}, padding {format_size(e.padding)}" for e in others)
        )
        parts.append(f"down-sampling of {shown}{stated('downsampling')}")
    if spec.final_norm:
        where = "behind" if spec.norm_after_mean else "before"
        parts.append(f"the head's norm {where} the mean{stated('norm_after_mean')}")
    return tuple(parts)


def find(name_or_file: str) -> Layout:
    """The layout called so, or described by the TOML file at that path.

    Raises:
        LayoutError: where there is no such layout, or the file is not a layout.
    """
    path = Path(name_or_file)
    if path.suffix != ".toml":
        return _named(name_or_file)
    try:
        return _parse(untrusted_input.read_text(path, MOST_LAYOUT), str(path))
    except OSError as error:
        raise LayoutError(f"cannot read the layout file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not a text file in UTF-8, so not a layout") from error
    except ValueError as error:
        raise LayoutError(f"{path} is too large for a layout: {error}") from error


def _named(name: str) -> Layout:
    for layout in builtin():
        if layout.name == name:
            return layout
    known = ", ".join(layout.name for layout in builtin())
    raise LayoutError(f"no layout is called {shown(name)!r}: expected one of {known}, or a .toml file")


def _parse(text: str, where: str) -> Layout:
    try:
        content = tomllib.loads(text)
        if "extends" in content:
            try:
                base = _named(str(content.pop("extends"))).model_dump(exclude_unset=True)
            except LayoutError as error:
                raise LayoutError(f"{where}: extends: {error}") from error
            own = content.get("keys", {})
            keys = {**base["keys"], **own} if isinstance(own, dict) else own
            content = {**base, "name": Path(where).stem, **content, "keys": keys}
        return TypeAdapter(Layout).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(shown(str(p)) for p in first["loc"]) or "the file"
        raise LayoutError(f"{where}: {place}: {first['msg'][:300]}. See docs/layouts.md for the format.") from error
    except (ValueError, RecursionError) as error:  # Python's own too, for numbers of very many digits
        raise LayoutError(f"{where} is not valid TOML: {error}") from error


def infer_spec(match: Match, shapes: Shapes, *, image_size: Size, shift: Shift) -> S2MLPSpec:
    """The architecture that the shapes imply.

    Raises:
        LayoutError: where a parameter is missing, unexpected or misshapen.
        SpecError: where the numbers cannot be an S²-MLP.
    """
    have = {name: f.shape if (f := form_of(match, name, shapes)) else shapes[key] for name, key in match.names.items()}
    try:
        spec = _read_spec(have, match, image_size, shift)
    except KeyError as error:
        (name,) = error.args
        raise LayoutError(f"the checkpoint (layout {match.layout.name}) lacks {_key(match, name)}") from error
    want = spec.parameter_shapes()
    wrong = [f"{_key(match, n)} is missing" for n in want if n not in have]
    wrong += [f"{match.names[n]} {list(have[n])} is unexpected" for n in have if n not in want]
    wrong += [
        f"{match.names[n]} has shape {list(have[n])}, expected {list(want[n])}"
        + (_in_a_form(have[n]) if len(have[n]) == 4 > len(want[n]) else "")
        for n in want
        if n in have and have[n] != want[n]
    ]
    if wrong:
        raise LayoutError(
            f"the keys are those of layout {match.layout.name}, but the shapes form no S²-MLP: {some(wrong, '; ')}"
        )
    return spec


def form_of(match: Match, name: str, shapes: Shapes) -> Form | None:
    """The form in which the checkpoint keeps the weight with this canonical name; None where it is the usual one.

    Raises:
        LayoutError: where the layout says that it is a form which its shape does not have.
    """
    layer, kind = name.rsplit(".", 2)[-2:]
    shape, patch = shapes[match.names[name]], match.layout.patch
    if kind != "weight":
        return None
    if name == "stages.0.embedding.weight" and patch.size and patch.order:
        if form := forms.patches(shape, patch.size, patch.order):
            return form
        raise LayoutError(
            f"{match.names[name]} has shape {list(shape)}, expected that of a linear layer on patches of "
            f"{format_size(patch.size)}, [out, {prod(patch.size)} · channels], as the layout says"
        )
    is_linear = layer in ("fc", "fc1", "fc2", "fc3", "fc4")
    return forms.pointwise(shape) if is_linear and match.layout.pointwise_convolutions else None


def _read_spec(have: Shapes, match: Match, image_size: Size, shift: Shift) -> S2MLPSpec:
    first = _of_rank(have, match, "stages.0.embedding.weight", 4)
    if first[1] > MOST_CHANNELS:
        raise LayoutError(
            f"{match.names['stages.0.embedding.weight']} {list(first)} is for images of {first[1]:,} channels: expected at "
            f"most {MOST_CHANNELS:,}"
        )
    stages = []
    blocks_of: dict[int, set[int]] = {}
    for parts in (name.split(".") for name in have if name.startswith("stages.")):
        blocks_of.setdefault(int(parts[1]), set()).update([int(parts[3])] if parts[2] == "blocks" else [])
    for s in range(1 + max(blocks_of)):
        kernel = _of_rank(have, match, f"stages.{s}.embedding.weight", 4)
        blocks = blocks_of.get(s, set())
        if blocks and len(blocks) <= max(blocks):  # before anything is made for each block up to the last
            gap = next(b for b in range(max(blocks)) if b not in blocks)
            raise KeyError(f"stages.{s}.blocks.{gap}.norm1.weight")
        geometry = match.layout.downsampling if s else match.layout.patch
        stages.append(
            Stage(
                embedding=geometry.embedding((kernel[2], kernel[3])),
                channels=kernel[0],
                hidden=_of_rank(have, match, f"stages.{s}.blocks.0.fc3.weight", 2)[0] if blocks else 0,
                depth=1 + max(blocks, default=-1),
                stem_norm=f"stages.{s}.stem_norm.weight" in have,
            )
        )
    return S2MLPSpec(
        stages=tuple(stages),
        classes=_of_rank(have, match, "head.fc.weight", 2)[0],
        image_size=image_size,
        in_channels=first[1],
        shift=shift,
        biases=frozenset(n.split(".")[-2] for n in have if n.endswith(".bias")),
        final_norm="head.norm.weight" in have,
        norm_epsilon=match.layout.norm_epsilon,
        norm_after_mean=match.layout.norm_after_mean,
    )


def _of_rank(have: Shapes, match: Match, name: str, rank: int) -> tuple[int, ...]:
    shape = have[name]
    if len(shape) != rank or not all(shape):
        kind = {2: "linear layer [out, in]", 4: "convolution [out, in, height, width]"}[rank]
        raise LayoutError(
            f"{match.names[name]} has shape {list(shape)}, expected the weight of a {kind}{_in_a_form(shape)}"
        )
    return shape


def _in_a_form(shape: tuple[int, ...]) -> str:
    """How a layout file says that a weight of this shape is one in another form, where it may be."""
    if len(shape) == 4 and shape[2:] == (1, 1):
        return ". If linear layers are 1×1 convolutions there, say pointwise_convolutions = true in a layout file"
    if len(shape) == 2:
        return ". If it is a linear layer on flattened patches, say their size and order under [patch] in a layout file"
    return ""


def _key(match: Match, name: str) -> str:
    """The checkpoint's key for a canonical name that it lacks, as the layout would spell it."""
    layer, kind = name.rsplit(".", 1)
    for canonical, prefix in match.layout.keys.items():
        pattern, offsets = re.escape(canonical), {}
        for m in _VARIABLE.finditer(canonical):
            pattern = pattern.replace(re.escape(m[0]), rf"(?P<{m[1]}>\d+)")
            offsets[m[1]] = int(m[2] or 0)
        if found := re.fullmatch(pattern, layer):
            index = {k: int(v) - offsets[k] for k, v in found.groupdict().items()}
            return f"{_VARIABLE.sub(lambda v, i=index: str(i[v[1]]), prefix)}.{kind}"  # type: ignore[misc]
    return name
