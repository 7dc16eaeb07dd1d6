"""Pickles that would run something, in every way that a pickle can, and the places in a checkpoint where one can stand.

What they run leaves a file behind, so that it is seen whether it ran.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from helpers.reliability.hostile_files import Entry, archive, healthy, legacy, name, pickled, text

MODULE = """
from pathlib import Path
def leave(path, *_): Path(path).touch(); return {}
class New:
    def __new__(cls, path, **_): leave(path); return object.__new__(cls)
class State:
    def __setstate__(self, path): leave(path)
class Dict(dict):
    def __setitem__(self, path, value): leave(path)
class List(list):
    def append(self, path): leave(path)
    def extend(self, paths): leave(paths[0])
class Key:
    def __setstate__(self, path): self.path = path
    def __hash__(self): leave(self.path); return 0
"""
"""A module whose classes leave the file at a path whenever they are used at all."""

EXTENSION = 200


class Call:
    """Unpickles by calling ``function(*arguments)``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def prepare(directory: Path) -> None:
    """Write the modules that the pickles name into ``directory``, from which they can then be imported."""
    (directory / "leaves_when_used.py").write_text(MODULE)
    (directory / "leaves_when_imported.py").write_text(f"open({str(directory / 'left')!r}, 'w').close()\n")
    if ("leaves_when_used", "leave") not in copyreg._extension_registry:  # type: ignore[attr-defined]
        copyreg.add_extension("leaves_when_used", "leave", EXTENSION)


def payloads(left: Path) -> dict[str, bytes]:
    """What puts a value on the stack and leaves ``left``, by the instruction or the function that does it."""
    path, shell = text(str(left)), text(f"touch {left}")
    used = "leaves_when_used"
    made = {key: name(used, key) + b")R" for key in ("State", "Dict", "List", "Key")}
    by_function = {
        "exec": Call(builtins.exec, f"open({str(left)!r}, 'w').close()"),
        "eval": Call(builtins.eval, f"open({str(left)!r}, 'w').close()"),
        "open": Call(open, str(left), "w"),
        "Popen": Call(subprocess.Popen, ["touch", str(left)]),
        "Path.touch": Call(Path.touch, left),
        "shutil.copy": Call(shutil.copy, "/etc/hostname", str(left)),
        "torch.save": Call(torch.save, {}, str(left)),
    }
    return {
        "REDUCE": name("os", "system") + b"(" + shell + b"tR",
        "INST": b"(" + shell + b"ios\nsystem\n",
        "OBJ": b"(" + name("os", "system") + shell + b"o",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + shell + b"\x85R",
        "GLOBAL": name("leaves_when_imported", "x"),
        "STACK_GLOBAL alone": text("leaves_when_imported") + text("x") + b"\x93",
        "EXT1": b"\x82" + bytes([EXTENSION]) + path + b"\x85R",
        "NEWOBJ": name(used, "New") + path + b"\x85\x81",
        "NEWOBJ_EX": name(used, "New") + path + b"\x85}\x92",
        "BUILD": made["State"] + path + b"b",
        "SETITEM": made["Dict"] + path + b"Ns",
        "SETITEMS": made["Dict"] + b"(" + path + b"Nu",
        "APPEND": made["List"] + path + b"a",
        "APPENDS": made["List"] + b"(" + path + b"e",
        "a hash": b"}" + made["Key"] + path + b"bNs",
        "a function of torch that calls another": name("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + name("os", "system")
        + name("torch", "Tensor")
        + shell
        + b"\x85}tR",
        "a function of functools": name("functools", "reduce")
        + name("os", "getenv")
        + b"("
        + path
        + b"t\x86R0"
        + name(used, "leave")
        + path
        + b"\x85R",
        "getattr": name("builtins", "getattr")
        + name("os", "path")
        + text("os")
        + b"\x86R0"
        + name("os", "system")
        + shell
        + b"\x85R",
        **{function: pickle.dumps(call, 3)[2:-1] for function, call in by_function.items()},
    }


def places() -> dict[str, Callable[[Path, bytes], Any]]:
    """Ways to write a file with what a payload puts on the stack in it."""
    said, held = healthy()
    files = {f"a/{key}": value for key, value in held.items()}
    state = pickled(said)[:-1]
    safe = b"\x80\x02N."

    def zipped(path: Path, says: bytes, method: int = 0, **more: bytes) -> None:
        packed = zlib.compress(says)[2:-4] if method else says
        entries = [Entry("a/data.pkl", packed, len(says), method, zlib.crc32(says))]
        archive(path, [*entries, *(Entry(key, value) for key, value in (files | more).items())])

    def tar(path: Path, payload: bytes) -> None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as written:
            for member in ("storages", "tensors", "pickle"):
                content = payload + b"."
                described = tarfile.TarInfo(member)
                described.size = len(content)
                written.addfile(described, io.BytesIO(content))

    def older(before: list[bytes]) -> Callable[[Path, bytes], Any]:
        return lambda path, p: path.write_bytes(b"".join(before) + b"\x80\x02" + p + b"." + safe * 3)

    start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return {
        "all of the archive's pickle": lambda path, p: zipped(path, b"\x80\x02" + p + b"."),
        "the options": lambda path, p: zipped(
            path, b"\x80\x02}(" + text("model") + state[2:] + text("args") + p + b"u."
        ),
        "a weight": lambda path, p: zipped(path, state[:-1] + text("head.fc.weight") + p + b"u."),
        "an item that is dropped again": lambda path, p: zipped(path, b"\x80\x02" + p + b"0" + state[2:] + b"."),
        "a compressed pickle": lambda path, p: zipped(path, b"\x80\x02" + p + b".", 8),
        "behind the pickle's end": lambda path, p: zipped(path, b"\x80\x02" + p + b"." + state + b"."),
        "an id of values": lambda path, p: zipped(path, b"\x80\x02" + p + b"Q."),
        "the older format's magic number": older([]),
        "the older format's version": older(start[:1]),
        "the older format's description": older(start[:2]),
        "the older format's content": older(start),
        "the older format's keys": lambda path, p: legacy(path, b"\x80\x02}.", p),
        "the tar format": tar,
        "a pickle alone": lambda path, p: path.write_bytes(b"\x80\x04" + p + b"."),
        "a pickle without a version": lambda path, p: path.write_bytes(p + b"."),
        "a pickle that begins like safetensors": lambda path, p: path.write_bytes(
            struct.pack("<Q", 8) + b"{" + p + b"."
        ),
        "an archive in an archive": lambda path, p: archive(
            path, [Entry("a/data.pkl", b"\x80\x02" + p + b"."), Entry("b/data.pkl", b"\x80\x02" + p + b".")]
        ),
        "a TorchScript archive": lambda path, p: zipped(
            path, b"\x80\x02" + p + b".", **{"a/constants.pkl": p + b".", "a/code/x.py": b"import os"}
        ),
    }


def trusted(payload: bytes) -> None:
    """Read it as pickles are read by who trusts them."""
    pickle.loads(b"\x80\x04" + payload + b".")


def left_by(left: Path) -> bool:
    """Whether ``left`` is there; it is removed."""
    found = os.path.exists(left)
    left.unlink(missing_ok=True)
    return found
