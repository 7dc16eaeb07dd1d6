"""Layouts: how the keys of a state dict are named.

A layout is a TOML file (docs/layouts.md): for each layer of a family's canonical model, the prefix under which a code
base stores it. Recognising a checkpoint means finding the one layout that explains every key (recognition.py); nothing
is guessed, and nothing that can be a weight is left over.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from s2mlp_deploy.errors import LayoutError, SpecError
from s2mlp_deploy.schema.shift import DIRECTIONS, Border, Semantics, Shift, parse_directions
from s2mlp_deploy.system.wording import shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_GROUPS = 64
"""Channel groups of a shift: the paper's ablation has up to eight."""

Distance = Annotated[int, Field(gt=-1000, lt=1000)]

_VARIABLE = re.compile(r"\{(s|b)([+-]\d{1,4})?\}")


def _offsets(value: Any) -> Any:
    """Directions as a set's name, as words with commas between, or as a list of words or of [Δh, Δw]."""
    if isinstance(value, str):
        return parse_directions(value)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return parse_directions(",".join(value))
    return value


class Layout(BaseModel):
    """One code base's key names, and the facts about its models that weights do not show.

    ``keys`` maps a canonical layer to the prefix of its weight and bias in the checkpoint. ``{s}``
    and ``{b}`` stand for the stage and the block; ``{s+1}`` on the canonical side counts from the
    checkpoint's own index. ``ignore`` are names, with ``*`` for any part, of tensors that are no weights of the model.
    ``strangers`` are names of tensors that this code base's other networks have, and which network that is.
    ``refuse`` is the reason why checkpoints of this layout are not exported.

    ``shift_semantics`` is that of the training; None where the names do not show it. ``code_shifts_in_place``
    is true where the code behind these names shifts in place on every device. ``directions`` is the offset of each
    channel group in order, ``border`` the rule for positions that nothing moves into.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: ClassVar[str]
    """The name of the family that the checkpoints are of."""

    layers: ClassVar[re.Pattern[str]]
    """The layers of the canonical model, with ``{s}`` and ``{b}`` for indices."""

    ends: ClassVar[frozenset[str]]
    """Parameters that every whole model has: of the first layer, of the last, and of a block if others lack it."""

    name: str
    source: str = ""
    shift_semantics: Semantics | None = None
    code_shifts_in_place: bool = False
    directions: Annotated[
        tuple[tuple[Distance, Distance], ...], BeforeValidator(_offsets), Field(min_length=1, max_length=MOST_GROUPS)
    ] = DIRECTIONS["4"]
    border: Border = "keep"
    ignore: tuple[str, ...] = ()
    refuse: str | None = None
    strangers: dict[str, str] = {}
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
            if not cls.layers.fullmatch(canonical):
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
        """The shift as this layout describes it; by default the paper's."""
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

    def key(self, name: str) -> str:
        """The checkpoint's key for a canonical name that it lacks, as the layout would spell it."""
        layer, kind = name.rsplit(".", 1)
        for canonical, prefix in self.keys.items():
            pattern, offsets = re.escape(canonical), {}
            for m in _VARIABLE.finditer(canonical):
                pattern = pattern.replace(re.escape(m[0]), rf"(?P<{m[1]}>\d+)")
                offsets[m[1]] = int(m[2] or 0)
            if found := re.fullmatch(pattern, layer):
                index = {k: int(v) - offsets[k] for k, v in found.groupdict().items()}
                return f"{_VARIABLE.sub(lambda v, i=index: str(i[v[1]]), prefix)}.{kind}"  # type: ignore[misc]
        return name


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


def read_toml(text: str, where: str) -> dict[str, Any]:
    """The content of a layout file, whose place is ``where``.

    Raises:
        LayoutError: where it is not TOML.
    """
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # Python's own too, for numbers of very many digits
        raise LayoutError(f"{where} is not valid TOML: {error}") from error
    return content


def validate(content: Mapping[str, Any], where: str, layout_type: type[Layout]) -> Layout:
    """The layout in the ``content`` of the file at ``where``.

    Raises:
        LayoutError: where it is not one of a family's.
    """
    try:
        return layout_type.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(shortened(str(p)) for p in first["loc"]) or "the file"
        raise LayoutError(f"{where}: {place}: {first['msg'][:300]}. See docs/layouts.md for the format.") from error
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{where} is not valid TOML: {error}") from error


def extend(content: Mapping[str, Any], base: Layout, name: str) -> dict[str, Any]:
    """``content`` of a file that extends ``base``; its name is ``name`` unless it gives one.

    A ``prefix`` stands before the names that it takes from ``base``, and not before its own.

    Raises:
        LayoutError: where the prefix is no name of a module.
    """
    content = dict(content)
    own, prefix = content.get("keys", {}), content.pop("prefix", None)
    inherited = base.model_dump(exclude_unset=True)
    if prefix is not None:
        if not isinstance(prefix, str) or not re.fullmatch(r"\w+(\.\w+)*", prefix):
            raise LayoutError(
                f"prefix: {shortened(str(prefix))!r} is not the name of a module, such as backbone or model.encoder"
            )
        inherited["keys"] = {canonical: f"{prefix}.{key}" for canonical, key in inherited["keys"].items()}
    keys = {**inherited["keys"], **own} if isinstance(own, dict) else own
    return {**inherited, "name": name, **content, "keys": keys}
