"""Find the sets of weights in a checkpoint (model, EMA, teacher, …), and choose the model's own."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from s2mlp_deploy.checkpoint.torch_format.archive import SAVE_HINT
from s2mlp_deploy.checkpoint.torch_format.tensors import Foreign
from s2mlp_deploy.errors import CheckpointError

OWN = ("model", "state_dict", "model_state_dict", "net", "module", "params")
"""The keys under which scripts keep the trained weights."""

AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema")
"""The keys under which they keep averages of them."""

MOST_SETS, MOST_DEPTH = 300, 4

Weights = Mapping[str, Tensor | Foreign]


@dataclass(frozen=True)
class Found:
    """The weights to export, the name of their entry (None for the whole file), and other sets by name.

    A name with points is a path: ``state.model``, or an entry and the prefix of some of its keys.
    """

    name: str | None
    weights: Weights
    others: Mapping[str, Weights] = field(default_factory=dict)


def find(content: Any, where: str, name: str | None) -> Found:
    """The weights called ``name`` in ``content``, or those that its entries' names mark as the model's own.

    Raises:
        CheckpointError: where there are none, or several that nothing distinguishes.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} holds a {type(content).__name__}, expected a dict of weights. {SAVE_HINT}")
    if name is not None:
        if found := _at(content, name):
            return Found(name, found)
        raise CheckpointError(
            f"{where} has no weights under {name!r}; its entries are {_entries(content)}{_suggestion(_all(content))}"
        )
    if is_state_dict(content):
        return Found(None, content)
    if packed := [key for key in content if isinstance(key, str) and "._packed_params." in key]:
        raise CheckpointError(
            f"{where} holds weights that are quantized and packed ({packed[0][:100]}): export the checkpoint from before quantization, "
            "and choose int8 here"
        )
    sets = _all(content)
    for names in (OWN, AVERAGED):
        usual = [n for n in names if is_state_dict(content.get(n))]
        if len(usual) > 1:
            raise CheckpointError(
                f"{where} holds several sets of weights, {' and '.join(usual)}: say which one to export with --weights NAME"
            )
        if usual:
            return Found(usual[0], content[usual[0]], {n: sets[n] for n in sets if n != usual[0]})
    raise CheckpointError(
        f"{where} holds no dict of tensors under any of the usual names ({', '.join(OWN + AVERAGED)}); its entries are "
        f"{_entries(content)}" + (_suggestion(sets) or f". {SAVE_HINT}")
    )


def of_the_same_model(weights: Iterable[str], other: Iterable[str]) -> bool:
    """Whether most of ``weights``, a model's keys, are among the keys ``other``, whatever prefixes those have."""
    own = set(weights)
    tails = {key.split(".", cut)[-1] for key in other for cut in range(4)}
    return 2 * len(own & tails) >= len(own)


def is_state_dict(value: Any) -> bool:
    """Whether ``value`` is a dict of tensors under texts."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, (Tensor, Foreign)) for k, v in value.items())
    )


def _all(content: dict[Any, Any]) -> dict[str, Weights]:
    """Every dict of tensors in ``content`` that has a layer's weight, by its path; an optimizer's state has none."""
    found: dict[str, Weights] = {}
    waiting: deque[tuple[str, int, Any]] = deque([("", 0, content)])
    seen: set[int] = set()
    while waiting and len(seen) < MOST_SETS:
        path, depth, value = waiting.popleft()
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        if is_state_dict(value):
            if any(key.endswith(".weight") for key in value):
                found[path] = value
        elif depth < MOST_DEPTH:
            names = [k for k in value if isinstance(k, str) and not re.search("optim|sched", k, re.IGNORECASE)]
            waiting.extend((f"{path}.{name}".lstrip("."), depth + 1, value[name]) for name in names)
    return found


def _at(content: dict[Any, Any], path: str) -> Weights | None:
    """The content at ``path``: an entry, an entry of an entry, or the tensors whose keys begin with the rest of it."""
    value: Any = content
    parts = [path] if path in content else path.split(".")
    while parts and isinstance(value, dict) and parts[0] in value:
        value = value[parts.pop(0)]
    if not is_state_dict(value):
        return None
    prefix = "".join(f"{part}." for part in parts)
    return {key: tensor for key, tensor in value.items() if key.startswith(prefix)} or None


def _suggestion(sets: Mapping[str, Weights]) -> str:
    shown = [name for name in list(sets)[:5] if len(name) <= 100]
    return f". It holds weights under {' and '.join(shown)}: pass --weights {shown[0]}" if shown else ""


def _entries(content: dict[Any, Any]) -> str:
    return ", ".join(str(k)[:60] for k in list(content)[:8]) or "none"
