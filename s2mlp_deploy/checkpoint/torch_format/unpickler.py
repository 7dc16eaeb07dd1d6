"""Interpret a pickle as data: nothing that it names is imported or called.

A pickle is a program for a small stack machine, whose instructions import and call whatever they name. Here they only
put lists, dicts, numbers and texts together. The caller defines the meaning of each known name; all other names are
collected, so that a refusal can list them.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

MOST_STEPS = 3_000_000
"""Instructions of one pickle: some seconds of reading. A checkpoint of 1,000 tensors and its optimizer has 200,000."""

_CONSTANTS = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "FLOAT",
    "BINFLOAT",
}
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DISTINCT_HASHES = 2**61 - 1
"""Python hashes integers by their remainder modulo this: larger ones can be chosen so that a dict takes forever."""


class Malformed(ValueError):  # noqa: N818 - names the pickle's state
    """The bytes are not a pickle, or a damaged one, or one that no checkpoint contains."""


class Unsafe(Exception):  # noqa: N818
    """Reading the pickle would take importing or calling ``names``; ``value`` is what could be read without, if anything."""

    def __init__(self, names: set[str], value: Any = None) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names, self.value = names, value


@dataclass(frozen=True)
class Function:
    """A name that may be called: ``meaning`` makes data of its arguments, in time and memory independent of them."""

    meaning: Callable[..., Any]


class Opaque:
    """Placeholder for an object that is accepted and not used."""

    def __repr__(self) -> str:
        return "an object"


class _Unknown:
    """Something that is not called, imported or made."""


def load(file: IO[bytes], names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """Interpret the pickle at the position of ``file`` and return its value; the position is behind it afterwards.

    ``names`` maps each known ``module.name`` to its meaning, ``persistent`` does so for a persistent id. Keys of dicts
    other than texts, bytes, plain numbers and None become placeholders. An object with a method ``build`` receives its
    state through it.

    Raises:
        Unsafe: where it names something else.
        Malformed: where it is no pickle, too long, or cannot be understood.
    """
    machine = _Machine(names, persistent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in texts
            value = machine.run(file)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as error:
        if machine.unknown:
            raise Unsafe(machine.unknown) from error
        raise error if isinstance(error, Malformed) else Malformed(f"{type(error).__name__}: {error}") from error
    if machine.unknown:
        raise Unsafe(machine.unknown, value)
    return value


class _Machine:
    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self._names = names
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.unknown: set[str] = set()

    def run(self, file: IO[bytes]) -> Any:
        for step, (code, argument, _) in enumerate(pickletools.genops(file)):
            if step >= MOST_STEPS:
                raise Malformed(f"it has more than {MOST_STEPS:,} instructions")
            name = code.name
            if name in _CONSTANTS:
                self._stack.append(argument)
            elif name in _NEW:
                self._stack.append(_NEW[name]())
            elif name in _TUPLES:
                self._stack.append(tuple(self._take(_TUPLES[name])))
            elif name == "STOP":
                break
            else:
                getattr(self, f"_{name.lower()}", self._refuse)(argument)
        return self._stack.pop()

    def _refuse(self, _: Any) -> None:
        raise Malformed("it holds an instruction that checkpoints have no use for")

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise Malformed("it takes more than it has put down")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _pop_mark(self, _: Any = None) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _proto(self, _: Any) -> None:
        pass

    _frame = _proto

    def _mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: int) -> None:
        _plain(index)
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    # Containers

    def _tuple(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    _frozenset = _tuple

    def _list(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, _Unknown):
            raise Malformed("it appends to what is no list")

    def _setitem(self, _: Any) -> None:
        self._set(self._take(2))

    def _setitems(self, _: Any) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, _Unknown):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise Malformed("it sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _Unknown):
                target[_key(key)] = value

    # Names and calls

    def _global(self, argument: str) -> None:
        name = argument.replace(" ", ".", 1)
        self._stack.append(self._names[name] if name in self._names else self._unheard_of(name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Malformed("it names something by what is no text")
        self._global(f"{module} {name}")

    def _ext1(self, number: int) -> None:
        self._stack.append(self._unheard_of(f"extension {number}"))

    _ext2 = _ext4 = _ext1

    def _unheard_of(self, name: str) -> _Unknown:
        self.unknown.add(name)
        return _Unknown()

    def _reduce(self, _: Any) -> None:
        function, arguments = self._take(2)
        self._call(function, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        function, arguments, named = self._take(3)
        if named:
            raise Malformed("it makes an object in a way that checkpoints have no use for")
        self._call(function, arguments)

    def _inst(self, argument: str) -> None:
        arguments = self._pop_mark()
        self._global(argument)
        self._call(self._stack.pop(), tuple(arguments))

    def _obj(self, _: Any) -> None:
        function, *arguments = self._pop_mark()
        self._call(function, tuple(arguments))

    def _call(self, function: Any, arguments: Any) -> None:
        if isinstance(function, _Unknown) or isinstance(arguments, _Unknown):
            self._stack.append(_Unknown())
        elif isinstance(function, Function) and isinstance(arguments, tuple):
            self._stack.append(function.meaning(*arguments))
        else:
            raise Malformed("it calls what cannot be called")

    def _build(self, _: Any) -> None:
        state = self._take(1)[0]
        target = self._stack[-1]
        if isinstance(target, Namespace):
            if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
                raise Malformed("an object without attributes")
            vars(target).update(state)
        elif hasattr(target, "build"):
            target.build(state)
        elif not isinstance(target, (_Unknown, Opaque, dict)):  # a dict's attributes, as of OrderedDict, are not read
            raise Malformed("it gives a state to what has none")

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._persistent(self._take(1)[0]))


def _key(key: Any) -> Any:
    """``key``, or a placeholder for one whose hash takes long or can be chosen: a tuple's, a tensor's."""
    if isinstance(key, (list, dict, Namespace)):
        raise Malformed(f"a dict has a key of type {type(key).__name__}")
    return _plain(key) if key is None or isinstance(key, (str, bytes, bool, float, int)) else Opaque()


def _plain(key: Any) -> Any:
    """``key``, if it is one whose hash takes no time and cannot be chosen."""
    if isinstance(key, int) and abs(key) >= _DISTINCT_HASHES:
        raise Malformed("a dict has a number for a key that no checkpoint has")
    return key
