"""The classes that a pickle may name, each replaced by plain data: options, paths, dates, NumPy's arrays and scalars.

Each name that a pickle may mention stands for a function of this project's own that puts numbers and texts together, or
for a placeholder. Nothing of the packages that are named is imported.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2mlp_deploy.checkpoint.torch_format.unpickler import Function, Malformed, Opaque

MOST_VALUES = 1024
"""Values of a NumPy array that are read: of means and deviations, and not of a data set's."""


def names() -> dict[str, Any]:
    """The meaning of each name."""
    functions: dict[str, Callable[..., Any]] = {
        "argparse.Namespace": Namespace,
        "types.SimpleNamespace": Namespace,
        "collections.OrderedDict": _ordered,
        "collections.Counter": _ordered,
        "collections.defaultdict": _empty_dict,
        "collections.deque": lambda *_: [],
        "torch.torch_version.TorchVersion": lambda text="", *_: text,
        "_codecs.encode": lambda text, *_: _Latin1(text),
        "numpy.dtype": lambda code, *_: _NumpyType(code),
        "torchvision.transforms.functional.InterpolationMode": lambda text, *_: text,
    }
    for core in ("numpy.core", "numpy._core"):
        functions |= {
            f"{core}.multiarray.scalar": _numpy_scalar,
            f"{core}.multiarray._reconstruct": lambda *_: _NumpyArray(),
        }
        functions |= {f"{core}.numeric._frombuffer": _numpy_from_buffer}
    functions |= dict.fromkeys(_DICTS, _empty_dict)
    functions |= dict.fromkeys(_CONFIGS, lambda *_: _Config())
    functions |= {f"omegaconf.nodes.{kind}Node": lambda *_: _ConfigNode() for kind in _NODES}
    functions |= dict.fromkeys(_PLACEHOLDERS, _opaque)
    found: dict[str, Any] = {name: Function(meaning) for name, meaning in functions.items()}
    found |= {f"numpy.{kind}": Opaque() for kind in _NUMPY_TYPES}
    return found | {"numpy.ndarray": Opaque(), "typing.Any": Opaque()}


_DICTS = (
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "box.box.Box",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
"""Dicts under other names; a pickle fills them as it does dicts."""

_CONFIGS = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "mmengine.config.config.Config",
    "mmcv.utils.config.Config",
)

_NODES = ("Any", "Integer", "Float", "String", "Boolean", "Bytes", "Path", "Enum")

_NUMPY_TYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "bool_",
)

_PLACEHOLDERS = [
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in (
            "bytearray",
            "set",
            "frozenset",
            "complex",
            "slice",
            "range",
            "xrange",
            "bytes",
            "list",
            "dict",
            "tuple",
            "int",
            "long",
            "float",
            "str",
            "unicode",
            "bool",
            "object",
        )
    ),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in (
            "PurePosixPath",
            "PureWindowsPath",
            "PosixPath",
            "WindowsPath",
        )
    ),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(
        f"{module}.getattr" for module in ("builtins", "__builtin__")
    ),  # how methods are named, of schedules and of loggers
    "functools.partial",
    "mmengine.logging.history_buffer.HistoryBuffer",
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("generator", "bit_generator", "randomstate")),
    *(f"numpy.random.{name}" for name in ("_pcg64.PCG64", "_mt19937.MT19937", "_philox.Philox", "_sfc64.SFC64")),
    *(f"numpy.random.bit_generator.{name}" for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")),
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "omegaconf.base.Metadata",
    "omegaconf.base.ContainerMetadata",
]
"""Names that a pickle may call or mention, and that are not used here."""


def _opaque(*_: Any) -> Opaque:
    return Opaque()


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _ordered(items: Any = None) -> dict[Any, Any]:
    """An OrderedDict, which is filled afterwards, or a Counter with the counts of a dict."""
    if items is None:
        return {}
    if not isinstance(items, dict):
        raise Malformed("it fills a dict in a way that checkpoints do not")
    return items


class _Stated:
    """An object whose attributes are kept as they came; :func:`plain` reads them where they are wanted.

    To read them at once would let a pickle of a few bytes an object copy one large state a million times.
    """

    state: Any = None

    def build(self, state: Any) -> None:
        """Keep ``state``."""
        self.state = state


class _ConfigNode(_Stated):
    """A value in a configuration of OmegaConf."""


class _Config(_Stated):
    """OmegaConf's DictConfig or ListConfig, or mmengine's Config, which keeps a dict beside its source text."""


def entries(value: Any) -> Mapping[Any, Any] | None:
    """The entries of a dict, or of an object with attributes or entries like one; None for anything else."""
    if isinstance(value, Namespace):
        return vars(value)
    if isinstance(value, _Config):
        value = _content(value)
    return value if isinstance(value, dict) else None


def plain(value: Any) -> Any:
    """``value`` as a dict, a list, a number or a text, if it is a package's equivalent of one; else unchanged."""
    if isinstance(value, _NumpyArray):
        return value.values()
    if not isinstance(value, _Config):
        return _unwrapped(value)
    content = _content(value)
    if isinstance(content, dict) and len(content) <= MOST_VALUES:
        return {key: _unwrapped(item) for key, item in content.items()}
    return [_unwrapped(item) for item in content[:MOST_VALUES]] if isinstance(content, list) else None


def _unwrapped(value: Any) -> Any:
    if isinstance(value, _ConfigNode):
        return value.state.get("_val") if isinstance(value.state, dict) else None
    return value


def _content(config: _Config) -> Any:
    state = config.state
    if isinstance(state, dict):
        return state.get("_content")
    return state[0] if isinstance(state, tuple) and state else None


# NumPy


@dataclass(frozen=True)
class _Latin1:
    """Bytes as the text that stands for them in old pickles."""

    text: Any


@dataclass
class _NumpyType:
    """A NumPy type: its code, and the order of its bytes."""

    code: Any
    order: str = "<"

    def build(self, state: Any) -> None:
        """Take the order of bytes from the type's state."""
        self.order = ">" if state[1] == ">" else "<"


class _NumpyArray(_Stated):
    """An array: (version, shape, type, order, bytes)."""

    def values(self) -> list[Any]:
        """The values of a small array of numbers of any shape, in the order of memory; none of any other array."""
        state = self.state
        return _numbers(state[2], state[4]) if isinstance(state, tuple) and len(state) == 5 else []


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _numbers(kind: Any, values: Any, most: int = MOST_VALUES) -> list[Any]:
    """The numbers that ``values`` hold, as Python's; none where they are no numbers, or more than ``most``."""
    if isinstance(values, _Latin1) and isinstance(values.text, str):
        values = values.text[: 8 * most + 1].encode("latin-1")
    if not isinstance(kind, _NumpyType) or kind.code not in _NUMBERS or not isinstance(values, (bytes, bytearray)):
        return []
    dtype = np.dtype(kind.order + kind.code)
    if len(values) > most * dtype.itemsize or len(values) % dtype.itemsize:
        return []
    numbers: list[Any] = np.frombuffer(values, dtype).tolist()
    return numbers


def _numpy_scalar(kind: Any, value: Any = b"") -> Any:
    numbers = _numbers(kind, value, most=1)
    return numbers[0] if numbers else Opaque()


def _numpy_from_buffer(values: Any, kind: Any, shape: Any, order: Any) -> _NumpyArray:
    array = _NumpyArray()
    array.build((1, shape, kind, False, values))
    return array
