"""Recognise a checkpoint by the one layout that explains its keys; leave out or refuse keys that are not the model's.

Keys may have a prefix (``net.``), and the names of modules that wrap others in the middle
(``head._orig_mod.fc.weight``). Keys that no layout explains are left out only where they cannot take part in the
computation: a counter, a loss, an average of the weights. All others are refused by name, since a layer that is left
out changes predictions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.schema.report import LeftOut
from s2mlp_deploy.system.wording import shortened, some

if TYPE_CHECKING:
    from s2mlp_deploy.families.layouts import Layout

Shapes = Mapping[str, tuple[int, ...]]

L = TypeVar("L", bound="Layout")

MOST_TENSORS = 20_000
"""Tensors of one model: an S²-MLP of 36 blocks has 434."""

MOST_PREFIXES = 16
"""Prefixes that are tried, those first under which the most keys are explained."""

NEAR = 8
"""A layout that explains fewer than one key in this many is not near: some names, as ``norm``, are everywhere."""

WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module"})
"""Modules of PyTorch that wrap another and compute the same: torch.compile, activation checkpointing, FSDP."""

ANOTHER_NETWORK = "export it to ONNX with its own code, and give that file to s2mlp-repair, which takes any network with shifts inside (docs/repair.md)"

NOT_PLAIN = {
    "*.weight_orig": "it is pruned, and each weight is kept as values and a mask: make them one with torch.nn.utils.prune.remove(module, "
    '"weight"), and save it again',
    "*.lora_[AB].*": "it has the adapters of LoRA beside its weights: add them to these (PEFT: merge_and_unload()), and save it again",
    "*.parametrizations.*": "its weights are computed from others: make them plain with torch.nn.utils.parametrize.remove_parametrizations("
    'module, "weight"), and save it again',
    "*.weight_[gv]": "its weights are kept as lengths and directions: make them plain with torch.nn.utils.remove_weight_norm(module), and "
    "save it again",
}
"""Names of tensors that stand for weights in another way, whatever the network, and what to do."""

_LOSS = re.compile(r"criterion|criteria|loss(es)?|loss_?(fn|func|function)|\w+_loss(_fn)?|\w+_criterion")
_AVERAGE = re.compile(r"(model|net|network)_?(ema|swa|avg|averaged)|(ema|swa|avg|averaged)_?(model|net|network)")
_AVERAGED = re.compile(r"(\w+_)?(ema|swa|avg|averaged?|shadow|teacher|momentum|target)(_\w+)?")
"""Parts of names that mark a second model of the same form as an average of the first, or its teacher."""


@dataclass(frozen=True)
class Match(Generic[L]):
    """A layout, and the checkpoint's key for each canonical parameter name.

    ``prefix`` stands before each of them. ``others`` are the prefixes of whole models of the same form beside it, which
    are averages of this one by their names.
    """

    layout: L
    names: Mapping[str, str]
    prefix: str = ""
    left_out: tuple[LeftOut, ...] = ()
    others: tuple[str, ...] = ()
    unexplained: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def whole(self) -> bool:
        """Whether it has the layers that every model of its layout has."""
        return not self.lacking

    @property
    def lacking(self) -> frozenset[str]:
        """Parameters that every model of its layout has, and that are not there."""
        return self.layout.ends - self.names.keys()


def recognise(shapes: Shapes, candidates: Iterable[Layout], integers: Collection[str] = ()) -> Match[Any]:
    """The one layout of ``candidates`` that explains every key of a possible weight; ``integers`` are keys of integers.

    Raises:
        LayoutError: where none or more than one does, or where the layout is one that is refused.
    """
    if len(shapes) > MOST_TENSORS:
        raise LayoutError(
            f"there are {len(shapes):,} tensors, and no network of a known layout has more than {MOST_TENSORS:,}"
        )
    candidates = tuple(candidates)
    tried: list[Match[Any]] = []
    for keys in _spellings(shapes):
        found = [m for layout in candidates for m in _matches(layout, keys, shapes, integers)]
        if complete := _complete(found):
            break
        tried += found
    else:
        raise LayoutError(_no_match(shapes, candidates, tried))
    match = _one(complete)
    if match.layout.refuse:
        raise LayoutError(
            f"the checkpoint has the layout {match.layout.name} ({match.layout.source}), which is refused: "
            + match.layout.refuse
        )
    return match


def _spellings(shapes: Shapes) -> Iterator[dict[str, str]]:
    """Ways to read the keys, each with the key as it stands: as they are, then without the modules that wrap others."""
    yield {key: key for key in shapes}
    for wrappers in (WRAPPERS, WRAPPERS | {"module"}):
        keys = {without(wrappers, key): key for key in shapes}
        if len(keys) == len(shapes) and keys.keys() != shapes.keys():
            yield keys


def without(wrappers: Collection[str], key: str) -> str:
    """``key`` without the parts that are ``wrappers``."""
    return ".".join(part for part in key.split(".") if part not in wrappers)


def _matches(layout: Layout, keys: Mapping[str, str], shapes: Shapes, integers: Collection[str]) -> list[Match[Any]]:
    """``layout`` matched with the keys under each prefix; ``keys`` has the checkpoint's key for each as it is read."""
    found = []
    for prefix, names in sorted(layout.translate(keys).items(), key=lambda item: -len(item[1]))[:MOST_PREFIXES]:
        explained = set(names.values())
        left_out, unexplained = [], []
        for key, original in keys.items():
            if key in explained:
                continue
            if why := _why_left_out(layout, key, prefix, shapes[original], original in integers):
                left_out.append(LeftOut(original, shapes[original], why))
            else:
                unexplained.append(original)
        named = {name: keys[key] for name, key in names.items()}
        found.append(Match(layout, named, prefix, tuple(left_out), unexplained=frozenset(unexplained)))
    return found


def _why_left_out(layout: Layout, key: str, prefix: str, shape: tuple[int, ...], integer: bool) -> str | None:
    """Why the tensor at ``key`` takes no part in the network's computation; None where it may."""
    if any(fnmatchcase(name, pattern) for name in {key, key.removeprefix(prefix)} for pattern in layout.ignore):
        return "ignored by the layout"
    *modules, name = key.split(".")
    if name in ("total_ops", "total_params") and prod(shape) == 1:
        return "a count of thop's"
    if integer and prod(shape) == 1:
        return "a counter"
    if any(_LOSS.fullmatch(module) for module in modules):
        return "a loss's"
    if modules and _AVERAGE.fullmatch(modules[0]):
        return "an average's"
    return None


def _complete(matches: list[Match[Any]]) -> list[Match[Any]]:
    """Those of ``matches`` that explain every key, but for other whole models of the same layout, which they name.

    Where several do, only those stay that lack the fewest of the layers that every model of their layout has.
    """
    found = []
    for match in matches:
        left = match.unexplained | {item.key for item in match.left_out}
        others = [m for m in matches if m.whole and m.layout is match.layout and left.issuperset(m.names.values())]
        theirs = {key for m in others for key in m.names.values()}
        if match.unexplained <= theirs and (match.whole or not match.unexplained):
            left_out = tuple(item for item in match.left_out if item.key not in theirs)
            beside = tuple(m.prefix.rstrip(".") for m in others)
            found.append(replace(match, left_out=left_out, others=beside, unexplained=frozenset()))
    fewest = min((len(match.lacking) for match in found), default=0)
    return [match for match in found if len(match.lacking) == fewest]


def _one(complete: list[Match[Any]]) -> Match[Any]:
    prefixes = {m.prefix for m in complete}
    plain = {p for p in prefixes if not any(_AVERAGED.fullmatch(part) for part in p.split("."))}
    if len(prefixes) > 1 and len(plain) != 1:
        raise LayoutError(
            f"there are several models, under {' and '.join(sorted(p.rstrip('.') or 'no prefix' for p in prefixes))}: say which "
            "one to export with --weights NAME"
        )
    chosen = [m for m in complete if m.prefix in (plain if len(prefixes) > 1 else prefixes)]
    if len(chosen) > 1:
        names = " and ".join(m.layout.name for m in chosen)
        raise LayoutError(f"the keys fit more than one layout, {names}: say which with --layout NAME")
    return chosen[0]


def _no_match(shapes: Shapes, candidates: tuple[Layout, ...], tried: list[Match[Any]]) -> str:
    for pattern, remedy in NOT_PLAIN.items():
        if named := sorted(key for key in shapes if fnmatchcase(key, pattern)):
            return f"no layout explains {shortened(named[0])}: {remedy}"
    tried = [match for match in tried if NEAR * len(match.names) >= len(shapes)]
    if not tried:
        return (
            f"none of the {len(shapes)} keys ({listed(list(shapes))}) belongs to a known layout "
            f"({', '.join(layout.name for layout in candidates)}): is this one of their networks? If it is, describe its names in a "
            f"layout file (docs/layouts.md) and pass it with --layout FILE.toml; if not, {ANOTHER_NETWORK}"
        )
    nearest = max(tried, key=lambda m: len(m.names))
    if elsewhere := _head_elsewhere(nearest, shapes):
        return elsewhere
    left = [f"{shortened(key)} {list(shape)}" for key, shape in shapes.items() if key in nearest.unexplained]
    for pattern, network in nearest.layout.strangers.items():
        if strange := sorted(
            key for key in nearest.unexplained if fnmatchcase(key.removeprefix(nearest.prefix), pattern)
        ):
            return f"no layout explains every key. Nearest is {nearest.layout.name}, and {shortened(strange[0])} is none of its keys: {network}"
    another = "" if nearest.whole else f"; if it is another network, {ANOTHER_NETWORK}"
    return (
        f"no layout explains every key. Nearest is {nearest.layout.name}, which explains {len(nearest.names)} of "
        f"{len(shapes)}; it has no place for {listed(left)}. If these weights are part of your model, describe "
        f"its names in a layout file (docs/layouts.md) and pass it with --layout FILE.toml; if not, name them there under ignore{another}"
    )


def _head_elsewhere(nearest: Match[Any], shapes: Shapes) -> str | None:
    """The remedy where all but the classifier is as ``nearest`` has it, and one linear layer of another name may be that."""
    weights = [key for key in nearest.unexplained if key.endswith(".weight") and len(shapes[key]) == 2]
    if nearest.lacking != {"head.fc.weight"} or len(weights) != 1:
        return None
    layer = weights[0].removesuffix(".weight")
    if nearest.unexplained - {weights[0], f"{layer}.bias"}:
        return None
    prefix, layer = (without(WRAPPERS | {"module"}, name) for name in (nearest.prefix.rstrip("."), layer))
    lines = [f'extends = "{nearest.layout.name}"', *([f'prefix = "{prefix}"'] if prefix else [])]
    return (
        f"the keys are those of layout {nearest.layout.name}, but for the classifier: it has no place for {shortened(weights[0])} "
        f"{list(shapes[weights[0]])}. If that is one linear layer on the mean over positions, say so in a layout file, with "
        f'{" and ".join(lines)}, and under [keys] "head.fc" = "{shortened(layer)}" (docs/layouts.md)'
    )


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """The first of ``items``, each shortened, and how many more there are."""
    return some([*map(shortened, items)], 6, separator)
