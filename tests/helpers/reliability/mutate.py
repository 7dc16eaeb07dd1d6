"""Damage with structure: files changed as accidents and authors of hostile files change them.

Each function takes a source of chance and returns changed content; the same source gives the same content.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    1000,
    2**15 - 1,
    2**15,
    2**16 - 1,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    10**30,
)

VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(-n for n in NUMBERS[1:]),
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e38,
    1e39,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    False,
    None,
    "",
    "a",
    "0",
    "1",
    "-1",
    "é",
    "\x00",
    "\ud800",
    "../x",
    "/dev/zero",
    "x" * 5000,
    "𝟘",
    "٣",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [0] * 100,
    {"0": 0},
    "F32",
    "float32",
    "paper",
    "NCHW",
)


def raw(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes of bytes: flipped, set, cut, inserted, repeated, moved, or taken from another file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        # Heads and ends say what the rest is, so that they are hit more often than by chance.
        at = rng.choice((rng.randrange(size + 1), min(size, rng.randrange(200)), max(0, size - rng.randrange(200))))
        length = rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64), rng.randrange(1, size + 2)))
        kind = rng.randrange(8)
        if kind == 0 and size:
            changed[min(at, size - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + length] = rng.randbytes(min(length, 64))
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 10))
        elif kind == 4:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
            put = number.to_bytes(width, rng.choice(("little", "big")))
            changed[at : at + rng.choice((0, width))] = put
        elif kind == 5:
            other = rng.choice(others) if others else data
            start = rng.randrange(len(other) + 1)
            changed[at : at + rng.choice((0, length))] = other[start : start + length]
        elif kind == 6:
            part = changed[at : at + length]
            del changed[at : at + length]
            to = rng.randrange(len(changed) + 1)
            changed[to:to] = part
        else:
            del changed[at:]
        del changed[4 * len(data) + 1000 :]
    return bytes(changed)


_TOKENS = re.compile(rb'"[^"\n]*"|[-+]?\d[\d.eE+-]*|[A-Za-z_]+|[^\sA-Za-z0-9]|\s+')


def tokens(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes of words, numbers, texts and signs of a text."""
    parts = [*_TOKENS.findall(data), b""]
    pool = [part for other in (data, *others) for part in _TOKENS.findall(other)] or [b"x"]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0:
            parts[at] = rng.choice(pool)
        elif kind == 1:
            parts[at] = _text(rng.choice(VALUES))
        elif kind == 2:
            parts[at : at + rng.choice((1, 1, 1, 5))] = [b""]
        elif kind == 3:
            parts[at:at] = parts[at : at + rng.choice((1, 3, 10))] * rng.choice((1, 1, 50))
        elif kind == 4:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = raw(rng, parts[at])
    return b"".join(parts)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def tree(rng: Random, data: bytes) -> bytes:
    """One to four changes of values and keys of JSON."""
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = _changed(rng, content, content)
    return _text(content)


def _changed(rng: Random, value: Any, whole: Any) -> Any:
    """``value`` with a change somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        keys = list(value)
        key = rng.choice(keys)
        kind = rng.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {(str(rng.choice(VALUES))[:200] if k == key else k): v for k, v in value.items()}
        if kind == 2:
            return value | {rng.choice(keys): value[key]}
        return value | {key: _changed(rng, value[key], whole)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        kind = rng.randrange(6)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] + [value[at]] * rng.choice((2, 3, 70)) + value[at + 1 :]
        return [_changed(rng, item, whole) if i == at else item for i, item in enumerate(value)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)))
    if isinstance(value, str) and rng.random() < 0.4:
        return tokens(rng, value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return rng.choice(VALUES) if rng.random() < 0.9 else whole


_CODES = [code for code in pickletools.opcodes if code.arg is None or code.arg.n > 0]
_NAMES = (
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nHalfStorage\n",
    b"ctorch.storage\nUntypedStorage\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nfloat32\n",
    b"cargparse\nNamespace\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"c_codecs\nencode\n",
    b"ctorch._utils\n_rebuild_qtensor\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch\nSize\n",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n",
    b"cpathlib\nPosixPath\n",
    b"cos\nsystem\n",
    b"cbuiltins\nset\n",
)


def instructions(rng: Random, data: bytes) -> bytes:
    """One to four changes of a pickle's instructions: left out, repeated, swapped, with another argument or others instead."""
    try:
        places = [place for _, _, place in pickletools.genops(data)]
    except ValueError:  # changed before
        return raw(rng, data)
    parts = [data[a:b] for a, b in zip(places, [*places[1:], places[-1] + 1], strict=True)]
    rest = data[places[-1] + 1 :]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        kind = rng.randrange(8)
        if kind == 0:
            parts[at : at + rng.choice((1, 1, 1, 4))] = [b""]
        elif kind == 1:
            parts[at:at] = parts[at : at + rng.choice((1, 3, 10))]
        elif kind == 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts[at] = parts[rng.randrange(len(parts))]
        elif kind == 4:
            code = rng.choice(_CODES)
            parts[at] = code.code.encode("latin-1") + rng.randbytes(max(0, code.arg.n if code.arg else 0))
        elif kind == 5:
            number = rng.choice(NUMBERS) * rng.choice((1, 1, 1, -1))
            parts[at] = b"\x8a\x0e" + number.to_bytes(14, "little", signed=True)
        elif kind == 6:
            parts[at] = rng.choice(_NAMES)
        else:
            parts[at] = raw(rng, parts[at])
    return b"".join(parts) + rest


def archived(rng: Random, data: bytes, change: Callable[[Random, str, bytes], bytes]) -> bytes:
    """A zip archive after a change of its entries, written anew: sizes and checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        entries = [(entry.filename, old.read(entry)) for entry in old.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        at, other = rng.randrange(len(entries)), rng.randrange(len(entries))
        kind = rng.randrange(8)
        if kind == 0 and len(entries) > 1:
            del entries[at]
        elif kind == 1:
            entries[at], entries[other] = (entries[at][0], entries[other][1]), (entries[other][0], entries[at][1])
        elif kind == 2:
            entries[at] = (entries[other][0], entries[at][1])
        else:
            if rng.random() < 0.5:  # the pickle, or the only array
                at = next((i for i, (name, _) in enumerate(entries) if name.endswith((".pkl", "input.npy"))), at)
            entries[at] = (entries[at][0], change(rng, *entries[at]))
    written = io.BytesIO()
    with zipfile.ZipFile(
        written, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as new:
        for name, content in entries:
            new.writestr(zipfile.ZipInfo(name), content, new.compression)
    return written.getvalue()


def headed(rng: Random, data: bytes) -> bytes:
    """Safetensors after a change of what its head says; the head's length is right."""
    length = struct.unpack("<Q", data[:8])[0]
    head = data[8 : 8 + length]
    head = tree(rng, head) if rng.random() < 0.7 else tokens(rng, head)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


def npy(rng: Random, data: bytes) -> bytes:
    """An array in NumPy's format after a change of what its head says; the head's length is right."""
    (length,) = struct.unpack("<H", data[8:10])
    head = tokens(rng, data[10 : 10 + length])[:65535]
    return data[:8] + struct.pack("<H", len(head)) + head + data[10 + length :]
