"""Files that nobody wrote by accident: each claims, names or nests more than a reader may believe."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.support import random_model, small_spec
from s2mlp_deploy.families.s2mlp.spec import single_stage

GIB = 1 << 30
Write = Callable[[Path], object]
"""Writes one hostile file."""

SPEC = small_spec()


# Zip archives by hand, since zipfile writes no lies


@dataclass(frozen=True)
class Entry:
    """An entry whose head and directory say what they are told to say."""

    name: str
    packed: bytes
    claimed: int | None = None
    method: int = 0
    crc: int = 0
    at: int | None = None
    packed_claim: int | None = None


def archive(path: Path, entries: Sequence[Entry]) -> None:
    """A zip archive of ``entries``; one with ``at`` has no bytes of its own, and points there."""
    with path.open("wb") as file:
        listed = []
        for e in entries:
            start = file.tell() if e.at is None else e.at
            packed = len(e.packed) if e.packed_claim is None else e.packed_claim
            claimed = packed if e.claimed is None else e.claimed
            name = e.name.encode()
            sizes = struct.pack(
                "<HHHHHIIIHH", 20, 0x800, e.method, 0, 0, e.crc, packed, claimed & 0xFFFFFFFF, len(name), 0
            )
            listed.append(b"PK\1\2" + struct.pack("<H", 20) + sizes + struct.pack("<HHHII", 0, 0, 0, 0, start) + name)
            if e.at is None:
                file.write(b"PK\3\4" + sizes + name + e.packed)
        start, directory = file.tell(), b"".join(listed)
        count = len(entries) & 0xFFFF
        file.write(directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, 0))


def zeros(count: int) -> bytes:
    """``count`` bytes of zeros, deflated: a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    return megabyte * (count >> 20) + rest.compress(bytes(count & 0xFFFFF)) + rest.flush()


# Pickles by hand


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return (
        b"\x8a" + bytes([len(encoded)]) + encoded
        if len(encoded) < 256
        else b"\x8b" + struct.pack("<i", len(encoded)) + encoded
    )


def several(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def storage(key: str, numel: int, kind: str = "FloatStorage", *more: bytes) -> bytes:
    return (
        b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(numel) + b"".join(more) + b"tQ"
    )


def tensor(values: bytes, size: Sequence[int], stride: Sequence[int], offset: int = 0) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, values, number(offset), several(*size), several(*stride), b"\x89", hooks)


def whole(key: str, shape: Sequence[int]) -> bytes:
    """A contiguous tensor with a storage of its own."""
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    return tensor(storage(key, int(np.prod(shape))), shape, strides)


def pickled(items: Mapping[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def weights() -> dict[str, np.ndarray]:
    """The parameters of a healthy model."""
    return {key: value.numpy() for key, value in random_model(SPEC).state_dict().items()}


def healthy() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(what the pickle of a healthy checkpoint says, what its archive holds)."""
    said, held = {}, {}
    for i, (key, values) in enumerate(weights().items()):
        said[key] = whole(str(i), values.shape)
        held[f"data/{i}"] = values.tobytes()
    return said, held


def checkpoint(path: Path, says: bytes, held: Mapping[str, bytes] | None = None, *, more: Sequence[Entry] = ()) -> None:
    """An archive in torch's format whose pickle is ``says``."""
    files = {"data.pkl": says, "version": b"3\n", "byteorder": b"little", **(held or {})}
    archive(path, [*(Entry(f"a/{key}", value, crc=zlib.crc32(value)) for key, value in files.items()), *more])


def beside(value: bytes) -> Write:
    """``value`` in the options of a healthy checkpoint."""
    said, held = healthy()
    return lambda path: checkpoint(path, pickled({"model": _dict(said), "args": value}), held)


def instead(change: Callable[[dict[str, bytes], dict[str, bytes]], object]) -> Write:
    """A healthy checkpoint after ``change``."""

    def write(path: Path) -> None:
        said, held = healthy()
        change(said, held)
        checkpoint(path, pickled(said), held)

    return write


def _dict(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


KEY, SHAPE = "head.fc.weight", (7, 13)


def of_weight(values: bytes) -> Write:
    """A healthy checkpoint with ``values`` for one weight."""
    return instead(lambda said, held: said.update({KEY: values}))


def legacy(path: Path, says: bytes, keys: bytes = b"]", values: bytes = b"") -> None:
    """A file in torch's format before 1.6."""
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(start + says + b"\x80\x02" + keys + b"." + values)


def _archives() -> dict[str, Write]:
    said, held = healthy()
    says = pickled(said)
    plain = [Entry("a/data.pkl", says), *(Entry(f"a/{key}", value) for key, value in held.items())]
    bomb = zeros(3 * GIB)
    stored = Entry("a/data/x", bytes(1000))
    return {
        "a pickle that unpacks to 3 GiB": lambda p: archive(p, [Entry("a/data.pkl", bomb, 3 * GIB, 8)]),
        "a pickle that unpacks to 3 GiB, and claims 100 bytes": lambda p: archive(
            p, [Entry("a/data.pkl", bomb, 100, 8)]
        ),
        "a pickle that unpacks to 1 MiB, and claims 60": lambda p: archive(
            p, [Entry("a/data.pkl", zeros(1 << 20), 60 << 20, 8)]
        ),
        "a byte order that unpacks to 3 GiB": lambda p: archive(p, [*plain, Entry("a/byteorder", bomb, 3 * GIB, 8)]),
        "thirty tensors that unpack to 200 MiB each": lambda p: archive(
            p, [plain[0], *(Entry(f"a/data/{i}", zeros(200 << 20), 200 << 20, 8) for i in range(30))]
        ),
        "a tensor that unpacks to 3 GiB, and claims its size": lambda p: archive(
            p, [plain[0], Entry("a/data/0", bomb, len(held["data/0"]), 8), *plain[2:]]
        ),
        "a tensor that claims 2^32 - 1 bytes": lambda p: archive(
            p, [plain[0], Entry("a/data/0", b"", 2**32 - 1, 8), *plain[2:]]
        ),
        "a stored tensor of two sizes": lambda p: archive(p, [plain[0], Entry("a/data/0", b"abcd", 8), *plain[2:]]),
        "entries that overlap": lambda p: archive(
            p, [stored, *(Entry(f"a/data/{i}", b"", 1000, at=0, packed_claim=1000) for i in range(50)), *plain]
        ),
        "values beyond the file": lambda p: archive(
            p,
            [
                plain[0],
                *plain[2:],
                Entry(
                    "a/data/0",
                    b"",
                    plain[1].claimed or len(plain[1].packed),
                    at=2**31,
                    packed_claim=len(plain[1].packed),
                ),
            ],
        ),
        "an entry whose place is in another": lambda p: archive(
            p, [*plain, Entry("a/data/x", b"", 9, at=60, packed_claim=9)]
        ),
        "three hundred thousand entries": lambda p: archive(
            p, [*plain, *(Entry(f"a/{i:06}", b"", at=0) for i in range(300_000))]
        ),
        "a directory of 30 MB": lambda p: archive(
            p, [*plain, *(Entry("a/" + "n" * 30_000, b"", at=0) for _ in range(1000))]
        ),
        "a name twice": lambda p: archive(p, [*plain, plain[1]]),
        "two pickles": lambda p: archive(p, [*plain, Entry("b/data.pkl", says)]),
        "an archive in an archive": lambda p: _nested(p, says, held),
        "a checksum that is another": lambda p: archive(
            p, [plain[0], Entry("a/data/0", held["data/0"], crc=1), *plain[2:]]
        ),
        "an unknown method": lambda p: archive(p, [plain[0], Entry("a/data/0", held["data/0"], method=93), *plain[2:]]),
        "bytes in no known order": lambda p: archive(p, [*plain, Entry("a/byteorder", b"middle")]),
    }


def _nested(path: Path, says: bytes, held: Mapping[str, bytes]) -> None:
    inner = path.with_suffix(".inner")
    checkpoint(inner, says, held)
    archive(path, [Entry("a/model.pt", inner.read_bytes())])
    inner.unlink()


def _tensors() -> dict[str, Write]:
    count = SHAPE[0] * SHAPE[1]
    own = storage("last", count)
    huge = name("torch", "FloatTensor")

    def with_values(values: bytes) -> Write:
        return instead(lambda said, held: (said.update({KEY: values}), held.update({"data/last": bytes(4 * count)})))

    return {
        "values that claim 2^40 numbers": of_weight(tensor(storage("1", 2**40), SHAPE, (13, 1))),
        "values that claim 2^62 numbers": of_weight(tensor(storage("0", 2**62), SHAPE, (13, 1))),
        "values that claim 10^600 numbers": of_weight(tensor(storage("0", 10**600), SHAPE, (13, 1))),
        "values that claim −1 numbers": of_weight(tensor(storage("0", -1), SHAPE, (13, 1))),
        "a tensor of 2^40 numbers in one": with_values(tensor(own, (2**20, 2**20), (0, 0))),
        "a tensor of 2^80 numbers in one": with_values(tensor(own, (2**40, 2**40), (0, 0))),
        "a tensor of 2^40 numbers over its end": with_values(tensor(own, (2**20, 2**20), (2**20, 1))),
        "a tensor whose end is past 2^64": with_values(tensor(own, SHAPE, (2**62, 2**62))),
        "a tensor that begins after its values": with_values(tensor(own, SHAPE, (13, 1), 1)),
        "a tensor that begins before its values": with_values(tensor(own, SHAPE, (13, 1), -1)),
        "a tensor that runs backwards": with_values(tensor(own, SHAPE, (-13, -1), count - 1)),
        "a tensor of −7 rows": with_values(tensor(own, (-7, 13), (13, 1))),
        "a tensor of no rows, 2^62 times": with_values(tensor(own, (0, 2**62, 2**62), (1, 1, 1))),
        "a tensor of 10^5 dimensions": with_values(tensor(own, (1,) * 10**5, (1,) * 10**5)),
        "a tensor with more strides than sizes": with_values(tensor(own, SHAPE, (13, 1, 1))),
        "five hundred blocks that share one": lambda p: _shared(p, depth=500, channels=256),
        "images of a million channels": lambda p: checkpoint(
            p,
            pickled(
                {key: whole(str(i), shape) for i, (key, shape) in enumerate(_of_channels(10**6).items())},
            ),
            {f"data/{i}": bytes(4 * int(np.prod(shape))) for i, shape in enumerate(_of_channels(10**6).values())},
        ),
        "blocks up to 9999 in each of 5,000 stages": _sparse_blocks,
        "a tensor made by calling FloatTensor(10^11)": of_weight(call(huge, number(10**11))),
        "a tensor made by calling Tensor(10^11)": of_weight(call(name("torch", "Tensor"), number(10**11))),
        "a storage made by calling UntypedStorage(10^11)": of_weight(
            call(name("torch.storage", "UntypedStorage"), number(10**11))
        ),
        "a quantized weight of 2^80 values": of_weight(
            call(
                name("torch._utils", "_rebuild_qtensor"),
                storage("0", weights_numel(), "QInt8Storage"),
                number(0),
                several(2**40, 2**40),
                several(1, 1),
                b"N",
                b"\x89",
                b"N",
            )
        ),
        "a sparse weight whose indices lie": of_weight(
            call(
                name("torch._utils", "_rebuild_sparse_tensor"),
                call(name("torch.serialization", "_get_layout"), text("torch.sparse_coo")),
                b"(" + whole("0", (1,)) * 2 + several(*SHAPE) + b"t",
            )
        ),
    }


def _of_channels(count: int) -> dict[str, tuple[int, ...]]:
    return single_stage(channels=4, depth=1, patch=1, classes=3, in_channels=count).parameter_shapes()


def weights_numel() -> int:
    return int(next(iter(weights().values())).nbytes)


def _shared(path: Path, *, depth: int, channels: int) -> None:
    """A healthy model, but for all its blocks: they are one, and would be 500 times the file."""
    spec = small_spec(channels=channels, depth=depth, expansion=4)
    values = storage("0", 4 * channels * channels)

    def view(shape: Sequence[int]) -> bytes:
        return tensor(values, shape, [int(np.prod(shape[i + 1 :])) for i in range(len(shape))])

    says = pickled({key: view(shape) for key, shape in spec.parameter_shapes().items()})
    checkpoint(path, says, {"data/0": np.full(4 * channels * channels, 0.01, np.float32).tobytes()})


def _sparse_blocks(path: Path) -> None:
    """Little that stands for much: the last block of 10,000 in each stage."""
    said = {"head.fc.weight": whole("0", (4, 4))}
    for s in range(5000):
        said[f"stages.{s}.embedding.weight"] = tensor(storage("0", 16), (4, 4, 1, 1), (4, 1, 1, 1))
        for block in (0, 9999):
            said[f"stages.{s}.blocks.{block}.fc3.weight"] = tensor(storage("0", 16), (4, 4), (4, 1))
    checkpoint(path, pickled(said), {"data/0": bytes(64)})


def _pickles() -> dict[str, Write]:
    colliding = b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 200_001)) + b"u"
    return {
        "200,000 keys of one hash": beside(colliding),
        "200,000 numbered things of one hash": beside(
            b"(" + b"".join(b"Np%d\n0" % (i * (2**61 - 1)) for i in range(1, 200_001)) + b"t"
        ),
        "a key that is a number of 10^5 digits": beside(b"}" + number(10**99_999) + b"Ns"),
        "a number of 10^6 digits": beside(b"L" + b"9" * 10**6 + b"L\n"),
        "a million keys": lambda p: checkpoint(p, pickled({f"key{i}": b"N" for i in range(10**6)})),
        "a million tensors": lambda p: checkpoint(
            p,
            b"\x80\x02}("
            + whole("0", (1,))
            + b"q\x010"
            + b"".join(text(f"k{i}") + b"h\x01" for i in range(10**6))
            + b"u.",
            {"data/0": bytes(4)},
        ),
        "30,000 tensors": lambda p: checkpoint(
            p,
            pickled({f"stages.0.blocks.{i}.fc1.weight": whole("0", (1, 1)) for i in range(30_000)}),
            {"data/0": bytes(4)},
        ),
        "keys of a megabyte": lambda p: checkpoint(
            p, pickled({"k" * 10**6 + str(i): whole("0", (1,)) for i in range(20)}), {"data/0": bytes(4)}
        ),
        "sixty million instructions": lambda p: archive(
            p, [Entry("a/data.pkl", b"\x80\x02(" + b"N" * 60_000_000 + b"t.")]
        ),
        "sixty million marks": lambda p: archive(p, [Entry("a/data.pkl", b"\x80\x02" + b"(" * 60_000_000 + b".")]),
        "a pickle of 70 MB": lambda p: archive(p, [Entry("a/data.pkl", b"\x80\x02" + text("x" * 70_000_000) + b".")]),
        "a text that claims 2^60 bytes": beside(b"\x8d" + struct.pack("<Q", 2**60) + b"x"),
        "bytes that claim 2^40": beside(b"\x8e" + struct.pack("<Q", 2**40) + b"x"),
        "an array of bytes that claims 2^40": beside(b"\x96" + struct.pack("<Q", 2**40) + b"x"),
        "a number that claims 2^31 − 1 bytes": beside(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\1"),
        "a frame that claims 2^60 bytes": lambda p: checkpoint(p, b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."),
        "a name of 50 MB": beside(name("os" + "x" * 50_000_000, "system")),
        "names by the hundred thousand": beside(
            b"(" + b"".join(name("os", f"f{i}") + b"0" for i in range(100_000)) + b"t"
        ),
        "a dict that is its own key": beside(b"}q\1h\1Ns"),
        "options whose attributes are no names": beside(name("argparse", "Namespace") + b")\x81}" + number(1) + b"Nsb"),
    }


def _legacy() -> dict[str, Write]:
    small = whole("0", (4,))

    def old(numel: int) -> bytes:
        return pickled({"a": tensor(storage("0", numel, "FloatStorage", b"N"), (4,), (1,))})

    listed = b"]" + text("0") + b"a"
    return {
        "older format: values that claim 2^40 numbers": lambda p: legacy(
            p, old(2**40), listed, struct.pack("<q", 2**40)
        ),
        "older format: values of another number": lambda p: legacy(
            p, old(4), listed, struct.pack("<q", 2**40) + bytes(16)
        ),
        "older format: values of −1 numbers": lambda p: legacy(p, old(4), listed, struct.pack("<q", -1) + bytes(16)),
        "older format: values that are missing": lambda p: legacy(p, old(4), listed),
        "older format: values that are not listed": lambda p: legacy(p, old(4)),
        "older format: values listed a million times": lambda p: legacy(p, old(4), b"](" + text("0") * 10**6 + b"e"),
        "older format: an id of the newer one": lambda p: legacy(
            p, pickled({"a": small}), listed, struct.pack("<q", 4) + bytes(16)
        ),
        "older format: a key that is a tuple 10^6 deep": lambda p: legacy(p, b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."),
        "older format: a list of values 10^6 deep": lambda p: legacy(p, old(4), b"]" * 10**6 + b"a" * (10**6 - 1)),
        "the tar format of PyTorch before 0.2": _tar,
        "a megabyte of zeros": lambda p: p.write_bytes(bytes(1 << 20)),
        "a gigabyte of nothing": lambda p: _hole(p, GIB),
        "100 GB of nothing": lambda p: _hole(p, 100 * GIB),
    }


def _tar(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in ("storages", "tensors", "pickle"):
            content = pickle.dumps(0, 2)
            described = tarfile.TarInfo(member)
            described.size = len(content)
            archive.addfile(described, io.BytesIO(content))


def _hole(path: Path, size: int, start: bytes = b"") -> None:
    """A file of ``size`` bytes of which only ``start`` takes space on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def _safetensors() -> dict[str, Write]:
    def raw(header: bytes, values: bytes = b"", length: int | None = None) -> Write:
        return lambda p: p.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + values)

    def of(entries: Mapping[str, Any], values: bytes = b"") -> Write:
        return raw(json.dumps(entries).encode(), values)

    def f32(shape: Sequence[Any], start: Any, end: Any) -> dict[str, Any]:
        return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}

    nested = b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"
    twice = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    return {
        "safetensors: a head of 100 GB": raw(b"{}", length=100 * GIB),
        "safetensors: a head of 100 GB in a file of 100 GB": lambda p: _hole(
            p, 100 * GIB + 8, struct.pack("<Q", 100 * GIB) + b"{"
        ),
        "safetensors: a head of 2^64 − 1 bytes": raw(b"{}", length=2**64 - 1),
        "safetensors: a head of 90 MB": raw(b"{" + b" " * 90_000_000 + b"}"),
        "safetensors: a head 10^5 deep": raw(nested),
        "safetensors: an array 10^5 deep": raw(b"[" * 10**5),
        "safetensors: values that overlap": of({"a": f32([2], 0, 8), "b": f32([2], 4, 12)}, bytes(12)),
        "safetensors: the same values twice": of({"a": f32([2], 0, 8), "b": f32([2], 0, 8)}, bytes(8)),
        "safetensors: a hole": of({"a": f32([1], 0, 4), "b": f32([1], 8, 12)}, bytes(12)),
        "safetensors: 2^40 numbers": of({"a": f32([2**20, 2**20], 0, 2**42)}, bytes(8)),
        "safetensors: 2^40 numbers in four bytes": of({"a": f32([2**20, 2**20], 0, 4)}, bytes(4)),
        "safetensors: 2^80 numbers": of({"a": f32([2**40, 2**40], 0, 4)}, bytes(4)),
        "safetensors: no numbers, 2^62 times": of({"a": f32([0, 2**62, 2**62], 0, 0)}),
        "safetensors: −1 rows": of({"a": f32([-1], 0, 4)}, bytes(4)),
        "safetensors: an end before the start": of({"a": f32([1], 4, 0)}, bytes(4)),
        "safetensors: a shape of 10^5 dimensions": of({"a": f32([1] * 10**5, 0, 4)}, bytes(4)),
        "safetensors: a key twice": raw(twice, bytes(4)),
        "safetensors: 150,000 keys": of({f"k{i}": f32([0], 0, 0) for i in range(150_000)}),
        "safetensors: a million keys": of({f"k{i}": f32([0], 0, 0) for i in range(10**6)}),
        "safetensors: keys of a megabyte": of(
            {"k" * 10**6 + str(i): f32([1], 4 * i, 4 * i + 4) for i in range(12)}, bytes(48)
        ),
        "safetensors: metadata that are no texts": of({"__metadata__": {"a": 1}, "a": f32([1], 0, 4)}, bytes(4)),
    }


KINDS: dict[str, Callable[[], dict[str, Write]]] = {
    "archives": _archives,
    "tensors": _tensors,
    "pickles": _pickles,
    "the format before 1.6": _legacy,
    "safetensors": _safetensors,
}
"""All hostile checkpoints, by where and by what is wrong with them."""


def harmless() -> dict[str, Write]:
    """Checkpoints that look odd and are healthy."""
    lists = b"]" * 10**6 + b"a" * (10**6 - 1)
    deep_tuple = b")" + b"\x85" * 10**6
    shared = b")" + b"q\x01h\x01\x86" * 60
    colliding = b"}(" + b"".join(number(i * (2**61 - 1)) + b"\x85N" for i in range(1, 200_001)) + b"u"
    float32 = name("numpy", "dtype") + text("f4") + b"\x85Rq\x02"
    array = name("numpy.core.multiarray", "_reconstruct") + b")R"
    state = b"(K\x01K\x00\x85h\x02\x89h\x03t"
    arrays = (
        float32 + b"0" + b"T" + struct.pack("<I", 4096) + bytes(4096) + b"q\x030]" + (array + state + b"ba") * 100_000
    )
    config = name("omegaconf.dictconfig", "DictConfig") + b")R"
    content = b"}(" + b"".join(text(f"k{i}") + b"N" for i in range(50_000)) + b"uq\x030"
    configs = content + b"]" + (config + b"}" + text("_content") + b"h\x03sba") * 50_000
    dicts = (b"}" + text("k")) * 10**5 + b"N" + b"s" * 10**5
    said, held = healthy()
    metadata = {"__metadata__": {"note": "x" * 10_000_000}}
    offset, entries, values = 0, {}, b""
    for key, array in weights().items():
        entries[key] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset, values = offset + array.nbytes, values + array.tobytes()
    header = json.dumps(entries | metadata).encode()
    head = struct.pack("<Q", len(header)) + header
    deflated = [Entry(f"a/{k}", zlib.compress(v, 9)[2:-4], len(v), 8, zlib.crc32(v)) for k, v in held.items()]
    return {
        "bytearray(10^11) in the options": beside(call(name("builtins", "bytearray"), number(10**11))),
        "lists 10^6 deep in the options": beside(lists),
        "dicts 10^5 deep in the options": beside(dicts),
        "a key that is a tuple 10^6 deep": beside(b"}" + deep_tuple + b"Ns"),
        "a key of 2^60 tuples": beside(b"}" + shared + b"Ns"),
        "200,000 keys that are tuples of one hash": beside(colliding),
        "a NumPy type of a tuple 10^6 deep": beside(call(name("numpy", "dtype"), b"}" + deep_tuple + b"Ns")),
        "a NumPy array 100,000 times": beside(arrays),
        "a configuration of 50,000 entries 50,000 times": beside(configs),
        "a configuration that holds itself": beside(
            config + b"q\x01}" + text("_content") + b"}" + text("a") + b"h\x01ssb"
        ),
        "a configuration whose attributes are a number": beside(config + b"K\x01b"),
        "a list that holds itself": beside(b"]q\1h\1a"),
        "a tree of 2^60 lists in the options": beside(b"]" + b"q\x010]h\x01ah\x01a" * 60),
        "a text of 50 MB in the options": beside(text("x" * 50_000_000)),
        "metadata of 10 MB in safetensors": lambda p: p.write_bytes(head + values),
        "values that lie as they fall": lambda p: archive(
            p, [Entry("a/data.pkl", pickled(said) + b"x"), *(Entry(f"a/{k}", v) for k, v in held.items())]
        ),
        "values packed anew": lambda p: archive(p, [Entry("a/data.pkl", pickled(said)), *deflated]),
        "an archive behind other bytes": lambda p: _behind(p, pickled(said), held),
    }


def _behind(path: Path, says: bytes, held: Mapping[str, bytes]) -> None:
    checkpoint(path, says, held)
    path.write_bytes(b"#!/bin/sh\n" * 7 + path.read_bytes())


def views() -> dict[str, Callable[[dict[str, torch.Tensor]], object]]:
    """Ways in which parameters share or stride over values, as changes to a state dict."""

    def flat(state: dict[str, torch.Tensor]) -> None:
        buffer = torch.cat([value.reshape(-1) for value in state.values()])
        start = 0
        for key, value in state.items():
            state[key] = buffer[start : start + value.numel()].view(value.shape)
            start += value.numel()

    def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda state: state.update({key: change(value) for key, value in state.items()})

    def tied(state: dict[str, torch.Tensor]) -> None:
        state.update({key: state[key.replace("blocks.1.", "blocks.0.")] for key in state})

    def interleaved(state: dict[str, torch.Tensor]) -> None:
        first, second = "stages.0.blocks.0.fc1.weight", "stages.0.blocks.0.fc2.weight"
        both = torch.stack([state[first], state[second]], -1)
        state[first], state[second] = both[..., 0], both[..., 1]

    return {
        "all in one buffer": flat,
        "blocks that share their weights": tied,
        "two weights in turn": interleaved,
        "transposed": each(lambda v: v.permute(*range(v.ndim)[::-1]).contiguous().permute(*range(v.ndim)[::-1])),
        "every third value": each(lambda v: torch.stack([v, v, v], -1)[..., 1]),
        "the middle of more": each(lambda v: torch.cat([v, v, v])[len(v) : 2 * len(v)]),
        "negated views": each(lambda v: torch._neg_view(-v)),
        "the imaginary part, conjugated": each(
            lambda v: torch.complex(v, -v).conj().imag if v.dtype != torch.float16 else v
        ),
    }
